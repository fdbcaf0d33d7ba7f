"""float32 compared with float64 on numbers chosen to hurt: layers, penalties, decompositions.

`tests/nightly/test_precision.py` adds the rooms, and layers of 4,096 channels.
"""

import itertools
import re
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from bsconv import pytorch as bp
from bsconv.pytorch.decomposition import (
    blueprint_factors,
    compose,
    shared_factors,
    subspace_factors,
)
from bsconv.pytorch.initialization import dense_conv, match_variance_, uniform_variance_
from bsconv.pytorch.regularization import OrthonormalConv2d, orthonormality_penalty
from helpers.precision import (
    BEYOND,
    KINDS,
    NEARLY_CONSTANT,
    OF_ANY_WIDTH,
    Case,
    Results,
    channels,
    each_kind,
    fill,
    numbers,
)

MANY = 64  # channels
Layer = bp.BSConvU | bp.BSConvS | bp.BSConvCP
KINDS_OF_LAYERS: tuple[type[Layer], ...] = (bp.BSConvU, bp.BSConvS, bp.BSConvCP)
NORMS, SUBJECTS = ("", "training", "eval"), ("weights", "images")
BETWEEN = ("joined", "merged")  # plans for layers without BatchNorm in between
# long sums, and numbers that have lost digits already
LOOSER = dict.fromkeys(("many channels", "subnormal"), 3e-5)


def made(layer_class: type[Layer], m: int, n: int, **options: Any) -> Layer:
    needed = {"blueprints": 3} if layer_class is bp.BSConvCP else {}
    return layer_class(m, n, 3, **needed, **options)


# --- layers with each plan ------------------------------------------------------------------------


def forward_and_backward(layer: nn.Module, images: Tensor) -> Results:
    """Outputs by channel, and gradients of their product with ordinary numbers."""
    images = images.clone().requires_grad_()
    outputs = layer(images)
    cotangent = numbers("ordinary", *outputs.shape, seed=99).to(outputs)
    named = {"images": images, **dict(layer.named_parameters())}
    gradients = torch.autograd.grad(outputs, list(named.values()), cotangent)
    return {"outputs": outputs.transpose(0, 1), **dict(zip(named, gradients, strict=True))}


def layer_results(layer_class, plan, norm, subject, kind, dtype, many) -> Results:
    """Of a layer whose weights, or of images that are of that kind."""
    count = channels(kind, many)
    options: dict[str, Any] = {"padding": 1, "with_bn": norm != ""}
    if layer_class is bp.BSConvS:
        options["p"] = 0.5 if count < many else 1 / 16
    layer = made(layer_class, count, count, **options)
    fill(layer, kind if subject == "weights" else "ordinary")
    side = 6 if count < many else 3
    images = numbers(kind if subject == "images" else "ordinary", 3, count, side, side, mixed=1)
    layer.to(dtype).train(norm != "eval").plan = plan
    found = forward_and_backward(layer, images.to(dtype))
    if norm != "training":
        return found
    for module in layer.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    layer.double()(images.double())
    fixed = forward_and_backward(layer.eval(), images.double())
    return {name: with_scale(name, found, fixed).to(dtype) for name in found}


def with_scale(name: str, found: Results, fixed: Results) -> Tensor:
    """A gradient next to what it is when the statistics of the batch are held fixed.

    In training, what changes them cancels, down to nothing for a bias before another BatchNorm. A
    normalised image is as large as one unless it is constant, so weights are next to their biases.
    """
    if name == "outputs":
        return found[name]
    bias = re.sub(r"(bn\d?)\.weight$", r"\1.bias", name)
    return torch.cat([found[name].flatten(), fixed[name].flatten(), fixed[bias].flatten()])


