"""Weights of somebody else's script evaluate here to what that script says, to the image."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torchvision import transforms
from torchvision.datasets import ImageFolder
from torchvision.models import resnet18


def photographs(folder: Path) -> Path:
    """Three classes of noise whose colours overlap, of many sizes and two formats."""
    draw = np.random.default_rng(0)
    for part, count in (("train", 24), ("val", 20)):
        for label, name in enumerate(("amber", "beech", "coral")):
            (folder / part / name).mkdir(parents=True)
            for number in range(count):
                width, height = draw.integers(40, 90, 2)
                colour = 110 + 30 * np.eye(3)[label] + draw.normal(0, 14, 3)
                pixels = draw.normal(colour, 50, (height, width, 3)).clip(0, 255)
                name_of_file = f"{number}.{'jpg' if number % 2 else 'png'}"
                Image.fromarray(pixels.astype(np.uint8)).save(folder / part / name / name_of_file)
    return folder


def trained_elsewhere(folder: Path) -> tuple[dict[str, torch.Tensor], float]:
    """State dict and test accuracy of a training script as people write it."""
    crop = transforms.Resize(40), transforms.CenterCrop(32)
    normal = transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    transform = transforms.Compose([*crop, transforms.ToTensor(), normal])
    torch.manual_seed(0)
    model = resnet18(num_classes=3)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    load = torch.utils.data.DataLoader
    for _ in range(8):
        for images, labels in load(ImageFolder(folder / "train", transform), 12, shuffle=True):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images), labels).backward()
            optimizer.step()
    model.eval()
    right = []
    with torch.no_grad():
        for images, labels in load(ImageFolder(folder / "val", transform), 16):
            right += (model(images).argmax(1) == labels).tolist()
    return model.state_dict(), 100 * sum(right) / len(right)


@pytest.mark.slow
def test_a_resnet_of_another_script_evaluates_to_the_image(tmp_path, said) -> None:
    folder = photographs(tmp_path / "photographs")
    state, expected = trained_elsewhere(folder)
    assert 40 < expected < 98  # neither chance nor all, so that a wrong image shows
    file = tmp_path / "model_best.pth.tar"
    torch.save({"epoch": 3, "state_dict": {f"module.{k}": v for k, v in state.items()}}, file)
    line = ("evaluate", "--model", "torchvision:resnet18", "--weights", file, "--dataset", folder)
    line += ("--image-size", "32", "--resize", "40", "--device", "cpu")
    top1 = f"test top-1 {expected:.2f} % of 60"
    assert top1 in said(*line, "--normalize", "imagenet").out
    with pytest.warns(UserWarning, match="does not say how its images were normalised"):
        assert top1 not in said(*line).out
