"""The same results again: bit by bit in another process, to some digits with other threads."""

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bsconv import pytorch as bp
from bsconv.experiments.training import TrainConfig, train
from core.test_precision import approximated, forward_and_backward
from helpers.precision import difference, fill, numbers
from nightly.test_precision import network

pytestmark = pytest.mark.nightly

Results = dict[str, Tensor]
LAYERS = ("factored", "joined", "narrow", "merged")


def layers() -> Results:
    found = {}
    for plan in LAYERS:
        layer = bp.BSConvS(32, 48, 3, padding=1)
        fill(layer, "ordinary")
        layer.plan = plan
        results = forward_and_backward(layer, numbers("ordinary", 8, 32, 16, 16))
        found |= {f"{plan} {name}": tensor for name, tensor in results.items()}
    return found


def penalty() -> Results:
    model = nn.Sequential(bp.BSConvS(64, 64, 3, p=0.5), bp.BSConvS(256, 256, 3))
    fill(model, "ordinary")
    value = bp.reg_loss(model)
    value.backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return {"value": value, **gradients}


def spectra() -> Results:
    shapes = ((64, 32, 3, 3), (300, 256, 3, 3), (64, 4, 5, 5))
    return {str(shape): bp.kernel_spectra(numbers("ordinary", *shape))[""] for shape in shapes}


def projection() -> Results:
    images = numbers("ordinary", 16, 3, 16, 16)
    model = bp.reestimate_batch_norm(network("ordinary"), images)
    new, report = bp.project_pretrained(model, images, "s", 0.5, progress=False)
    errors = torch.tensor([layer.output_error for layer in report.layers])
    return {"outputs": new(images), "errors": errors}


def training(images: int, epochs: int) -> Results:
    """Losses and the weights that training ends with, in steps of 16 images."""
    found = {}
    for recipe, model in (("published", "bsconvs_p1d4"), ("fast", "bsconvu")):
        limits = {"epochs": epochs, "train_limit": images, "test_limit": 32, "batch_size": 16}
        model = f"cifar_resnet20_{model}"
        config = TrainConfig(model, "synthetic", recipe=recipe, device="cpu", **limits)
        history = train(config, progress=False)
        found[f"losses {model}"] = torch.tensor([epoch.train_loss for epoch in history])
        weights = [parameter.flatten() for parameter in history.model.parameters()]
        found[f"weights {model}"] = torch.cat(weights)
    return found


# what is computed, and how far two threads may be from one
PARTS: dict[str, tuple[Callable[[], Results], float]] = {
    "layers, forward and backward": (layers, 1e-5),
    "penalty and its gradient": (penalty, 1e-5),
    "spectra": (spectra, 1e-5),
    "from_conv2d": (partial(approximated, "many channels", torch.float32, 256), 1e-5),
    "projection": (projection, 1e-4),
    "training, one step": (partial(training, 16, 1), 5e-2),
    # each step multiplies the difference
    "training, eight steps": (partial(training, 64, 2), torch.inf),
}


def results(part: str, threads: int) -> dict[str, np.ndarray]:
    """In NumPy's arrays: torch would share the memory of a process that ends."""
    torch.set_num_threads(threads)
    return {name: tensor.detach().numpy() for name, tensor in PARTS[part][0]().items()}


def in_processes(part: str, *threads: int) -> list[Results]:
    """The results in a Python of its own for each number of threads."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, spawn, max_tasks_per_child=1) as pool:
        found = list(pool.map(results, [part] * len(threads), threads))
    return [{name: torch.from_numpy(array) for name, array in one.items()} for one in found]


@pytest.mark.parametrize("part", PARTS)
def test_the_same_bits_in_another_process_and_close_with_other_threads(part, section):
    first, again, two, two_again = in_processes(part, 1, 1, 2, 2)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert all(torch.equal(two[name], two_again[name]) for name in first)
    gap = max(difference(two[name], first[name]) for name in first)
    bound = PARTS[part][1]
    assert gap <= bound
    promised = "nothing" if bound == torch.inf else f"at most {bound:.0e}"
    section(
        "The same results again",
        f"- {part}: the same bits in another process; with two threads instead of one"
        f" {f'a difference of {gap:.1e}' if gap else 'the same bits'}, {promised} promised",
    )
