"""The module that optimize_for_inference returns."""

import copy
import io
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from bsconv.pytorch import optimize_for_inference
from bsconv.pytorch.inference._checks import is_rounding
from helpers.exact_errors import raises_exactly
from helpers.inference_cases import (
    IMAGES,
    Graph,
    Several,
    assert_equal,
    eager,
    in_eval_mode,
    small,
    trained,
)
from helpers.model_snapshots import assert_unchanged, snapshot


def test_the_original_stays_as_it_is() -> None:
    model = small()
    model[1].eval()
    model[0].pw.weight.requires_grad_(False)
    before = snapshot(model)
    eager(model, dtype=torch.bfloat16)
    assert_unchanged(model, before)


def test_no_gradients_and_no_training() -> None:
    optimized = eager(small())
    assert not optimized.training
    assert not any(parameter.requires_grad for parameter in optimized.parameters())
    assert not optimized(torch.randn(IMAGES).requires_grad_()).requires_grad
    assert torch.is_grad_enabled()
    optimized.eval()
    with raises_exactly(
        "an optimised model cannot be trained: BatchNorms are part of its weights; train the model "
        "it was made from"
    ):
        optimized.train()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_shorter_numbers(dtype: torch.dtype) -> None:
    model = trained(nn.Sequential(nn.BatchNorm2d(3), small()))
    optimized = eager(model, dtype=dtype)
    images = torch.randn(IMAGES)
    found, expected = optimized(images), in_eval_mode(model, images)
    assert found.dtype == torch.float32
    assert 0 < (found - expected).norm() / expected.norm() < 0.05
    assert optimized(images.to(dtype)).dtype == dtype
    kept = [buffer for name, buffer in optimized.named_buffers() if name.endswith("running_var")]
    assert {variance.dtype for variance in kept} == {torch.float32}


@pytest.mark.parametrize(
    ("make", "size", "dtype"),
    [
        (lambda: nn.Sequential(nn.Linear(5, 4), nn.Tanh()), (2, 5), torch.float32),
        (small, IMAGES, torch.float64),
    ],
)
def test_inputs_that_are_no_images_and_double_precision(make, size, dtype):
    model = make().to(dtype)
    optimized = optimize_for_inference(model, torch.randn(size, dtype=dtype), compile=False)
    report, given = optimized.report, torch.randn(7, *size[1:], dtype=dtype)
    assert (report.input_size, f"torch.{report.dtype}") == (size, str(dtype))
    assert report.memory_format == ("contiguous" if len(size) == 2 else "channels_last")
    torch.testing.assert_close(optimized(given), in_eval_mode(model, given))


def test_inputs_without_a_batch_and_wrong_inputs() -> None:
    model, images = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), torch.randn(IMAGES)
    optimized = eager(model)
    assert_equal(optimized(images[0]), in_eval_mode(model, images[0]))
    needs = "input needs to be a tensor of floating-point numbers, got "
    for wrong, got in ((images.numpy(), "ndarray"), ([1], "list"), (images.byte(), "torch.uint8")):
        with raises_exactly(needs + got, TypeError):
            optimized(wrong)
    with pytest.raises(TypeError, match="takes 2 positional arguments but 3 were given"):
        optimized(images, images)


def saved_and_loaded(model: nn.Module) -> nn.Module:
    file = io.BytesIO()
    torch.save(model, file)
    return torch.load(io.BytesIO(file.getvalue()), weights_only=False)


@pytest.mark.parametrize("copied", [copy.deepcopy, saved_and_loaded])
def test_copies_and_pickles(copied: Callable[[Any], Any]) -> None:
    optimized = eager(small())
    twin = copied(optimized)
    assert str(twin.report) == str(optimized.report)
    images = torch.randn(IMAGES)
    expected = optimized(images)
    assert torch.equal(twin(images), expected)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
    assert torch.equal(optimized(images), expected)


def test_outputs_of_several_tensors() -> None:
    model, images = Several(), torch.randn(IMAGES)
    found, expected = eager(model, dtype=torch.bfloat16)(images), in_eval_mode(model, images)
    assert type(found) is OrderedDict
    assert found["out"].dtype == torch.float32
    point, (again, text) = found["pair"]
    assert (type(point).__name__, point.index.dtype, text) == ("Point", torch.int64, "text")
    assert_equal(again, expected["out"], 0.02)
    assert [one.dtype for one in found["mixed"]] == [one.dtype for one in expected["mixed"]]


def test_what_float32_rounds_more_may_differ_more() -> None:
    rough, images = Graph(lambda net, images: net.conv1(images) + 1e4 - 1e4), torch.randn(IMAGES)
    for model, allowed in ((small().eval(), 1e-4), (rough, 1e-3)):
        assert is_rounding(0.9 * allowed, model, images)
        assert not is_rounding(1.1 * allowed, model, images)
