"""float32 compared with float64: every room, and the core with layers of 4,096 channels."""

from collections import defaultdict
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from bsconv import pytorch as bp
from core.test_precision import CASES as CORE
from core.test_precision import kernel
from helpers.precision import (
    BEYOND,
    KINDS,
    NEARLY_CONSTANT,
    OF_ANY_WIDTH,
    Case,
    Results,
    each_kind,
    fill,
    numbers,
)
from helpers.reliability import Section

pytestmark = pytest.mark.nightly

MANY = 4096  # channels
# fits go on in turns from what the rounding left, to others that are as close
LOOSER = {"batch_norm": NEARLY_CONSTANT, "outputs": dict.fromkeys(KINDS, 1e-2)}
OF_MORE_CHANNELS = tuple(kind for kind in KINDS if kind != "one channel")


# --- projection -----------------------------------------------------------------------------------


def network(kind: str) -> nn.Sequential:
    """Two convolutions, the first with weights of that kind, and a classifier."""
    first, second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
    head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
    model = nn.Sequential(first, nn.BatchNorm2d(8), nn.ReLU(), second, nn.ReLU(), *head)
    fill(model, "ordinary")
    fill(first, kind)
    with torch.no_grad():
        for tensor in model[-1].parameters():
            tensor.copy_(numbers("ordinary", *tensor.shape, seed=7))
    return model.eval()


def projected(method: Any, letter: Any, subject: str, kind: str, dtype, many: int) -> Results:
    model = network(kind if subject == "weights" else "ordinary").to(dtype)
    images = numbers(kind if subject == "images" else "ordinary", 16, 3, 8, 8, mixed=1).to(dtype)
    new, report = bp.project_pretrained(model, images, letter, 0.5, method=method, progress=False)
    kept = [layer.weights_kept for layer in report.layers]
    errors = [layer.output_error for layer in report.layers if layer.output_error is not None]
    with torch.no_grad():
        found = {"outputs": new(images), "weights kept": torch.tensor(kept)}
    return found | ({"output error": torch.tensor([1.0, *errors])} if errors else {})


def statistics(kind: str, dtype: torch.dtype, many: int) -> Results:
    images = numbers(kind, 16, 3, 8, 8, mixed=1).to(dtype)
    norm = nn.Sequential(nn.BatchNorm2d(3)).to(dtype)
    state = bp.reestimate_batch_norm(norm, images, batch_size=8).state_dict()
    return {name: state[f"0.{name}"] for name in ("running_mean", "running_var")}


# --- inference, models ----------------------------------------------------------------------------


def inferred(how: Any, norm: bool, kind: str, dtype: torch.dtype, many: int) -> Results:
    first, second = bp.BSConvU(8, 8, 3, padding=1), bp.BSConvS(8, 8, 3, padding=1, with_bn=norm)
    model = nn.Sequential(first, nn.BatchNorm2d(8), nn.ReLU(), second)
    fill(model, "ordinary")
    fill(first.pw, kind)
    images = numbers("ordinary", 3, 8, 6, 6, seed=1).to(dtype)
    return {"outputs": how(model.eval().to(dtype), images)(images)}


def modified(kind: str, dtype: torch.dtype, many: int) -> Results:
    """A block of MobileNetV1 before its ReLU, which makes a number of minus infinity."""
    model = bp.get_model("cifar_mobilenetv1_w1d4", 10).eval()
    fill(model, "ordinary")
    name = next(name for name, module in model.named_modules() if name.endswith("unit2"))
    pointwise = [m for m in model.get_submodule(name).modules() if isinstance(m, nn.Conv2d)][-1]
    fill(pointwise, kind)
    block: Any = bp.modify_mobilenet(model.to(dtype)).get_submodule(name)
    images = numbers("ordinary", 3, block[0].in_channels, 6, 6, seed=1).to(dtype)
    return {"outputs": block[:2](images).transpose(0, 1)}


def whole(kind: str, dtype: torch.dtype, many: int) -> Results:
    """Networks of the paper, on images of that kind."""
    found = {}
    for name in ("cifar_resnet20_bsconvu", "cifar_resnet20_bsconvs_p1d4", "cifar_mobilenetv2_w1d4"):
        torch.manual_seed(0)
        model = bp.get_model(name, 10).to(dtype).eval()
        found[name] = model(numbers(kind, 2, 3, 32, 32, mixed=1).to(dtype))
    return found


# --- spectra --------------------------------------------------------------------------------------


def spectra(kind: str, dtype: torch.dtype, many: int) -> Results:
    """Shares, compared by their difference: rows of them add up to one."""
    weight = kernel(kind, many).to(dtype)
    shares = {
        f"{function.__name__} {center}": function(weight, center)[""]
        for function in (bp.kernel_spectra, bp.cross_kernel_spectra)
        for center in (True, False)
    }
    return {name: torch.cat((rows, rows.sum(1, True)), 1) for name, rows in shares.items()}


CASES = [
    *(
        Case(
            f"project_pretrained, {method}, BSConv-{letter.upper()}: {subject}",
            partial(projected, method, letter, subject),
            OF_ANY_WIDTH,
            looser=LOOSER.get(method, {}),
            beyond=BEYOND,
        )
        for method in ("weights", "batch_norm", "outputs")
        for letter in "us"
        for subject in ("weights", "images")
    ),
    Case(
        "reestimate_batch_norm",
        statistics,
        OF_ANY_WIDTH,
        beyond=BEYOND,
        by_rows=("running_mean", "running_var"),
    ),
    Case(
        "collapse",
        partial(inferred, lambda model, images: bp.collapse(model), False),
        OF_ANY_WIDTH,
        beyond=BEYOND,
    ),
    Case(
        "optimize_for_inference",
        partial(inferred, partial(bp.optimize_for_inference, compile=False), True),
        OF_ANY_WIDTH,
        beyond=BEYOND,
    ),
    Case("modify_mobilenet", modified, OF_ANY_WIDTH, beyond=BEYOND, by_rows=("outputs",)),
    Case(
        "get_model",
        whole,
        tuple(kind for kind in OF_ANY_WIDTH if kind != "largest"),
        looser={"subnormal": 1e-4},
    ),
    Case("kernel_spectra, cross_kernel_spectra", spectra, OF_MORE_CHANNELS),
]


@pytest.fixture(scope="module")
def errors() -> defaultdict[Case, dict[str, float]]:
    """What the tests have found, for the page."""
    return defaultdict(dict)


@each_kind([*CORE, *CASES])
def test_float32_is_as_promised(case: Case, kind: str, errors) -> None:
    errors[case][kind] = case.error(kind, MANY)


def test_page(errors: dict[Case, dict[str, float]], section: Section) -> None:
    worst = {case: max(found, key=lambda kind: found[kind]) for case, found in errors.items()}
    rows = [f"| {case.title} | {errors[case][worst[case]]:.1e} | {worst[case]} |" for case in worst]
    section(
        "float32 compared with float64",
        f"{len(errors)} computations on {sum(map(len, errors.values()))} inputs:\n\n"
        "| what is computed | largest error | on |\n|---|---|---|\n" + "\n".join(rows),
    )
