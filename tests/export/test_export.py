"""bsconv export: files that compute what the model does, on their own, and one line where not."""

import copy
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor, nn

from bsconv.__main__ import main
from bsconv.commands import export as export_command
from bsconv.experiments.config import TrainConfig
from bsconv.experiments.export import FORMATS, check_export, export_model, load_exported
from bsconv.experiments.export import _write as export
from bsconv.experiments.files.checkpoints import write_trained
from bsconv.pytorch import BSConvS_Replacer, BSConvU_Replacer, get_model, modify_mobilenet
from bsconv.pytorch.inference import optimize_for_inference
from bsconv.pytorch.inference.engines import OPSET
from helpers.trained import trained

Captured = pytest.CaptureFixture[str]


def resnet18() -> nn.Module:
    return torchvision.models.resnet18(num_classes=10)


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "resnet18": resnet18,
    "resnet18 U": lambda: BSConvU_Replacer().apply(resnet18()),
    "resnet18 S with BatchNorm": lambda: BSConvS_Replacer(with_bn=True).apply(resnet18()),
    "mobilenet_v2 S": lambda: modify_mobilenet(torchvision.models.mobilenet_v2(num_classes=10)),
    "densenet121 U": lambda: BSConvU_Replacer().apply(
        torchvision.models.densenet121(num_classes=10)
    ),
    "wrn16_1 S": lambda: get_model("cifar_wrn16_1_bsconvs_p1d4", 10),
}
SMALLEST = "wrn16_1 S"


@pytest.fixture(scope="module")
def small() -> nn.Module:
    torch.manual_seed(0)
    return trained(get_model("cifar_wrn16_1_bsconvu", 10)).eval()


def outputs(model: nn.Module, images: Tensor) -> Tensor:
    with torch.no_grad():
        result: Tensor = copy.deepcopy(model).eval()(images)
    return result


def check(path: Path, model: nn.Module, images: Tensor) -> None:
    torch.testing.assert_close(
        load_exported(path)(images), outputs(model, images), rtol=1e-4, atol=1e-4
    )


# --- what the files compute -----------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        name if name == SMALLEST else pytest.param(name, marks=pytest.mark.nightly)
        for name in NETWORKS
    ],
)
def test_onnx_runtime_computes_the_same(name: str, tmp_path: Path) -> None:
    model = trained(NETWORKS[name]()).eval()
    images = torch.rand(2, 3, 32, 32)
    assert outputs(model, images).abs().max() > 0.1
    export_model(model, images, tmp_path / "m.onnx", format="onnx")
    check(tmp_path / "m.onnx", model, images)
    onnx.checker.check_model(tmp_path / "m.onnx", full_check=True)
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]


