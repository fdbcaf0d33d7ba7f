"""Transfer: a fresh classifier in place of the one that the weights have."""

from pathlib import Path

import pytest
import torch
from torch import nn

from bsconv.experiments.model_sources import build_model
from bsconv.experiments.training import _inputs
from bsconv.experiments.training._new_head import head_names, with_new_head
from helpers.small_runs import Use, config, noise, run, weights, with_all_state


class TwoHeads(nn.Module):
    """Adds up two answers, as distilled vision transformers do; a third layer is as wide."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, classes))
        self.first, self.second = nn.Linear(classes, classes), nn.Linear(classes, classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = self.trunk(images).relu()
        return self.first(features) + self.second(features)


@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("torchvision:resnet18", ("fc.",)), ("torchvision:squeezenet1_1", ("classifier.1.",)),
        ("torchvision:mobilenet_v3_small", ("classifier.3.",)),
        ("pytorchcv:resnet20_cifar10", ("output.",)), ("timm:resnet10t", ("fc.",)),
        ("timm:convnext_atto", ("head.fc.",)), ("cifar_mobilenetv1_w1d4", ("classifier.conv.",)),
    ],
)  # fmt: skip
def test_the_head_is_found_whatever_its_name(name: str, head: tuple[str, ...]) -> None:
    model = build_model(name, 7)
    before = model.state_dict()
    assert head_names(model, config()) == head
    changed = with_new_head(model, 3, config()).eval()
    assert changed(torch.zeros(2, 3, 32, 32)).shape == (2, 3)
    after = changed.state_dict()
    assert {key for key in before if before[key] is not after[key]} >= {f"{head[0]}weight"}
    for key in before:
        assert key.startswith(head) or torch.equal(before[key], after[key]), key


def test_heads_that_are_added_up_change_together() -> None:
    model = with_new_head(TwoHeads(7), 3, config())
    assert head_names(model, config()) == ("first.", "second.")
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 3)


def test_a_model_without_a_classifier_is_refused() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(ValueError, match=r"new_head needs a Linear or 1x1 convolution .* now 4"):
        with_new_head(model, 3, config())


@pytest.mark.parametrize("prefix", ["", "module.", "net."])
def test_weights_of_other_classes_start_a_run(tmp_path: Path, use: Use, prefix: str) -> None:
    """With ``freeze``, all but the head stays as it was, BatchNorm statistics included."""
    use(with_all_state)
    foreign = with_all_state(7).state_dict()
    torch.save({prefix + key: foreign[key] for key in foreign}, tmp_path / "foreign.pth")
    start = {"weights": str(tmp_path / "foreign.pth"), "normalize": "none", "new_head": True}
    trained = weights(run(**start, freeze=True))
    assert trained["6.weight"].shape == (4, 32)
    for key, tensor in foreign.items():
        assert key.startswith("6.") or torch.equal(trained[key], tensor), key
    assert not torch.equal(weights(run(**start))["0.weight"], foreign["0.weight"])


def test_dense_weights_start_a_network_of_blueprints(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(_inputs, "load_dataset", lambda *_, **__: noise(size=32))
    dense = build_model("cifar_resnet20", 7)
    nn.init.constant_(dense.get_parameter("backbone.data_bn.weight"), 0.5)
    torch.save(dense.state_dict(), tmp_path / "foreign.pth")
    settings = {"model": "cifar_resnet20", "bsconv": "u", "freeze": True, "epochs": 1}
    start = {"weights": str(tmp_path / "foreign.pth"), "normalize": "none", "new_head": True}
    trained = weights(run(**settings, **start))
    assert trained["backbone.data_bn.weight"].tolist() == [0.5] * 3
    kernel = dense.get_submodule("backbone.stage1.unit1.conv1.conv").weight
    blueprints = trained["backbone.stage1.unit1.conv1.conv.dw.weight"]
    assert blueprints.shape == (len(kernel), 1, 3, 3)
    alike = nn.functional.cosine_similarity(blueprints[:, 0, None].flatten(2), kernel.flatten(2), 2)
    assert alike.abs().amax(1).min() > 0.3  # random ones are not


def test_the_head_is_found_at_the_size_that_the_weights_want(tmp_path, use: Use) -> None:
    use(lambda classes: nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, classes)))
    run(out=tmp_path / "first", image_size=16, epochs=1)
    assert weights(run(weights=tmp_path / "first", new_head=True))["1.weight"].shape == (4, 768)


def test_weights_of_other_classes_say_the_way(tmp_path: Path, use: Use) -> None:
    use(with_all_state)
    torch.save(with_all_state(7).state_dict(), tmp_path / "foreign.pth")
    with pytest.raises(ValueError, match=r"needs shape \(4, 32\), got \(7, 32\); .* --new-head"):
        run(weights=str(tmp_path / "foreign.pth"), normalize="none")
    torch.save({**with_all_state(7).state_dict(), "more": torch.ones(1)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"got \(7, 32\)$"):
        run(weights=str(tmp_path / "other.pth"), normalize="none")
