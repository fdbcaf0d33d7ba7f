"""What is wrong is said in one line, where it was done: the argument, the rule, the value."""

import itertools
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from bsconv import pytorch as bp
from bsconv.basics.timing import in_turns
from bsconv.pytorch.decomposition import blueprint_factors, shared_factors, subspace_factors
from bsconv.pytorch.initialization import match_variance_, uniform_variance_
from bsconv.pytorch.pretrained import apply_plan, load_projected
from bsconv.pytorch.regularization import OrthonormalConv2d, orthonormality_penalty
from helpers.exact_errors import raises_exactly

U, S, CP = bp.BSConvU, bp.BSConvS, partial(bp.BSConvCP, blueprints=5)


@pytest.mark.parametrize(("name", "make"), [("BSConvU", U), ("BSConvS", S), ("BSConvCP", CP)])
@pytest.mark.parametrize(
    ("argument", "rule", "wrong"),
    [
        ("in_channels", ">= 1", (0, -1)),
        ("out_channels", ">= 1", (0,)),
        ("kernel_size", ">= 1", (0, "3")),
        ("kernel_size", ">= 1, 2 at most", ((3, 3, 3),)),
        ("stride", ">= 1, 2 at most", ((1, 0),)),
        ("padding", ">= 0", (-1,)),
        ("dilation", ">= 1", (-1,)),
    ],
)
def test_sizes_of_layers(name, make, argument, rule, wrong):
    for value in wrong:
        sizes = {"in_channels": 8, "out_channels": 8, "kernel_size": 3, argument: value}
        with raises_exactly(f"{name} needs {argument} {rule}, got {argument}={value!r}"):
            make(**sizes)


SHARE = "BSConv-S needs 0 <= p <= 1, the share of input channels kept"
REPLACERS = (bp.BSConvU_Replacer, bp.BSConvS_Replacer)
SUBSPACES = (bp.BSConvS_Replacer, partial(S, 8, 8, 3))


@pytest.mark.parametrize(
    ("makers", "argument", "rule", "wrong"),
    [
        (SUBSPACES, "p", SHARE, (-0.1, 1.5, float("nan"), "1/4", None, True)),
        (SUBSPACES, "min_mid_channels", "BSConv-S needs min_mid_channels >= 0", (-1, 2.5, True)),
        (
            REPLACERS,
            "kernel_sizes",
            "kernel_sizes needs a sequence of ints or tuples of ints, each at least 1",
            (3, 3.5, "33", ["3"], [(3, 3, 3)], [3, (3,)], [0], [(1, 0)], [(3, 3.0)]),
        ),
        (
            REPLACERS,
            "dimensions",
            "dimensions needs some of 1, 2 and 3",
            (2, (), (4,), (2, 0), "12", None),
        ),
        (REPLACERS, "exclude", "exclude needs a sequence of layer names", ("layer1", [0], 3)),
        (REPLACERS, "init", "init needs to be 'default', 'matched' or 'project'", ("random",)),
    ],
)
def test_arguments_out_of_range(makers, argument, rule, wrong):
    for make, value in itertools.product(makers, wrong):
        with raises_exactly(f"{rule}, got {argument}={value!r}"):
            make(**{argument: value})


