"""Training steps as torch.compile makes them."""

import pytest
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from bsconv.experiments.training._steps import Execution, can_compile
from bsconv.pytorch import BSConvU


def copies_in_backward(compiled: nn.Module, images: torch.Tensor) -> int:
    """How many convolutions of the backward pass had to copy what they were given."""
    compiled(images).sum().backward()  # compiles
    loss = compiled(images).sum()
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        loss.backward()
    return sum(
        event.name == "aten::contiguous"
        and event.cpu_parent is not None
        and event.cpu_parent.name == "aten::convolution_backward"
        for event in profiler.events()
    )


@pytest.mark.skipif(not can_compile("cpu"), reason="torch.compile needs a C++ compiler")
def test_gradients_of_blueprints_take_images_as_they_lie() -> None:
    torch.manual_seed(0)
    layers = BSConvU(8, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU()
    model = nn.Sequential(*layers).to(memory_format=torch.channels_last)
    images = torch.rand(2, 8, 12, 12).to(memory_format=torch.channels_last).requires_grad_()
    made = Execution("float32", True, {"0": "factored"})
    device = torch.device("cpu")
    assert copies_in_backward(made.compiled(model, device), images) == 0
