"""Images are normalised as the weights want it, wherever they come from, and somebody says so."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torchvision.transforms import functional as transforms

from bsconv.experiments.config import TrainConfig
from bsconv.experiments.data import to_float
from bsconv.experiments.files.checkpoints import Start, read_trained
from bsconv.experiments.model_sources import build_model, foreign_images
from bsconv.experiments.normalization import Normalization
from bsconv.experiments.training import settled
from helpers.small_runs import Use, config, linear, noise, run

HALF = {"mean": (0.5, 0.25, 1.0), "std": (0.5, 1.0, 0.25)}
channels = st.tuples(*[st.floats(0.01, 1)] * 3)


@given(channels, channels)
def test_images_are_those_of_torchvision_to_the_bit(mean: Any, std: Any) -> None:
    images = to_float(noise().test_images)
    expected = transforms.normalize(images, list(mean), list(std))
    found = Normalization.from_options(mean=mean, std=std).apply(images)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_without_a_wish_images_stay_as_they_are() -> None:
    images = torch.rand(2, 3, 4, 4)
    assert Normalization().apply(images) is images
    assert Normalization.from_options("none") == TrainConfig().normalization == Normalization()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mean": (0.5,) * 3}, "mean needs std with it, got std=None"),
        ({"std": (0.5,) * 3}, "std needs mean with it, got mean=None"),
        ({"normalize": "none", **HALF}, "normalize needs to stand without mean and std, got 'none"),
        ({**HALF, "mean": (0.5, 0.5)}, r"mean needs three numbers >= 0 and <= 1.*, got \(0.5, 0"),
        ({**HALF, "mean": (123.7, 116.3, 103.5)}, "mean needs three numbers >= 0 and <= 1"),
        ({**HALF, "std": (0.5, 0, 0.5)}, "std needs three numbers > 0 and <= 1"),
    ],
)
def test_what_is_no_normalisation(options: dict[str, Any], message: str) -> None:
    for make in (TrainConfig, Normalization.from_options):
        with pytest.raises(ValueError, match=message):
            make(**options)


def test_other_images_are_refused() -> None:
    for images in (torch.zeros(2, 1, 4, 4), torch.zeros(2, 3, 4, 4, dtype=torch.uint8)):
        with pytest.raises(ValueError, match="normalisation needs float images of 3 channels, got"):
            Normalization.from_options("imagenet").apply(images)


def test_a_run_learns_and_measures_normalised_images(use: Use) -> None:
    """As if the first layer did it."""

    class Inside(nn.Sequential):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return super().forward(Normalization(**HALF).apply(images))

    use(linear)
    outside = run(**HALF, learning_rate=0.01)
    use(lambda classes: Inside(*linear(classes)))
    inside = run(learning_rate=0.01)
    assert outside[-1].test_top1 == inside[-1].test_top1
    assert outside[-1].train_loss == pytest.approx(inside[-1].train_loss, rel=1e-4)


def test_the_run_keeps_it(use: Use, tmp_path: Path) -> None:
    use(linear)
    run(out=tmp_path / "first", normalize="imagenet", epochs=1)
    kept = read_trained(tmp_path / "first").config
    assert kept.normalization == Normalization.from_options("imagenet")
    # the next run starts from its weights, and a resumed one goes on with them, unasked
    for resume in (False, True):
        run(resume, out=tmp_path / "next", weights=tmp_path / "first", epochs=1)
        assert read_trained(tmp_path / "next").config.normalization == kept.normalization
    with pytest.raises(ValueError, match="with normalize='imagenet', not normalize='none'"):
        run(True, out=tmp_path / "first", normalize="none", epochs=1)


def test_earlier_files_say_nothing_and_get_images_as_they_are(tmp_path: Path) -> None:
    values = dataclasses.asdict(TrainConfig())
    for name in ("normalize", "mean", "std"):
        del values[name]
    assert TrainConfig.from_dict(values).normalization == Normalization()
    same = TrainConfig(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    assert same.difference(TrainConfig(normalize="imagenet")) is None
    assert same.difference(TrainConfig()) == "normalize"


def test_foreign_weights_come_with_a_warning(use: Use, tmp_path: Path) -> None:
    use(linear)
    torch.save(linear(4).state_dict(), tmp_path / "theirs.pt")
    with pytest.warns(UserWarning, match=r"theirs\.pt does not say how its images were normalised"):
        run(weights=tmp_path / "theirs.pt", epochs=1)
    run(weights=tmp_path / "theirs.pt", epochs=1, normalize="cifar10")


THEIRS = {
    "torchvision:resnet18": (0.485, 0.229, 224, "256"),
    "torchvision:efficientnet_b3": (0.485, 0.229, 300, "320,bicubic"),
    "timm:vit_tiny_patch16_384": (0.5, 0.5, 384, "384,bicubic"),
    "timm:vit_base_patch16_clip_384": (0.48145466, 0.26862954, 384, "squash,bicubic"),
    "pytorchcv:resnet20_cifar10": (0.4914, 0.2023, 32, "32"),
    "cifar_resnet20": (0, 1, None, None),
}


@pytest.mark.parametrize("name", THEIRS)
def test_pretrained_weights_bring_their_own(name: str) -> None:
    with torch.device("meta"):
        start = Start({}, {}, TrainConfig(**foreign_images(name, build_model(name, 10))))
    found = settled(config(model=name, dataset="folder"), start)
    (mean, *_), (std, *_) = found.normalization.mean, found.normalization.std
    assert (mean, std, found.image_size, found.resize) == THEIRS[name]
    assert settled(config(normalize="none"), start).normalization == Normalization()


def test_a_teacher_sees_its_own_images(use: Use, monkeypatch, tmp_path) -> None:
    use(linear)
    run(out=tmp_path / "teacher", normalize="cifar10", epochs=1)
    seen = []
    model = linear(4)
    model.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    monkeypatch.setattr("bsconv.experiments.training._models.trained_model", lambda *_: model)
    run(teacher=tmp_path / "teacher", epochs=1, crop_padding=0, flip=False, batch_size=20)
    expected = Normalization.from_options("cifar10").apply(to_float(noise().train_images))
    torch.testing.assert_close(seen[-1].sum(0), expected.sum(0))