def layer_cases() -> list[Case]:
    cases = []
    for layer_class in KINDS_OF_LAYERS:
        for plan, norm, subject in itertools.product(layer_class._plans, NORMS, SUBJECTS):
            if plan == "auto" or (norm and plan in BETWEEN):
                continue
            compute = partial(layer_results, layer_class, plan, norm, subject)
            # torch's own BatchNorm returns its bias where the variance is beyond float32
            in_torch = norm == "training" and (plan == "factored" or layer_class is bp.BSConvCP)
            cases.append(
                Case(
                    f"{layer_class.__name__}, {plan}{norm and ', BatchNorm in '}{norm}: {subject}",
                    compute,
                    tuple(kind for kind in KINDS if not (norm == "training" and kind in BEYOND)),
                    looser=LOOSER | (NEARLY_CONSTANT if in_torch else {}),
                    beyond=BEYOND,
                    by_rows=("outputs",),
                )
            )
    return cases


# --- decompositions -------------------------------------------------------------------------------


def kernel(kind: str, many: int) -> Tensor:
    """Of a few filters, where there are many channels."""
    count = channels(kind, many)
    return numbers(kind, min(count, 16), count, 3, 3)


def blueprints(kind: str, dtype: torch.dtype, many: int) -> Results:
    factors = blueprint_factors(kernel(kind, many).to(dtype))
    return {"kernel": compose(factors.weights.to(dtype), factors.blueprints.to(dtype))}


