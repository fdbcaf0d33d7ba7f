"""bsconv export: files that compute what the model does, on their own, and one line where not."""

import copy
import importlib.util
import re
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from bsconv.commands import export as export_command
from bsconv.engines import OPSET
from bsconv.experiments import export
from bsconv.experiments.config import TrainConfig
from bsconv.experiments.export import FORMATS, check_export, export_model, load_exported
from bsconv.experiments.files.checkpoints import write_trained
from bsconv.experiments.model_sources import build_model
from bsconv.pytorch import get_model
from bsconv.pytorch.inference import optimize_for_inference
from helpers.model_snapshots import assert_unchanged, snapshot
from helpers.trained import trained

SMALLEST = "cifar_wrn16_1_bsconvs_p1d4"
IMAGES = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def small() -> nn.Module:
    torch.manual_seed(0)
    return trained(get_model("cifar_wrn16_1_bsconvu", 10)).eval()


@pytest.fixture(params=FORMATS)
def format(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def path(format: str, tmp_path: Path) -> Path:
    return tmp_path / f"m{FORMATS[format]}"


def check(path: Path, model: nn.Module, images: Tensor = IMAGES) -> None:
    with torch.no_grad():
        expected = copy.deepcopy(model).eval()(images)
    torch.testing.assert_close(load_exported(path)(images), expected, rtol=1e-4, atol=1e-4)


# --- what the files compute -----------------------------------------------------------------------


@pytest.mark.slow
def test_an_onnx_file(tmp_path: Path) -> None:
    """Nightly tests export models of other libraries."""
    model, path = trained(get_model(SMALLEST, 10)).eval(), tmp_path / "m.onnx"
    export_model(model, IMAGES, path, format="onnx", dynamic_batch=True)
    check(path, model)
    assert load_exported(path)(IMAGES).abs().max() > 0.1
    onnx.checker.check_model(path, full_check=True)
    assert [*tmp_path.iterdir()] == [path]
    proto = onnx.load(path)
    assert [(each.domain, each.version) for each in proto.opset_import] == [("", OPSET)]
    assert [value.name for value in proto.graph.input] == ["images"]
    assert [value.name for value in proto.graph.output] == ["logits"]
    shape = proto.graph.input[0].type.tensor_type.shape.dim
    assert [each.dim_param or each.dim_value for each in shape] == ["batch", 3, 32, 32]
    assert not any(tensor.external_data for tensor in proto.graph.initializer)
    assert not any(part.metadata_props for part in (proto, proto.graph, *proto.graph.node))


@pytest.mark.slow
@pytest.mark.parametrize(("example", "optimized"), [(1, False), (3, True)])
def test_batches_of_any_size(format, example: int, optimized: bool, small, path) -> None:
    images = IMAGES[:1].repeat(example, 1, 1, 1)
    model = optimize_for_inference(small, images, compile=False) if optimized else small
    export_model(model, images, path, format=format, dynamic_batch=True)
    for count in (1, 5):
        check(path, small, torch.rand(count, 3, 32, 32))


@pytest.mark.parametrize("damage", ["a bit", "the end", "all of it"])
def test_a_damaged_program_is_one_line(damage: str, small: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "m.pt2"
    export_model(small, IMAGES[:1], path, format="exported-program")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes({"a bit": content, "the end": content[:-900], "all of it": b""}[damage])
    with pytest.raises(ValueError, match=r"m\.pt2 holds no exported program: [^\n]*$"):
        load_exported(path)


@pytest.mark.slow
@pytest.mark.parametrize("plan", ["auto", "merged"])
def test_layers_with_a_plan(plan: Any, tmp_path: Path) -> None:
    model = trained(get_model("cifar_wrn16_1_bsconvu", 10)).eval()
    for module in model.modules():
        if hasattr(module, "plan"):
            module.plan = plan
    export_model(model, IMAGES, tmp_path / "m.onnx", format="onnx")
    check(tmp_path / "m.onnx", model)


@pytest.mark.slow
def test_files_say_nothing_of_the_machine(format: str, small: nn.Module, path: Path) -> None:
    export_model(small, IMAGES, path, format=format)
    content = path.read_bytes()
    assert b"site-packages" not in content
    assert str(Path(export.__file__).parents[2]).encode() not in content
    if format == "onnx":  # torch numbers its own files at random
        export_model(small, IMAGES, path, format=format)
        assert path.read_bytes() == content


@pytest.mark.slow
def test_the_model_is_left_as_it_was(format: str, path: Path, capfd: Any) -> None:
    model = get_model(SMALLEST, 10).train()
    model(IMAGES).sum().backward()
    next(model.children()).eval()
    before = snapshot(model)
    export_model(model, IMAGES[:1], path, format=format, dynamic_batch=True)
    assert_unchanged(model, before)
    assert capfd.readouterr() == ("", "")
    check(path, model, IMAGES[:1])


# --- wrong input ----------------------------------------------------------------------------------


class ByValue(nn.Module):
    """What it computes depends on values, which a graph cannot follow."""

    def forward(self, images: Tensor) -> Tensor:
        return images if images.sum() > 0 else -images


class TwoByTwo(nn.Module):
    """Works for batches of two alone."""

    def forward(self, images: Tensor) -> Tensor:
        return images.reshape(2, -1)


@pytest.mark.parametrize(
    ("model", "dynamic", "message"),
    [
        (ByValue(), False, "ByValue cannot be exported as {}: "),
        (TwoByTwo(), True, "TwoByTwo cannot be exported as {} for batches of any size: "),
    ],
)
def test_models_that_cannot_be_exported(format, model, dynamic, message, path) -> None:
    with pytest.raises(ValueError, match=f"{message.format(format)}[^\n]*$"):
        export_model(model, torch.rand(2, 8), path, format=format, dynamic_batch=dynamic)
    assert list(path.parent.iterdir()) == []


def test_more_weights_than_a_file_takes(small: nn.Module, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(export, "ONNX_LIMIT", 100_000)
    with pytest.raises(ValueError, match=r"takes 100,000 bytes of weights, got 1\d\d,\d\d\d"):
        export_model(small, IMAGES, tmp_path / "m.onnx", format="onnx")


@pytest.mark.parametrize("package", ["onnx", "onnxscript"])
def test_packages_that_are_missing(package: str, tmp_path, monkeypatch) -> None:
    find, tool = export.importlib.util.find_spec, export.importlib.util
    monkeypatch.setattr(tool, "find_spec", lambda name: None if name == package else find(name))
    with pytest.raises(ValueError, match=rf"needs the package {package}: pip install 'bsconv\[on"):
        check_export(tmp_path / "m.onnx", "onnx")
    check_export(tmp_path / "m.pt2", "exported-program")


# --- the command ----------------------------------------------------------------------------------


def line(path: Path, *more: object) -> tuple[object, ...]:
    format = next(format for format, suffix in FORMATS.items() if suffix == path.suffix)
    return ("export", "--format", format, "--out", path, *more)


@pytest.mark.slow
@pytest.mark.parametrize("more", [[], ["--optimize"]])
def test_the_command_says_what_it_wrote(more: list[str], tmp_path: Path, said: Any) -> None:
    path, name = tmp_path / "m.onnx", "cifar_wrn16_1_bsconvu"
    options = ("--pretrained", "cifar10", "--dynamic-batch", "--batch-size", "2")
    printed = said(*line(path, name, *options, *more))
    assert printed.err == ""
    *_, first, second = printed.out.splitlines()
    kind = rf"ONNX of opset {OPSET}, 0\.[12]\d MB, for any x 3 x 32 x 32"
    assert re.fullmatch(rf"{path}: {name} as {kind}", first)
    assert re.fullmatch(
        r"largest difference from PyTorch: \d\.\de-0\d, of outputs up to \d+(\.\d)?, "
        r"the same class for 100\.0 % of 3 images \(onnxruntime\)",
        second,
    )
    check(path, get_model(name, 10, pretrained="cifar10"), torch.rand(5, 3, 32, 32))


@pytest.mark.slow
def test_exported_program_by_the_command(tmp_path: Path, said: Any) -> None:
    settings = ("--bsconv", "s", "--p", "1/2", "--with-bn", "--num-classes", 7, "--input-size", 32)
    printed = said(*line(tmp_path / "m.pt2", "torchvision:resnet18", *settings))
    assert printed.err.startswith("bsconv export: torchvision:resnet18 starts from random weights")
    assert "as an exported program of torch, " in printed.out
    assert "MB, for 1 x 3 x 32 x 32\nlargest difference from PyTorch: " in printed.out
    assert printed.out.endswith(" (torch)\n")
    assert load_exported(tmp_path / "m.pt2")(IMAGES[:1]).shape == (1, 7)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("checkpoint", "named", "kind"),
    [("run", [], "u"), ("run/model.safetensors", ["cifar_ResNet20"], None)],
)
def test_checkpoints(checkpoint: str, named: list[str], kind: Any, tmp_path, said: Any) -> None:
    config = TrainConfig("cifar_resnet20", "synthetic", bsconv=kind, image_size=16)
    model = trained(build_model("cifar_resnet20", 10, bsconv=kind)).eval()
    (tmp_path / "run").mkdir()
    write_trained(tmp_path / "run" / "model.safetensors", model, config, 10)
    said(*line(tmp_path / "m.pt2", *named, "--checkpoint", tmp_path / checkpoint))
    check(tmp_path / "m.pt2", model, torch.rand(1, 3, 16, 16))


@pytest.mark.slow
def test_weights_say_how_many_classes_there_are(tmp_path: Path, said: Any) -> None:
    model, file = trained(get_model("cifar_resnet20", 7)).eval(), tmp_path / "w.safetensors"
    save_file(model.state_dict(), file)
    said(*line(tmp_path / "m.pt2", "cifar_resnet20", "--normalize", "none", "--weights", file))
    check(tmp_path / "m.pt2", model, IMAGES[:1])


@pytest.mark.slow
def test_without_an_engine_nothing_is_compared(tmp_path, monkeypatch, said: Any) -> None:
    find = importlib.util.find_spec
    absent = lambda name: None if name == "onnxruntime" else find(name)  # noqa: E731
    monkeypatch.setattr(importlib.util, "find_spec", absent)
    printed = said(*line(tmp_path / "m.onnx", "cifar_wrn16_1_bsconvu", "--pretrained", "cifar10"))
    missing = "not compared with PyTorch: that needs onnxruntime, pip install 'bsconv[onnx]'"
    assert printed.out.splitlines()[1] == missing


def test_help_says_the_opset() -> None:
    assert f"opset {OPSET}," in str(export_command.__doc__)
