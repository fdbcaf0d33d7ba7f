"""Replacers on some thousands of generated models, and on faults put into them on purpose."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import pytest
from hypothesis import Phase, given, settings

from helpers.model_strategies import FEATURES, Example, examples
from helpers.reliability import Section
from helpers.surgery_faults import FAULTS
from helpers.surgery_promises import keeps_all

pytestmark = pytest.mark.nightly

EXAMPLES = 200  # for each feature, of which there are some three dozen
OCCASIONS = ("replaced", "refused", "deepcopy", "pickle", "forward and backward")


@pytest.fixture(scope="module")
def seen() -> Counter[str]:
    """How many models there were, of what kind."""
    return Counter()


@pytest.mark.parametrize("feature", FEATURES)
def test_generated_models_keep_every_promise(feature: str, seen: Counter[str]) -> None:
    @settings(max_examples=EXAMPLES, derandomize=False, print_blob=True)
    @given(example=examples(feature))
    def keeps_its_promises(example: Example) -> None:
        occasions = set(keeps_all(example))
        assert feature in example.features
        seen.update(["examples", *sorted(example.features), *sorted(occasions)])

    keeps_its_promises()


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_noticed(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    feature, put_in = FAULTS[fault]
    put_in(monkeypatch)

    @settings(max_examples=500, phases=[Phase.generate], database=None)
    @given(example=examples(feature))
    def keeps_its_promises(example: Example) -> None:
        list(keeps_all(example))

    with pytest.raises(AssertionError):
        keeps_its_promises()


def test_there_were_enough_of_all(seen: Counter[str], section: Section) -> None:
    assert seen["examples"] >= EXAMPLES * len(FEATURES)
    assert all(seen[occasion] for occasion in OCCASIONS)
    section("Model surgery, fuzzed", text(seen))


def text(seen: Mapping[str, int]) -> str:
    features = {name: seen[name] for name in sorted(seen) if name not in (*OCCASIONS, "examples")}
    rows = [f"| {name} | {count:,} |" for name, count in features.items()]
    return "\n".join(
        [
            f"Hypothesis made {seen['examples']:,} models and replacers for them. Layers were"
            f" replaced in {seen['replaced']:,}, and {seen['refused']:,} were refused,"
            " with every bit, hook, flag and attribute as before. For each: `plan` is what `apply`"
            " does and changes nothing, not even the random state; what is shared stays shared;"
            " device, dtype, memory format, `training`, requires_grad and hooks are kept; layers of"
            " other kinds are not touched; a second application changes nothing; the penalty is the"
            " one of the formula, and has finite gradients on its own parameters only.",
            "",
            f"{seen['forward and backward']:,} of the models take the images made for them:"
            " forward and backward, in train and in eval mode, the replaced model gives the shapes,"
            " calls the hooks and reaches the layers that the dense one does. Where PyTorch can"
            " copy or pickle the dense model, it can copy or pickle the replaced one"
            f" ({seen['deepcopy']:,} and {seen['pickle']:,} times), and the copies are complete"
            " and independent.",
            "",
            "| in the model | models |",
            "| --- | ---: |",
            *rows,
            "",
            f"The fuzz can fail: each of {len(FAULTS)} faults put into the replacers on purpose is"
            f" noticed ({', '.join(sorted(FAULTS))}).",
        ]
    )