@pytest.mark.slow
@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("example", [1, 3])
def test_batches_of_any_size(format: str, example: int, small: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / f"m{FORMATS[format]}"
    images = torch.rand(example, 3, 32, 32)
    export_model(small, images, path, format=format, dynamic_batch=True)
    for count in (1, 5):
        check(path, small, torch.rand(count, 3, 32, 32))


def test_exported_program(small: nn.Module, tmp_path: Path) -> None:
    images = torch.rand(2, 3, 32, 32)
    export_model(small, images, tmp_path / "m.pt2", format="exported-program")
    check(tmp_path / "m.pt2", small, images)
    with pytest.raises(
        AssertionError, match=r"images.size\(\)\[0\] == 2"
    ):  # the batch was not to be dynamic
        load_exported(tmp_path / "m.pt2")(torch.rand(3, 3, 32, 32))


@pytest.mark.parametrize("damage", ["a bit", "the end", "all of it"])
def test_a_damaged_program_is_one_line(damage: str, small: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "m.pt2"
    export_model(small, torch.rand(1, 3, 32, 32), path, format="exported-program")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes({"a bit": content, "the end": content[:-900], "all of it": b""}[damage])
    with pytest.raises(
        ValueError, match=r"m\.pt2 is damaged, or not an exported program: "
    ) as caught:
        load_exported(path)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize("format", FORMATS)
def test_optimized_models(format: str, tmp_path: Path) -> None:
    model = trained(NETWORKS[SMALLEST]()).eval()
    images = torch.rand(2, 3, 32, 32)
    optimized = optimize_for_inference(model, images, compile=False)
    path = tmp_path / f"m{FORMATS[format]}"
    export_model(optimized, images, path, format=format, dynamic_batch=True)
    for count in (1, 5):
        check(path, model, torch.rand(count, 3, 32, 32))


@pytest.mark.slow
@pytest.mark.parametrize("plan", ["auto", "merged"])
def test_layers_with_a_plan(plan: Any, tmp_path: Path) -> None:
    model = trained(get_model("cifar_wrn16_1_bsconvu", 10)).eval()
    for module in model.modules():
        if hasattr(module, "plan"):
            module.plan = plan
    images = torch.rand(2, 3, 32, 32)
    export_model(model, images, tmp_path / "m.onnx", format="onnx")
    check(tmp_path / "m.onnx", model, images)


@pytest.mark.slow
def test_what_is_in_an_onnx_file(small: nn.Module, tmp_path: Path) -> None:
    images = torch.rand(2, 3, 32, 32)
    export_model(small, images, tmp_path / "m.onnx", format="onnx", dynamic_batch=True)
    proto = onnx.load(tmp_path / "m.onnx")
    assert [(each.domain, each.version) for each in proto.opset_import] == [("", OPSET)]
    assert [value.name for value in proto.graph.input] == ["images"]
    assert [value.name for value in proto.graph.output] == ["logits"]
    shape = proto.graph.input[0].type.tensor_type.shape.dim
    assert [each.dim_param or each.dim_value for each in shape] == ["batch", 3, 32, 32]
    assert not any(tensor.external_data for tensor in proto.graph.initializer)
    assert not any(part.metadata_props for part in (proto, proto.graph, *proto.graph.node))


@pytest.mark.slow
@pytest.mark.parametrize("format", FORMATS)
def test_files_say_nothing_of_the_machine(format: str, small: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / f"m{FORMATS[format]}"
    export_model(small, torch.ones(2, 3, 32, 32), path, format=format)
    content = path.read_bytes()
    assert b"site-packages" not in content
    assert str(Path(export.__file__).parents[2]).encode() not in content
    if format == "onnx":  # torch numbers its own files at random
        export_model(small, torch.ones(2, 3, 32, 32), path, format=format)
        assert path.read_bytes() == content


@pytest.mark.slow
@pytest.mark.parametrize("format", FORMATS)
def test_the_model_is_left_as_it_was(format: str, tmp_path: Path, capfd: Any) -> None:
    model = get_model("cifar_wrn16_1_bsconvs_p1d4", 10).train()
    model(torch.rand(2, 3, 32, 32)).sum().backward()
    next(model.children()).eval()
    before = copy.deepcopy(model)
    gradients = [parameter.grad.clone() for parameter in model.parameters()]
    path = tmp_path / f"m{FORMATS[format]}"
    images = torch.rand(1, 3, 32, 32)
    export_model(model, images, path, format=format, dynamic_batch=True)
    assert [module.training for module in model.modules()] == [
        module.training for module in before.modules()
    ]
    torch.testing.assert_close(model.state_dict(), before.state_dict(), rtol=0, atol=0)
    for parameter, gradient in zip(model.parameters(), gradients, strict=True):
        assert parameter.requires_grad
        torch.testing.assert_close(parameter.grad, gradient, rtol=0, atol=0)
    assert capfd.readouterr() == ("", "")
    check(path, model, images)


# --- wrong input ----------------------------------------------------------------------------------


class ByValue(nn.Module):
    """What it computes depends on values, which a graph cannot follow."""

    def forward(self, images: Tensor) -> Tensor:
        return images if images.sum() > 0 else -images


class TwoByTwo(nn.Module):
    """Works for batches of two alone."""

    def forward(self, images: Tensor) -> Tensor:
        return images.reshape(2, -1)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize(
    ("model", "dynamic", "message"),
    [
        (ByValue(), False, "ByValue cannot be exported as {}: "),
        (TwoByTwo(), True, "TwoByTwo cannot be exported as {} for batches of any size: "),
    ],
)
def test_models_that_cannot_be_exported(
    format: str, model: nn.Module, dynamic: bool, message: str, tmp_path: Path
) -> None:
    path = tmp_path / f"m{FORMATS[format]}"
    with pytest.raises(ValueError, match=message.format(format)) as raised:
        export_model(model, torch.rand(2, 8), path, format=format, dynamic_batch=dynamic)
    assert "\n" not in str(raised.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "format", "message"),
    [
        ("m.onnx", "tflite", "format needs to be 'onnx' or 'exported-program', got 'tflite'"),
        ("m.pt2", "onnx", r"a file of format onnx ends in \.onnx, got .*m\.pt2"),
        ("m.onnx", "exported-program", r"format exported-program ends in \.pt2, got .*m\.onnx"),
    ],
)
def test_names_and_formats(name: str, format: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        check_export(tmp_path / name, format)


def test_more_weights_than_a_file_takes(
    small: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "ONNX_LIMIT", 100_000)
    with pytest.raises(ValueError, match=r"takes 100,000 bytes of weights, got 1\d\d,\d\d\d"):
        export_model(small, torch.rand(1, 3, 32, 32), tmp_path / "m.onnx", format="onnx")


def without(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    find = export.importlib.util.find_spec
    monkeypatch.setattr(
        export.importlib.util, "find_spec", lambda name: None if name == package else find(name)
    )


@pytest.mark.parametrize("package", ["onnx", "onnxscript"])
def test_packages_that_are_missing(
    package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without(monkeypatch, package)
    message = rf"ONNX needs the package {package}: pip install 'bsconv\[onnx\]'"
    with pytest.raises(ValueError, match=message):
        check_export(tmp_path / "m.onnx", "onnx")
    check_export(tmp_path / "m.pt2", "exported-program")


def test_running_a_file_needs_its_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "onnxruntime")
    needed = r"m\.onnx needs the package onnxruntime: pip install 'bsconv\[onnx\]'"
    with pytest.raises(ValueError, match=needed):
        load_exported(tmp_path / "m.onnx")


# --- the command ----------------------------------------------------------------------------------


def line(tmp_path: Path, *more: object, format: str = "onnx") -> list[str]:
    out = tmp_path / f"m{FORMATS[format]}"
    return list(map(str, ("export", "--format", format, "--out", out, *more)))


@pytest.mark.slow
def test_the_command_says_what_it_wrote(tmp_path: Path, capsys: Captured) -> None:
    arguments = line(tmp_path, "cifar_wrn16_1_bsconvu", "--pretrained", "cifar10")
    assert main([*arguments, "--dynamic-batch", "--batch-size", "2"]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    first, second = captured.out.splitlines()
    kind = rf"ONNX of opset {OPSET}, 0\.1\d MB, for any x 3 x 32 x 32"
    assert re.fullmatch(rf"{tmp_path}/m\.onnx: cifar_wrn16_1_bsconvu as {kind}", first)
    assert re.fullmatch(
        r"largest difference from PyTorch: \d\.\de-0\d, of outputs up to \d+(\.\d)?, "
        r"the same class for 100\.0 % of 3 images \(onnxruntime\)",
        second,
    )
    images = torch.rand(5, 3, 32, 32)
    check(tmp_path / "m.onnx", get_model("cifar_wrn16_1_bsconvu", 10, pretrained="cifar10"), images)


@pytest.mark.slow
def test_exported_program_by_the_command(tmp_path: Path, capsys: Captured) -> None:
    arguments = line(tmp_path, "torchvision:resnet18", format="exported-program")
    settings = ("--bsconv", "s", "--p", "1/2", "--with-bn", "--num-classes", 7, "--input-size", 32)
    assert main([*arguments, *map(str, settings)]) == 0
    captured = capsys.readouterr()
    assert captured.err.startswith("bsconv export: torchvision:resnet18 starts from random weights")
    assert "as an exported program of torch, " in captured.out
    assert "MB, for 1 x 3 x 32 x 32\nlargest difference from PyTorch: " in captured.out
    assert captured.out.endswith(" (torch)\n")
    assert load_exported(tmp_path / "m.pt2")(torch.rand(1, 3, 32, 32)).shape == (1, 7)


@pytest.mark.slow
def test_optimized_by_the_command(tmp_path: Path, capsys: Captured) -> None:
    arguments = line(tmp_path, "cifar_wrn16_1_bsconvu", "--pretrained", "cifar10", "--optimize")
    assert main([*arguments, "--dynamic-batch"]) == 0
    assert "largest difference from PyTorch: " in capsys.readouterr().out
    images = torch.rand(5, 3, 32, 32)
    check(tmp_path / "m.onnx", get_model("cifar_wrn16_1_bsconvu", 10, pretrained="cifar10"), images)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("checkpoint", "named", "kind"),
    [("run", [], "u"), ("run/model.safetensors", ["cifar_ResNet20"], None)],
)
def test_checkpoints(checkpoint: str, named: list[str], kind: str | None, tmp_path: Path) -> None:
    config = TrainConfig("cifar_resnet20", "synthetic", bsconv=kind, image_size=16)
    model = trained(untrained(config)).eval()
    (tmp_path / "run").mkdir()
    write_trained(tmp_path / "run" / "model.safetensors", model, config, 10)
    arguments = [*line(tmp_path, format="exported-program"), *named]
    assert main([*arguments, "--checkpoint", str(tmp_path / checkpoint)]) == 0
    check(tmp_path / "m.pt2", model, torch.rand(1, 3, 16, 16))


def untrained(config: TrainConfig) -> nn.Module:
    from bsconv.experiments.training import make_model

    return make_model(config, 10)


@pytest.mark.slow
def test_weights_say_how_many_classes_there_are(tmp_path: Path) -> None:
    model = trained(get_model("cifar_resnet20", 7)).eval()
    save_file(model.state_dict(), tmp_path / "w.safetensors")
    arguments = line(tmp_path, "cifar_resnet20", "--normalize", "none", format="exported-program")
    assert main([*arguments, "--weights", str(tmp_path / "w.safetensors")]) == 0
    check(tmp_path / "m.pt2", model, torch.rand(1, 3, 32, 32))


@pytest.mark.slow
def test_without_an_engine_nothing_is_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.setattr("bsconv.experiments.export.is_installed", lambda _: False)
    assert main(line(tmp_path, "cifar_wrn16_1_bsconvu", "--pretrained", "cifar10")) == 0
    said = "not compared with PyTorch: that needs onnxruntime, pip install 'bsconv[onnx]'"
    assert capsys.readouterr().out.splitlines()[1] == said


def test_the_formats_are_those_of_the_library() -> None:
    from bsconv.__main__ import Parser

    parser = Parser()
    export_command.add_arguments(parser)
    (action,) = (action for action in parser._actions if action.dest == "format")
    assert list(action.choices or ()) == list(FORMATS)
    assert f"opset {OPSET}," in str(export_command.__doc__)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ([], "MODEL or --checkpoint is missing"),
        (["nothing"], "nothing"),
        (["cifar_resnet20", "--format", "tflite"], "invalid choice: 'tflite'"),
        (["cifar_resnet20", "--out", "m.pt"], r"format onnx ends in \.onnx, got m\.pt"),
        (["cifar_resnet20", "--out", "no/m.onnx"], r"cannot write \S*no/m\.onnx: No such file"),
        (
            ["cifar_resnet20", "--batch-size", "0"],
            "--batch-size: expected a whole number of at least 1",
        ),
        (["cifar_resnet20", "--input-size", "3x0"], "expected a size as 3x224x224 or 224"),
        (
            ["torchvision:vgg11", "--input-size", "1x32x32", "--weights", "w.safetensors"],
            r"w\.safetensors do not fit torchvision:vgg11: it lacks",
        ),
        (
            ["cifar_resnet20", "--pretrained", "cifar10", "--bsconv", "u"],
            "--pretrained has no weights of a model changed by --bsconv",
        ),
        (["--checkpoint", "c", "--weights", "b"], "not allowed with argument"),
        (["--checkpoint", "c", "--bsconv", "u"], "--bsconv goes with MODEL alone, c says so"),
        (["--checkpoint", "c", "--num-classes", "3"], "--num-classes goes with MODEL alone"),
        (
            ["--checkpoint", "c.safetensors", "cifar_resnet56"],
            r"c\.safetensors is a checkpoint of cifar_resnet20, not of cifar_resnet56",
        ),
    ],
)
def test_bad_input_is_one_line(
    more: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    failure: Callable[..., str],
) -> None:
    monkeypatch.chdir(tmp_path)
    save_file({"x": torch.zeros(1)}, "w.safetensors")
    config = TrainConfig("cifar_resnet20", "synthetic")
    write_trained(tmp_path / "c.safetensors", untrained(config), config, 10)
    said = failure(*line(Path()), *more)
    assert re.search(message, said), said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c.safetensors", "w.safetensors"]


def test_images_that_do_not_fit(tmp_path: Path, failure: Callable[..., str]) -> None:
    arguments = line(tmp_path, "cifar_resnet20", "--pretrained", "cifar10", "--input-size")
    message = r"cannot take images of 1 x 1 x 32 x 32 \(.*\); try another"
    assert re.search(message, failure(*arguments, "1x32x32"))
    assert list(tmp_path.iterdir()) == []
