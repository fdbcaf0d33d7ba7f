"""bsconv predict, load_run, and the guide to one's own images from start to end."""

import json
import os
import re
import shlex
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import bsconv
from bsconv.__main__ import main
from bsconv.experiments.classifier import Run
from bsconv.experiments.config import TrainConfig
from bsconv.experiments.export import load_exported
from bsconv.experiments.files.checkpoints import write_trained
from bsconv.experiments.model_sources import build_model
from helpers.paths import ROOT

CLASSES = {"cherry": (200, 30, 30), "lime": (40, 200, 40), "plum": (90, 30, 160)}
CONFIG = {"model": "cifar_resnet20", "dataset": "2024", "image_size": 16, "normalize": "imagenet"}


@pytest.fixture
def fruit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with a folder of noisy colours."""
    draw = np.random.default_rng(0)
    for part, count in (("train", 12), ("test", 4)):
        for name, colour in CLASSES.items():
            folder = tmp_path / "fruit" / part / name
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = np.clip(colour + draw.normal(0, 30, (48, 48, 3)), 0, 255)
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number}.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path


@pytest.fixture
def trained(fruit: Path) -> nn.Module:
    """The network of ``model.safetensors``."""
    model = build_model("cifar_resnet20", 3).eval()
    write_trained(Path("model.safetensors"), model, TrainConfig(**CONFIG), 3, classes=[*CLASSES])
    return model


@pytest.fixture
def predicted(capsys: pytest.CaptureFixture[str]) -> Callable[..., dict[str, Any]]:
    """What the command says in JSON."""

    def run(*arguments: object) -> Any:
        capsys.readouterr()
        main(["predict", *map(str, arguments), "--json"])
        return json.loads(capsys.readouterr().out)

    return run


FILE = "fruit/test/lime/0.png"


def test_the_probabilities_are_those_of_the_network(trained, predicted) -> None:
    opened = Image.open(FILE).resize((16, 16), Image.Resampling.BILINEAR)
    pixels = torch.from_numpy(np.array(opened)).permute(2, 0, 1) / 255
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    logits = trained(((pixels - mean[:, None, None]) / std[:, None, None])[None])[0]
    expected = dict(zip(CLASSES, logits.softmax(0).tolist(), strict=True))
    (image,) = predicted("model.safetensors", FILE)["images"]
    found = {each["class"]: each["probability"] for each in image["top"]}
    assert found == pytest.approx(expected, abs=1e-5)
    assert [*found.values()] == sorted(found.values(), reverse=True)


def test_unreadable_files_are_named_and_left_out(trained, predicted, capsys) -> None:
    Path("fruit/test/lime/broken.png").write_bytes(b"no image")
    Path("fruit/test/lime/notes.txt").touch()
    assert main(["predict", "model.safetensors", "fruit/test", "--csv", "a.csv", "--top", "1"]) == 1
    captured = capsys.readouterr()
    assert "broken.png is not a readable image" in captured.err
    assert "left out, not images that Pillow reads: 1 .txt file\n" in captured.err
    assert len(captured.out.splitlines()) == 12
    lines = Path("a.csv").read_text().splitlines()
    assert lines[0] == "file,class_1,probability_1"
    assert len(lines) == 13
    assert len(predicted("model.safetensors", "fruit/test")["unreadable"]) == 1


@pytest.mark.parametrize("more", [[], ["--json"]])
def test_a_csv_file_is_whole_whoever_reads_on(trained, more, monkeypatch) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w", buffering=1) as closed:
        monkeypatch.setattr(sys, "stdout", closed)
        assert main(["predict", "model.safetensors", "fruit/test", "--csv", "a.csv", *more]) == 0
    assert len(Path("a.csv").read_text().splitlines()) == 13


@pytest.fixture
def cropping(trained: nn.Module) -> Run:
    """A run of images whose shorter side is cropped, and a wide one of them: wide.png."""
    config = TrainConfig(**{**CONFIG, "resize": "20"})
    write_trained(Path("crop.safetensors"), trained, config, 3, classes=[*CLASSES])
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    Image.fromarray(pixels).save("wide.png")
    return bsconv.load_run("crop.safetensors")


def test_images_of_all_kinds_are_prepared_alike(cropping: Run) -> None:
    opened = Image.open("wide.png")
    array = np.asarray(opened)
    tensor = torch.from_numpy(array.copy()).permute(2, 0, 1)
    expected = cropping.preprocess("wide.png")
    for same in (array, array[None], [array], tensor, tensor[None], opened, Path("wide.png")):
        torch.testing.assert_close(cropping.preprocess(same), expected, rtol=0, atol=0)
        assert cropping.predict(same)[0].top == cropping.predict("wide.png")[0].top
    for floats in (tensor / 255, (tensor / 255).half(), array / 255):  # a grey level is 0.0175
        torch.testing.assert_close(cropping.preprocess(floats), expected, rtol=0, atol=0.02)
    mixed = cropping.preprocess(["wide.png", opened, tensor])
    torch.testing.assert_close(mixed, expected.expand(3, 3, 16, 16), rtol=0, atol=0)
    assert "3 classes (cherry, lime, plum), images of 16 x 16" in str(cropping)
    assert len(cropping.predict("fruit/test")) == len(cropping.preprocess("fruit/test")) == 12


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (torch.zeros(3, 8, 8, dtype=torch.int64), "needs uint8, or floats .* got torch.int64"),
        (np.zeros((8, 8, 3), dtype=bool), "needs uint8, or floats in 0 ... 1, got bool"),
        (torch.full((3, 8, 8), 255.0), "of floats needs them in 0 ... 1, got 255 to 255"),
        (torch.full((3, 8, 8), torch.nan), "of floats needs them in 0 ... 1, got nan to nan"),
        (np.zeros((3, 8, 8), dtype=np.uint8), r"as \(H, W, 3\) as an array, got shape \(3, 8, 8\)"),
        (torch.zeros(8, 8), r"3 channels, as \(3, H, W\), got shape \(8, 8\)"),
        ([3], "a path, a PIL image, a tensor or an array, got int"),
    ],
)  # fmt: skip
def test_what_is_no_image(cropping: Run, image: Any, message: str) -> None:
    for method in (cropping.preprocess, cropping.predict):
        with pytest.raises(ValueError, match=message):
            method(image)


def test_folders_are_read_as_in_training_and_each_file_once(trained, predicted) -> None:
    lime = Path("fruit/test/lime")
    for folder in (lime / ".hidden", lime / "__MACOSX", lime / "deep"):
        folder.mkdir()
        (folder / "0.png").write_bytes((lime / "0.png").read_bytes())
    (lime / "deep" / "circle").symlink_to(lime.absolute())
    (lime / "link.png").symlink_to("0.png")
    (lime / "linked").symlink_to("../plum")
    found = predicted("model.safetensors", lime, lime / "0.png", f"{lime}/../lime")
    names = [image["file"] for image in found["images"]]
    expected = (*range(4), "deep/0", "link", *(f"linked/{number}" for number in range(4)))
    assert names == [str(lime / f"{number}.png") for number in expected]


@pytest.mark.skipif(sys.platform != "linux", reason="names of files are UTF-8")
def test_names_that_are_not_utf8(trained, said) -> None:
    shutil.copy(FILE, name := os.fsdecode(b"\xe9t\xe9.png"))
    assert said("predict", "model.safetensors", name, "--csv", "a.csv").out.startswith("\\udce9t")
    assert b"\n\xe9t\xe9.png," in Path("a.csv").read_bytes()


def test_an_earlier_file_has_numbers_for_names(trained: nn.Module) -> None:
    write_trained(Path("old.safetensors"), trained, TrainConfig(**CONFIG), 3)
    assert bsconv.load_run("old.safetensors").classes == ("class 0", "class 1", "class 2")


def test_a_run_is_compared_even_before_its_first_epoch(trained: nn.Module, said: Any) -> None:
    (row,) = json.loads(said("results", "--runs", "model.safetensors", "--json").out)["rows"]
    assert (row["parameters"], row["epochs"], row["last top-1"]) == (272_025, 0, None)
    assert row["data"] == "2024"


EXPORT = ("export", "--checkpoint", "model.safetensors", "--format", "onnx", "--out", "x.onnx")


@pytest.mark.parametrize("free", [[], ["--dynamic-batch", "--dynamic-size"]])
@pytest.mark.slow
def test_onnx_says_the_same(trained, free: list[str], predicted, said) -> None:
    said(*EXPORT, *free)
    here, there = (predicted(file, "fruit/test") for file in ("model.safetensors", "x.onnx"))
    assert here["classes"] == there["classes"] == [*CLASSES]
    for image, other in zip(here["images"], there["images"], strict=True):
        assert image["file"] == other["file"]
        for mine, theirs in zip(image["top"], other["top"], strict=True):
            close = pytest.approx(mine["probability"], abs=1e-5)
            assert theirs == {"class": mine["class"], "probability": close}


@pytest.mark.slow
def test_the_guide_runs_as_it_stands(fruit: Path, said: Any) -> None:
    torch.save(build_model("torchvision:resnet18", 7).state_dict(), "flowers.pth")
    guide = (ROOT / "docs" / "your_images.md").read_text(encoding="utf-8")
    answers = {}
    for language, code in re.findall(r"```(bash|python)\n(.*?)```", guide, re.DOTALL):
        if code.startswith("# nets.py"):
            Path("nets.py").write_text(code)
        elif language == "python":
            exec(code, {})
        for line in code.splitlines() if language == "bash" else ():
            answers[line] = said(*shlex.split(line)[1:]).out
    of_run, of_onnx = (
        answers[f"bsconv predict {name} fruit/test/plum --top 2"]
        for name in ("runs/fruit", "fruit.onnx")
    )
    assert of_run == of_onnx
    assert of_run.count("plum") >= 4
    compared = answers["bsconv results --runs runs/fruit runs/dense runs/small --out runs.png"]
    assert compared.splitlines()[4].split()[:4] == ["runs/small", "nets.py:small", "fruit", "7,435"]
    assert answers["bsconv predict runs/small fruit/test/cherry"].count("0.png: ") == 1


@pytest.mark.slow
def test_onnx_of_images_that_are_not_square_is_refused(trained, said, failure) -> None:
    said(*EXPORT, "--input-size", "3x16x24")
    message = "needs square images of 3 channels, x.onnx takes 3 x 16 x 24"
    assert message in failure("predict", "x.onnx", FILE)
    with pytest.raises(ValueError, match=r"^x\.onnx cannot take images of 3 x 16 x 16 \([^\n]*$"):
        load_exported("x.onnx")(torch.zeros(1, 3, 16, 16))