def subspace(kind: str, dtype: torch.dtype, many: int) -> Results:
    weight = kernel(kind, many).to(dtype)
    factors = subspace_factors(weight, max(1, min(weight.shape[:2]) // 2))
    mixing, basis, shapes = (factor.to(dtype) for factor in factors)
    return {"kernel": compose(mixing @ basis, shapes), "basis": basis @ basis.T}


def shared(kind: str, dtype: torch.dtype, many: int) -> Results:
    """Of few channels: fits of many take long."""
    weight = numbers(kind, 6, min(channels(kind, many), 6), 3, 3).to(dtype)
    mixing, weights, shapes = (factor.to(dtype) for factor in shared_factors(weight, 3))
    return {"kernel": torch.einsum("nr,rm,rij->nmij", mixing, weights, shapes)}


def composed(kind: str, dtype: torch.dtype, many: int) -> Results:
    weights, shapes = kernel(kind, many)[:, :, 0, 0], numbers("ordinary", 16, 1, 3, 3)[:, 0]
    return {"kernel": compose(weights.to(dtype), shapes[: len(weights)].to(dtype))}


def approximated(kind: str, dtype: torch.dtype, many: int) -> Results:
    weight = kernel(kind, many)
    conv = nn.Conv2d(weight.shape[1], weight.shape[0], 3, padding=1)
    fill(conv, kind)
    conv.to(dtype)
    share = 0.5 if kind != "many channels" else 1 / 64
    layers = bp.BSConvU.from_conv2d(conv), bp.BSConvS.from_conv2d(conv, p=share)
    return {type(layer).__name__: layer.to_conv2d().weight for layer in layers}


def as_dense(kind: str, dtype: torch.dtype, many: int) -> Results:
    """The one convolution for each layer, with BatchNorms in it where nothing is padded."""
    count, found = channels(kind, many), {}
    for layer_class, norm in itertools.product((bp.BSConvU, bp.BSConvS), (False, True)):
        layer = layer_class(count, min(count, 64), 3, with_bn=norm)
        fill(layer, kind)
        for name, tensor in layer.to(dtype).eval().to_conv2d().named_parameters():
            found[f"{name} {layer_class.__name__} {norm}"] = tensor
    return found


def network(kind: str) -> nn.Sequential:
    """Two convolutions with BatchNorms; the first has weights of that kind."""
    first, second = nn.Conv2d(4, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
    model = nn.Sequential(first, nn.BatchNorm2d(8), nn.ReLU(), second, nn.BatchNorm2d(8))
    fill(model, "ordinary")
    fill(first, kind)
    return model.eval()


def replaced(kind: str, dtype: torch.dtype, many: int) -> Results:
    images = numbers("ordinary", 3, 4, 6, 6, seed=1).to(dtype)
    replacers = (bp.BSConvU_Replacer(init="project"), bp.BSConvS_Replacer(init="project", p=0.5))
    return {
        type(replacer).__name__: replacer.apply(network(kind).to(dtype))(images).mean((2, 3))
        for replacer in replacers
    }


# --- penalties and first weights ------------------------------------------------------------------


class Penalised(bp.BSConvS_ModelRegLossMixin, nn.Sequential):
    """A model with two layers of a kind and one of another."""


def penalty(kind: str, dtype: torch.dtype, many: int) -> Results:
    count = channels(kind, many)
    basis = numbers(kind, max(1, count // 2), count).to(dtype).requires_grad_()
    value = orthonormality_penalty(basis)
    return {"penalty": value, "gradient": torch.autograd.grad(value, basis)[0]}


def penalty_at_the_optimum(kind: str, dtype: torch.dtype, many: int) -> Results:
    """Relative to the penalty of zeros: rows orthonormal up to rounding have almost none."""
    rows = torch.linalg.qr(numbers(kind, many, many // 2).double()).Q.T.float()
    bases = [rows.to(dtype), torch.zeros_like(rows, dtype=dtype)]
    return {"penalties": torch.stack([orthonormality_penalty(basis) for basis in bases])}


def penalties(kind: str, dtype: torch.dtype, many: int) -> Results:
    first, second = bp.BSConvS(8, 8, 3), bp.BSConvS(8, 8, 3)
    model = Penalised(first, second, OrthonormalConv2d(8, 4, 1), bp.BSConvU(8, 8, 3))
    fill(model, kind)
    model.to(dtype)
    names = ["0.pw1.weight", "1.pw1.weight", "2.weight"]
    weights = [model.get_parameter(name) for name in names]
    gradients = torch.autograd.grad(bp.reg_loss(model, 0.3), weights)
    return {"penalty": model.reg_loss(alpha=0.3), **dict(zip(names, gradients, strict=True))}


def first_weights(kind: str, dtype: torch.dtype, many: int) -> Results:
    """The mean square of weights relative to what it should be: chance makes one of it."""
    torch.manual_seed(0)
    gain = {"ordinary": 2.0, "tiny": 1e-30, "huge": 1e30}[kind]
    conv = uniform_variance_(nn.Conv2d(64, 128, 3, dtype=dtype), gain)
    layer = match_variance_(bp.BSConvU(64, 2048, 3, dtype=dtype))
    dense = dense_conv(64, 128, 3, dtype=dtype)
    convs = {conv: gain, dense: 2.0, layer.pw: 1.0, layer.dw: 2.0}
    sizes = [each.weight.double().square().mean() * each.weight[0].numel() for each in convs]
    return {"ratios": torch.stack(sizes) / torch.tensor([*convs.values()]).double()}


CASES = [
    *layer_cases(),
    Case("blueprint_factors, composed", blueprints, beyond=("largest",), by_rows=("kernel",)),
    Case("subspace_factors, composed", subspace, beyond=("largest",), by_rows=("kernel",)),
    Case("shared_factors", shared, beyond=("largest",)),
    Case("compose", composed, beyond=BEYOND, by_rows=("kernel",)),
    Case(
        "from_conv2d, to_conv2d", approximated, beyond=("largest",), by_rows=("BSConvU", "BSConvS")
    ),
    Case("to_conv2d", as_dense, beyond=BEYOND),
    Case("replacers from dense weights", replaced, OF_ANY_WIDTH, beyond=BEYOND),
    Case("orthonormality_penalty and its gradient", penalty, beyond=BEYOND),
    Case("orthonormality_penalty at the optimum", penalty_at_the_optimum, ("ordinary",)),
    Case("reg_loss and its gradient", penalties, OF_ANY_WIDTH, beyond=BEYOND),
    Case("variance of first weights", first_weights, ("ordinary", "tiny", "huge"), bound=0.05),
]


@each_kind(CASES)
def test_float32_is_as_promised(case: Case, kind: str) -> None:
    case.error(kind, MANY)
