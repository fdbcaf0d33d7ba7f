"""The same work in processes of their own: whether its results are the same, and to which digit.

``python -m nightly.precision.determinism THREADS FILE PART ...`` does the work once.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bsconv.experiments.training import TrainConfig, train
from bsconv.pytorch import (
    BSConvS,
    BSConvU,
    cross_kernel_spectra,
    get_model,
    kernel_spectra,
    project_pretrained,
    reestimate_batch_norm,
    reg_loss,
)
from helpers.paths import ROOT

from .inputs import numbers
from .layers import BATCH_NORM_PLANS, NEEDED, PLANS, fill, results
from .projection import network

# how far two threads may be from one, relative to the largest entry of each result
BOUNDS: dict[str, float | None] = {
    "layers, forward and backward": 1e-5,
    "penalty and its gradient": 1e-5,
    "spectra": 1e-5,
    "from_conv2d": 1e-5,
    "projection": 1e-4,
    "training, one step": 5e-2,
    "training, eight steps": None,  # each step multiplies what differs
}


def work(parts: Sequence[str]) -> dict[str, Tensor]:
    """Results by ``part/name``, from seeds alone."""
    computations: dict[str, Callable[[], dict[str, Tensor]]] = {
        "layers, forward and backward": _layers,
        "penalty and its gradient": _penalty,
        "spectra": _spectra,
        "from_conv2d": _approximations,
        "projection": _projection,
        "training, one step": partial(_training, images=16, epochs=1),
        "training, eight steps": partial(_training, images=64, epochs=2),
    }
    return {
        f"{part}/{name}": tensor.detach().clone()
        for part in parts
        for name, tensor in computations[part]().items()
    }


def differences(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> dict[str, float]:
    """For each part the largest difference relative to the largest entry, zero if bit-equal."""
    if first.keys() != second.keys():
        raise AssertionError(f"other results: {sorted(first.keys() ^ second.keys())}")
    found = dict.fromkeys((name.partition("/")[0] for name in first), 0.0)
    for name, one in first.items():
        part, other = name.partition("/")[0], second[name]
        if not torch.equal(one, other):
            largest = one.double().abs().max().clamp_min(torch.finfo(torch.float32).tiny)
            gap = ((one.double() - other.double()).abs() / largest).nan_to_num(nan=torch.inf)
            found[part] = max(found[part], float(gap.max()))
    return found


def figures() -> dict[str, Any]:
    """Two runs with one thread and two with two; AssertionError where they are not as promised."""
    runs = [in_process(threads, tuple(BOUNDS)) for threads in (1, 1, 2, 2)]
    for first, second, threads in ((runs[0], runs[1], 1), (runs[2], runs[3], 2)):
        changed = {part: gap for part, gap in differences(first, second).items() if gap}
        if changed:
            raise AssertionError(f"two runs with {threads} threads differ: {changed}")
    across = differences(runs[0], runs[2])
    for part, bound in BOUNDS.items():
        if bound is not None and not across[part] <= bound:
            raise AssertionError(f"{part}: two threads differ from one by {across[part]:.1e}")
    parts = {part: {"difference": across[part], "bound": BOUNDS[part]} for part in BOUNDS}
    return {"tensors": len(runs[0]), "parts": parts}


def in_process(threads: int, parts: Sequence[str]) -> dict[str, Tensor]:
    """What :func:`work` gives in a Python of its own with so many threads."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "results.pt")
        command = [sys.executable, "-m", __name__, str(threads), str(file), *parts]
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": str(threads),
            "BSCONV_OFFLINE": "1",
            "PYTHONPATH": f"{ROOT}/tests{os.pathsep}{ROOT}",
        }
        ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        if ended.returncode:
            raise RuntimeError(f"the work with {threads} threads failed: {ended.stderr[-2000:]}")
        return torch.load(file, weights_only=True)


def _layers() -> dict[str, Tensor]:
    found = {}
    images = numbers("ordinary", 8, 32, 16, 16)
    for layer_class, plans in PLANS.items():
        for norm in (False, True):
            for plan in BATCH_NORM_PLANS[layer_class] if norm else plans:
                layer = layer_class(32, 48, 3, padding=1, with_bn=norm, **NEEDED[layer_class])
                fill(layer, "ordinary")
                layer.plan = plan
                title = f"{layer_class.__name__} {plan} {norm}"
                for name, tensor in results(layer, images).items():
                    found[f"{title} {name}"] = tensor
    return found


def _penalty() -> dict[str, Tensor]:
    model = nn.Sequential(BSConvS(64, 64, 3, p=0.5), BSConvS(256, 256, 3))
    fill(model, "ordinary")
    value = reg_loss(model)
    value.backward()  # type: ignore[no-untyped-call]
    gradients = {name: tensor.grad for name, tensor in model.named_parameters()}
    return {"value": value} | {n: grad for n, grad in gradients.items() if grad is not None}


def _spectra() -> dict[str, Tensor]:
    found = {}
    for shape in ((64, 32, 3, 3), (300, 256, 3, 3), (64, 4, 5, 5)):
        weight = numbers("ordinary", *shape)
        found[f"within {shape}"] = kernel_spectra(weight)[""]
        found[f"across {shape}"] = cross_kernel_spectra(weight)[""]
    return found


def _approximations() -> dict[str, Tensor]:
    conv = nn.Conv2d(64, 64, 3)
    fill(conv, "ordinary")
    layers = {"u": BSConvU.from_conv2d(conv), "s": BSConvS.from_conv2d(conv, p=0.5)}
    # factors may turn or change signs, the kernel that they stand for may not
    return {name: layer.to_conv2d().weight for name, layer in layers.items()}


def _projection() -> dict[str, Tensor]:
    found = {}
    images = numbers("ordinary", 16, 3, 16, 16)
    for kind in ("u", "s"):
        new, report = project_pretrained(network("ordinary"), images, kind, 0.5, progress=False)
        found[f"outputs {kind}"] = new(images)
        found[f"errors {kind}"] = torch.tensor([layer.output_error for layer in report.layers])
    torch.manual_seed(0)
    model = reestimate_batch_norm(
        get_model("cifar_resnet20_bsconvu", 10), images.repeat(1, 1, 2, 2)
    )
    return found | {name: value for name, value in model.state_dict().items() if "running" in name}


def _training(images: int, epochs: int) -> dict[str, Tensor]:
    """Losses and the weights that training ends with, in steps of 16 images."""
    found = {}
    common: dict[str, Any] = {"dataset": "synthetic", "train_limit": images, "epochs": epochs}
    common |= {"batch_size": 16, "test_limit": 32, "device": "cpu"}
    for model, recipe in (
        ("cifar_resnet20_bsconvs_p1d4", "published"),
        ("cifar_resnet20_bsconvu", "fast"),
    ):
        history = train(TrainConfig(model, recipe=recipe, **common), progress=False)
        assert history.model is not None
        found[f"losses {model}"] = torch.tensor([epoch.train_loss for epoch in history])
        weights = [parameter.flatten() for parameter in history.model.parameters()]
        found[f"weights {model}"] = torch.cat(weights)
    return found


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[1]))
    torch.save(work(sys.argv[3:]), sys.argv[2])