CONV, KERNEL = partial(nn.Conv2d, 4, 4, 3), torch.zeros(2, 4, 3, 3)
PLAN = "plan needs the forms of layers by their names, got None"
PROJECTION = "the state dict needs to be a projection of this model"
POINTWISE = "OrthonormalConv2d needs kernel_size=1 and groups=1, got kernel_size="
MID = "mid_channels needs 1 <= mid_channels <= 4, the number of input channels, got "
SIDES = "needs shape (N, M, *kernel size), sides >= 1"
SHAPE = f"kernel {SIDES}, got shape (3, 4)"
FOUR, MATRIX = "shape (2, 4, 3, 3)", "needs shape (mid, in), sides >= 1"
REAL = "kernel needs real numbers, got"
FINITE = "kernel needs finite numbers, got NaN or infinity among them"
CLASSES = "num_classes needs to be at least 1, got num_classes="
EMPTY = nn.Sequential(nn.utils.skip_init(nn.Conv2d, 4, 4, 3))
EMPTY[0].in_channels, EMPTY[0].weight = 0, nn.Parameter(torch.empty(4, 0, 3, 3))
LAYER = "layer '0' needs in_channels >= 1, got in_channels=0"
INIT = "init needs to be 'default'"
resnet20 = partial(bp.get_model, "cifar_resnet20")
FACTORS = (blueprint_factors, partial(subspace_factors, mid_channels=1))
VALUES: list[tuple[Callable[[], Any], str]] = [
    (lambda: bp.BSConvU1d(3, 8, 3, padding=-1), "BSConvU1d needs padding >= 0, got padding=-1"),
    (lambda: CP(8, 8, 3, blueprints=0), "BSConvCP needs blueprints >= 1, got blueprints=0"),
    *(
        (partial(make, CONV(groups=2)), f"{name} stands in for a conv with groups=1, got groups=2")
        for name, make in {"BSConvU": U.from_conv2d, "BSConvS": S.from_conv}.items()
    ),
    (partial(U.from_conv2d, CONV(dtype=torch.complex64)), f"{REAL} torch.complex64"),
    *((partial(factors, torch.zeros(3, 4)), SHAPE) for factors in FACTORS),
    *((partial(factors, KERNEL / 0), FINITE) for factors in FACTORS),
    *((partial(subspace_factors, KERNEL, mid), f"{MID}{mid}") for mid in (0, 5, -1)),
    (lambda: shared_factors(KERNEL, 0), "shared_factors needs blueprints >= 1, got blueprints=0"),
    (lambda: OrthonormalConv2d(4, 4, 3), f"{POINTWISE}(3, 3), groups=1"),
    (lambda: OrthonormalConv2d(4, 4, 1, groups=2), f"{POINTWISE}(1, 1), groups=2"),
    (lambda: apply_plan(nn.ReLU(), None), PLAN),
    *((partial(replacer().plan, EMPTY), LAYER) for replacer in REPLACERS),
    (partial(uniform_variance_, EMPTY[0], 2), f"conv.weight {SIDES}, got shape (4, 0, 3, 3)"),
    (lambda: apply_plan(EMPTY, {"0": "s:1"}), LAYER),
    (lambda: load_projected(nn.ReLU(), (None, None)), f"{PROJECTION}: {PLAN}"),
    *((partial(resnet20, n), f"{CLASSES}{n!r}") for n in ("x", 0)),
    (partial(resnet20, 10, init="xavier"), f"{INIT} or 'matched', got init='xavier'"),
    (
        partial(bp.modify_mobilenet, nn.ReLU(), init="projected"),
        f"{INIT}, 'matched' or 'project', got init='projected'",
    ),
    (lambda: uniform_variance_(nn.Conv2d(2, 2, 3), 0), "gain needs to be positive, got gain=0"),
    (partial(match_variance_, nn.ReLU()), "match_variance_ needs a BSConv layer, got ReLU"),
    (partial(orthonormality_penalty, KERNEL), f"basis {MATRIX}, got {FOUR}"),
    (partial(in_turns, {"a": int}, "cpu", rounds=0), "rounds needs to be at least 1, got 0"),
    (
        partial(bp.ModelProfiler, nn.ReLU(), (1, 3, 8, 8), "gpu"),
        "input_device needs to be a device such as 'cpu' or 'cuda', got input_device='gpu'",
    ),
]
IMAGES, MODEL = torch.rand(2, 3, 8, 8), "model needs to be a torch.nn.Module, got "
TYPES: list[tuple[Callable[[], Any], str]] = [
    *(
        (partial(method, model), f"{MODEL}{model!r:.40}")
        for model in ("x", None, nn.ReLU)
        for replacer in REPLACERS
        for method in (replacer().apply, replacer().plan)
    ),
    *(
        (partial(function, "x", *more), f"{MODEL}'x'")
        for function, *more in (
            *((bp.reg_loss,), (bp.collapse,), (bp.modify_mobilenet,), (bp.ModelProfiler,)),
            *((bp.project_pretrained, IMAGES), (bp.budget_curve, IMAGES), (apply_plan, {})),
            *((bp.reestimate_batch_norm, IMAGES), (bp.optimize_for_inference, IMAGES)),
            (load_projected, ({}, {})),
        )
    ),
    (lambda: load_projected(nn.ReLU(), 3), "file needs a path, or a plan and a state dict, got 3"),
    (lambda: U.from_conv2d(nn.Linear(4, 4)), "BSConvU takes the place of a Conv2d, got Linear"),
    (lambda: S.from_conv(nn.Linear(4, 4)), "BSConvS takes the place of a Conv2d, got Linear"),
    (lambda: bp.get_model(3, 10), "architecture needs to be a name, got 3"),
    (lambda: bp.list_models(3), "pattern needs to be a string, got 3"),
    (
        lambda: bp.BSConvS_ModelRegLossMixin().reg_loss(),
        "model needs to be a torch.nn.Module, got <bsconv.pytorch.regularization.BSConvS_M",
    ),
]


@pytest.mark.parametrize(
    ("call", "message", "error"),
    [*((*case, ValueError) for case in VALUES), *((*case, TypeError) for case in TYPES)],
)
def test_mistakes_are_said(call: Callable[[], Any], message: str, error: type[Exception]) -> None:
    with raises_exactly(message, error):
        call()


def test_numbers_of_numpy_are_numbers() -> None:
    for sizes in (np.array([3, 5]), torch.tensor([3, 5]), torch.tensor([[3, 3], [5, 5]])):
        assert bp.BSConvU_Replacer(sizes).kernel_sizes == ((3, 3), (5, 5))  # type: ignore[arg-type]
    assert bp.BSConvU_Replacer([np.array([1, 3])]).kernel_sizes == ((1, 3),)
    layer = bp.BSConvS(np.int64(16), np.int64(8), np.int64(3), p=np.float32(0.25))
    assert layer.pw1.out_channels == 4


@pytest.mark.parametrize(
    "wrap", [nn.DataParallel, torch.compile, lambda model: nn.Sequential(torch.compile(model))]
)
def test_names_to_exclude_need_no_wrappers(wrap: Callable[[nn.Module], Any]) -> None:
    model = wrap(nn.ModuleDict({"c": nn.Conv2d(3, 8, 3), "d": nn.Conv2d(8, 8, 3)}))
    prefix = "0." if type(model) is nn.Sequential else ""
    plan = bp.BSConvU_Replacer(exclude=[f"{prefix}d"]).plan(model)
    assert [layer.name[-1] for layer in plan.replaced] == ["c"]


def test_layers_made_in_inference_mode_can_be_trained() -> None:
    with torch.inference_mode():
        model = bp.BSConvS_Replacer(init="project").apply(nn.Sequential(nn.Conv2d(8, 8, 3)))
    (model(torch.rand(1, 8, 5, 5)).sum() + model.reg_loss()).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
