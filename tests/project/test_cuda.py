"""On a GPU everything is what it is on the CPU, in float64; runs there can be repeated and resumed.

CUDA devices alone take these; elsewhere they are skipped.
"""

import copy
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from torch import Tensor, nn

from bsconv import pytorch as bp
from bsconv.experiments.export import FORMATS, export_model, load_exported
from bsconv.experiments.training import History, TrainConfig, train
from helpers.trained import trained

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU (CUDA)"),
    # of a graph that torch.compile captures first, on purpose
    pytest.mark.filterwarnings("ignore:The CUDA Graph is empty"),
    pytest.mark.filterwarnings("ignore:TensorFloat32 tensor cores"),
]

GPU = "cuda"
PLANS = {bp.BSConvU: ("factored", "merged"), bp.BSConvS: ("factored", "joined", "narrow", "merged")}
IMAGES = torch.rand(24, 3, 16, 16, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def assert_equal(found: Tensor, expected: Tensor, tolerance: float = 1e-9) -> None:
    assert found.is_cuda
    largest = float(expected.detach().abs().max())
    torch.testing.assert_close(found.cpu(), expected, rtol=0, atol=tolerance * largest)


def assert_same_gradients(model: nn.Module, expected: nn.Module) -> None:
    for mine, other in zip(model.parameters(), expected.parameters(), strict=True):
        assert (mine.grad is None) == (other.grad is None)
        if other.grad is not None:
            torch.testing.assert_close(mine.grad.cpu(), other.grad, rtol=1e-9, atol=1e-9)


# --- layers and penalty ---------------------------------------------------------------------------


@pytest.mark.parametrize("format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("with_bn", [False, True])
@pytest.mark.parametrize(
    ("kind", "plan"), [(kind, plan) for kind, plans in PLANS.items() for plan in (*plans, "auto")]
)
def test_layers_and_their_gradients(kind, plan, with_bn, format) -> None:
    layer = kind(8, 12, 3, stride=2, padding=1, with_bn=with_bn, dtype=torch.float64)
    twin = copy.deepcopy(layer).to(GPU, memory_format=format)
    inputs = torch.randn(4, 8, 9, 9, dtype=torch.float64)
    layer.plan = "factored"
    if not (with_bn and plan in ("joined", "merged")):  # BatchNorm lies between
        twin.plan = plan
    expected, found = layer(inputs), twin(inputs.to(GPU, memory_format=format))
    assert_equal(found, expected)
    weight = torch.randn_like(expected)
    (expected * weight).sum().backward()
    (found * weight.to(GPU)).sum().backward()
    assert_same_gradients(twin, layer)
    for mine, other in zip(twin.buffers(), layer.buffers(), strict=True):
        torch.testing.assert_close(mine.cpu(), other, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("kind", [bp.BSConvU, bp.BSConvS])
def test_autocast(kind, dtype) -> None:
    layer = kind(16, 16, 3, padding=1).to(GPU)
    images = torch.randn(8, 16, 8, 8, device=GPU)
    exact = copy.deepcopy(layer).double()(images.double())
    with torch.autocast(GPU, dtype, enabled=dtype != torch.float32):
        found = layer(images)
    assert found.dtype == dtype
    torch.testing.assert_close(found.double(), exact, rtol=0.05, atol=0.05)


def test_penalty_and_its_gradient() -> None:
    model = bp.BSConvS_Replacer().apply(bp.get_model("cifar_resnet20", 10)).double()
    twin = copy.deepcopy(model).to(GPU)
    expected, found = bp.reg_loss(model, 0.3), bp.reg_loss(twin, 0.3)
    assert_equal(found, expected)
    expected.backward()
    found.backward()
    assert_same_gradients(twin, model)


# --- surgery --------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["weights", "batch_norm", "outputs"])
@pytest.mark.parametrize("kind", ["u", "s"])
def test_projection(kind: Any, method: Any) -> None:
    model = trained(bp.get_model("cifar_resnet20", 10)).double().eval()
    here, there = (None, None) if method == "weights" else (IMAGES, IMAGES.to(GPU))
    expected, _ = bp.project_pretrained(model, here, kind, method=method, progress=False)
    found, report = bp.project_pretrained(model.to(GPU), there, kind, method=method, progress=False)
    assert all(tensor.is_cuda for tensor in found.state_dict().values())
    assert len(report.layers) > 15
    with torch.no_grad():
        assert_equal(found(IMAGES.to(GPU)), expected(IMAGES), tolerance=1e-5)


# --- inference ------------------------------------------------------------------------------------


@pytest.mark.parametrize("compile", [False, True])
@pytest.mark.parametrize("replacer", [bp.BSConvU_Replacer, bp.BSConvS_Replacer])
def test_optimised_models(replacer: Any, compile: bool) -> None:
    model = trained(replacer().apply(bp.get_model("cifar_resnet20", 10))).eval()
    with torch.no_grad():
        expected = model(IMAGES.float())
    example = IMAGES.float().to(GPU)
    optimised = bp.optimize_for_inference(model.to(GPU), example, compile=compile)
    with torch.no_grad():
        assert_equal(optimised(example), expected, tolerance=2e-3)  # TF32
        assert_equal(bp.collapse(model)(example), expected, tolerance=2e-3)


@pytest.mark.parametrize("format", ["onnx", "exported-program"])
def test_models_are_exported_for_any_device(format: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    model = trained(bp.get_model("cifar_resnet20_bsconvu", 10)).eval()
    with torch.no_grad():
        expected = model(IMAGES.float())
    path = tmp_path / f"model{FORMATS[format]}"
    example = IMAGES[:1].float().to(GPU)
    export_model(model.to(GPU), example, path, format=format, dynamic_batch=True)
    assert all(tensor.is_cuda for tensor in model.state_dict().values())
    found = load_exported(path)(IMAGES.float())
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4 * float(expected.abs().max()))


# --- training -------------------------------------------------------------------------------------


def config(**settings: Any) -> TrainConfig:
    usual = {"epochs": 3, "recipe": "fast", "device": GPU, "train_limit": 1024}
    return TrainConfig("cifar_resnet20_bsconvu", "synthetic", **(usual | settings))


def run(**settings: Any) -> History:
    return train(config(**settings), progress=False)


@pytest.mark.parametrize("compile", [False, True])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_resumed_run_ends_in_the_same_bits(tmp_path, precision, compile) -> None:
    how: dict[str, Any] = {"precision": precision, "compile": compile, "plan": "factored"}
    whole = run(**how)
    assert whole[-1].train_loss < whole[0].train_loss
    interrupted = config(out=str(tmp_path / "run"), **how)
    with pytest.raises(KeyboardInterrupt):
        train(interrupted, progress=False, after_epoch=Mock(side_effect=KeyboardInterrupt))
    resumed = train(interrupted, resume=True, progress=False)
    expected, found = whole.model.state_dict(), resumed.model.state_dict()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_cuda_graphs_train_what_eager_steps_train() -> None:
    how: dict[str, Any] = {"precision": "float32", "plan": "factored", "optimizer": "sgd"}
    few: dict[str, Any] = {"epochs": 1, "train_limit": 256}
    eager, compiled = run(compile=False, **how, **few), run(compile=True, **how, **few)
    assert compiled.last.train_loss == pytest.approx(eager.last.train_loss, rel=0.02)


def test_a_long_run_measures_what_is_fastest(capsys) -> None:
    history = train(config(epochs=200, test_limit=100))  # many enough images
    assert "compiled" in capsys.readouterr().out
    assert history.last.test_top1 > 60
