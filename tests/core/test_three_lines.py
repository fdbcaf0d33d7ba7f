"""The three promised lines on other people's models, against what 0.4.0 answered."""

import pytest

from golden import assert_extracts_close, measures, recorded

THEIRS = recorded("foreign")
MODELS = [  # the others are large
    pytest.param(name, marks=() if name.startswith("pytorchcv:resnet") else pytest.mark.slow)
    for name in measures.FOREIGN
]


@pytest.mark.parametrize("model", MODELS)
def test_replaced_models_equal_those_of_the_published_package(model: str) -> None:
    for name, ours in measures.foreign([model]).items():
        other = THEIRS[name]
        assert ours["layers"] == other["layers"]
        assert ours["layers"][0] > 5
        assert ours["parameters"] == other["parameters"]
        assert_extracts_close(ours["outputs"], other["outputs"], 1e-4)
        assert ours["penalty"] == pytest.approx(other["penalty"], rel=1e-5)
        assert (ours["penalty"] > 0) == name.endswith(" s")


def test_layers_start_from_the_same_random_weights() -> None:
    for ours, other in zip(measures.first_weights(), recorded("first_weights"), strict=True):
        assert list(ours) == list(other)
        for name in ours:
            assert_extracts_close(ours[name], other[name], 1e-6)
