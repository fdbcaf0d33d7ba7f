"""What is wrong is said in one line, where it was done: the argument, the rule, the value."""

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from bsconv import pytorch as bp
from bsconv.pytorch.pretrained import apply_plan, load_projected

SIZES = (
    "kernel_sizes needs a sequence of ints or tuples of ints, each at least 1, got kernel_sizes="
)
PLAN = "plan needs the forms of layers by their names, got None"
MODULE = "model needs to be a torch.nn.Module, got 'x'"
CASES: list[tuple[Callable[[], Any], str]] = [
    (lambda: bp.BSConvU(3, 8, 0), "BSConvU needs kernel_size >= 1, got kernel_size=0"),
    (lambda: bp.BSConvU(3, 8, "3"), "BSConvU needs kernel_size >= 1, got kernel_size='3'"),
    (
        lambda: bp.BSConvS(8, 8, 3, stride=(1, 0)),
        "BSConvS needs stride >= 1, 2 at most, got stride=(1, 0)",
    ),
    (lambda: bp.BSConvU1d(3, 8, 3, dilation=-1), "BSConvU1d needs dilation >= 1, got dilation=-1"),
    (lambda: bp.BSConvU(3, 8, 3, padding=-1), "BSConvU needs padding >= 0, got padding=-1"),
    (
        lambda: bp.BSConvU(3, 8, (3, 3, 3)),
        "BSConvU needs kernel_size >= 1, 2 at most, got kernel_size=(3, 3, 3)",
    ),
    (
        lambda: bp.BSConvU.from_conv2d(nn.Conv2d(3, 8, 3, dtype=torch.complex64)),
        "kernel needs real numbers, got torch.complex64",
    ),
    (lambda: bp.BSConvU_Replacer(3.5), f"{SIZES}3.5"),
    (lambda: bp.BSConvU_Replacer(["3"]), f"{SIZES}['3']"),
    (
        lambda: bp.BSConvU_Replacer(exclude=[0]),
        "exclude needs a sequence of layer names, got exclude=[0]",
    ),
    (
        lambda: bp.BSConvU_Replacer(exclude=3),
        "exclude needs a sequence of layer names, got exclude=3",
    ),
    (lambda: bp.BSConvU_Replacer().apply("x"), MODULE),
    (lambda: bp.reg_loss("x"), MODULE),
    (lambda: bp.reestimate_batch_norm("x", torch.rand(2, 3, 8, 8)), MODULE),
    (lambda: apply_plan("x", {}), MODULE),
    (lambda: load_projected("x", ({}, {})), MODULE),
    (lambda: apply_plan(nn.ReLU(), None), PLAN),
    (lambda: load_projected(nn.ReLU(), 3), "file needs a path, or a plan and a state dict, got 3"),
    (
        lambda: load_projected(nn.ReLU(), (None, None)),
        f"the state dict needs to be a projection of this model: {PLAN}",
    ),
    (
        lambda: bp.project_pretrained(nn.Conv2d(3, 8, 3), 3),
        "images needs a tensor or an iterable of batches, got 3",
    ),
    (
        lambda: bp.optimize_for_inference(nn.ReLU(), torch.rand(0, 3)),
        "example_input needs at least one image, got (0, 3)",
    ),
    (
        lambda: bp.get_model("cifar_resnet20", "x"),
        "num_classes needs to be at least 1, got num_classes='x'",
    ),
    (lambda: bp.get_model(3, 10), "architecture needs to be a name, got 3"),
    (lambda: bp.list_models(3), "pattern needs to be a string, got 3"),
]


@pytest.mark.parametrize(("call", "message"), CASES)
def test_mistakes_are_said(call: Callable[[], Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=f"^{re.escape(message)}$"):
        call()


def test_numbers_of_numpy_are_numbers() -> None:
    assert bp.BSConvU_Replacer(np.array([3, 5])).kernel_sizes == ((3, 3), (5, 5))
    assert bp.BSConvU_Replacer([np.array([1, 3])]).kernel_sizes == ((1, 3),)
    layer = bp.BSConvS(np.int64(16), np.int64(8), np.int64(3), p=np.float32(0.25))
    assert layer.pw1.out_channels == 4


@pytest.mark.parametrize(
    "wrap", [nn.DataParallel, torch.compile, lambda model: nn.Sequential(torch.compile(model))]
)
def test_names_to_exclude_need_no_wrappers(wrap: Callable[[nn.Module], Any]) -> None:
    inner = nn.ModuleDict({"c": nn.Conv2d(3, 8, 3), "d": nn.Conv2d(8, 8, 3)})
    model = wrap(inner)
    prefix = "0." if type(model) is nn.Sequential else ""
    plan = bp.BSConvU_Replacer(exclude=[f"{prefix}d"]).plan(model)
    assert [layer.name[-1] for layer in plan.replaced] == ["c"]


def test_layers_made_in_inference_mode_can_be_trained() -> None:
    with torch.inference_mode():
        model = bp.BSConvS_Replacer(init="project").apply(nn.Sequential(nn.Conv2d(8, 8, 3)))
    (model(torch.rand(1, 8, 5, 5)).sum() + model.reg_loss()).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize(
    ("name", "compute", "undo"),
    [
        ("weight", nn.utils.weight_norm, "remove_weight_norm"),
        ("weight", nn.utils.spectral_norm, "remove_spectral_norm"),
        ("weight", nn.utils.parametrizations.weight_norm, "remove_parametrizations"),
    ],
)
@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated:FutureWarning")
def test_computed_weights_are_kept_with_what_undoes_it(
    name: str, compute: Callable[[nn.Module], nn.Module], undo: str
) -> None:
    (layer,) = bp.BSConvU_Replacer().plan(nn.Sequential(compute(nn.Conv2d(3, 8, 3)))).layers
    assert layer.description == f"kept: parametrised ({name}), which {undo} undoes"
