"""A trained network at several budgets without labels or training: ours, and what others offer.

``python -m benchmarks.compression`` takes the package's own ResNet-20, or ``--model MODEL --weights
FILE``, and 500 training images of CIFAR-10, the same for all, and writes
results/compression/MODEL.json. Ours is ``project_pretrained(budget=...)``, with BSConv-U as its
fixed point. The others factorise the weights (Tucker-2 by TensorLy; channel and spatial SVD) or
prune channels by their norm (torch-pruning), with one share of each layer's cost; BatchNorm's
statistics are then estimated again on the images. "cp of the weights" is BSConv-CP in the same way,
without our fit. Accuracy is that of all test images, MACs are counted by torch's FlopCounterMode.
Each network is timed in its fastest engine (``optimize_for_inference``), all in turns on a batch of
64 images. Where a network's cost lies in its 1x1 convolutions, as in MobileNets, ``--pointwise``
compares with channel SVD of these.

Needs ``pip install tensorly torch-pruning``.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from bsconv.basics.timing import SETTLE, in_turns, medians
from bsconv.experiments.data import ImageDataset, load_dataset, to_float
from bsconv.experiments.training import TrainConfig, model_by_name, read_start, settled
from bsconv.pytorch import (
    BSConvCP,
    budget_curve,
    optimize_for_inference,
    project_pretrained,
    reestimate_batch_norm,
)

from .published import ROOT
from .records import circumstances

Method = Callable[[nn.Module, float], nn.Module]

BUDGETS = 0.15, 0.25, 0.35, 0.47
IMAGES = 500
BATCH = 64


def main() -> int:
    parser = argparse.ArgumentParser("benchmarks.compression", description=__doc__)
    add_network(parser)
    parser.add_argument(
        "--pointwise", action="store_true", help="the others change 1x1 convolutions"
    )
    arguments = parser.parse_args()
    if not arguments.pointwise and not (find_spec("tensorly") and find_spec("torch_pruning")):
        parser.error("this compares with others: pip install tensorly torch-pruning")
    name = arguments.model.rpartition(":")[2]
    dense = trained_network(arguments.model, arguments.weights).eval()
    data = load_dataset("cifar10", arguments.data)
    networks: dict[tuple[str, float], nn.Module] = {("dense", 1.0): dense}
    images = to_float(data.train_images[:IMAGES])
    networks |= _ours(dense, images)
    networks |= _others(dense, images, OF_POINTWISE if arguments.pointwise else OTHERS)
    seconds = _seconds(networks, to_float(data.test_images[:BATCH]))
    rows = []
    for (method, budget), network in networks.items():
        share = _macs(network) / _macs(dense)
        row = {"method": method, "budget": budget, "macs": round(share, 4)}
        row |= {"accuracy": measured_accuracy(network, data), "seconds": seconds[method, budget]}
        rows.append(row)
        print(row, flush=True)
    record = {
        "format": "bsconv compression 1",
        "model": name,
        "images": IMAGES,
        "batch": BATCH,
        **circumstances(arguments.machine),
        "rows": rows,
    }
    path = ROOT / "results" / "compression" / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(record, indent=1) + "\n")
    print(f"recorded in {path.relative_to(ROOT)}")
    return 0


def add_network(parser: argparse.ArgumentParser) -> None:
    """A trained network, and what it is measured on."""
    add = parser.add_argument
    add("--model", default="cifar_resnet20", help="as bsconv train takes it")
    add("--weights", help="a file or a run of these (default: those of the package)")
    add("--data", default=str(ROOT / "data"), help="folder of cifar10.npz")
    add("--machine", help='its class in words, such as "2 CPU cores (x86-64)"')


def trained_network(model: str, weights: str | None) -> nn.Module:
    pretrained = "cifar10" if weights is None else None
    config = TrainConfig(model=model, weights=weights, pretrained=pretrained)
    start = read_start(config)
    return model_by_name(settled(config, start), 10, start)


def _ours(dense: nn.Module, images: Tensor) -> dict[tuple[str, float], nn.Module]:
    curve = budget_curve(dense, images)
    found = {}
    for budget in BUDGETS:
        try:
            found["bsconv", budget] = project_pretrained(dense, curve, budget=budget)[0]
        except ValueError as error:  # out of reach
            print(error)
    uniform, _ = project_pretrained(dense, images, "u")
    return {**found, ("bsconv-u", round(_macs(uniform) / _macs(dense), 2)): uniform}


def _others(
    dense: nn.Module, images: Tensor, methods: dict[str, Method]
) -> dict[tuple[str, float], nn.Module]:
    found = {}
    for budget in BUDGETS:
        for method, make in methods.items():
            network = _within(partial(make, dense), budget * _macs(dense))
            found[method, budget] = reestimate_batch_norm(network, images)
    return found


def _within(make: Callable[[float], nn.Module], macs: float) -> nn.Module:
    """The network of the largest share that keeps to a budget, by bisection."""
    low, high = 0.0, 1.0
    for _ in range(12):
        middle = (low + high) / 2
        low, high = (middle, high) if _macs(make(middle)) <= macs else (low, middle)
    return make(low)


Factors = Callable[[nn.Conv2d, float], nn.Module]


def factorised(factors: Factors, dense: nn.Module, share: float, *, size: int = 3) -> nn.Module:
    """With factors that cost that share of each convolution of that size but the first."""
    network = copy.deepcopy(dense)
    for name, conv in list(network.named_modules()):
        fits = isinstance(conv, nn.Conv2d) and conv.kernel_size == (size, size)
        if fits and conv.in_channels > 3:
            network.set_submodule(name, factors(conv, share))
    return network.eval()


def _rank(conv: nn.Conv2d, share: float, weights_of_one: float) -> int:
    return max(1, int(share * conv.weight.numel() / weights_of_one))


def tucker(conv: nn.Conv2d, share: float) -> nn.Module:
    tensorly: Any = import_module("tensorly")
    partial_tucker = import_module("tensorly.decomposition").partial_tucker
    tensorly.set_backend("pytorch")
    outputs, inputs = conv.weight.shape[:2]
    ratio = 1.0
    while True:  # both ranks in proportion to the channels
        ranks = max(1, int(ratio * outputs)), max(1, int(ratio * inputs))
        cost = inputs * ranks[1] + 9 * ranks[0] * ranks[1] + outputs * ranks[0]
        if cost <= share * conv.weight.numel() or ratio < 0.02:
            break
        ratio -= 0.01
    (core, (behind, before)), _ = partial_tucker(conv.weight.detach(), modes=[0, 1], rank=ranks)
    return nn.Sequential(
        _conv(before.T[:, :, None, None]), _conv(core, conv), _conv(behind[:, :, None, None])
    )


def channel_svd(conv: nn.Conv2d, share: float) -> nn.Module:
    matrix = conv.weight.detach().flatten(1)
    rank = _rank(conv, share, sum(matrix.shape))
    left, right = _halves(matrix, rank)
    return nn.Sequential(
        _conv(right.view(-1, *conv.weight.shape[1:]), conv), _conv(left[:, :, None, None])
    )


def spatial_svd(conv: nn.Conv2d, share: float) -> nn.Module:
    outputs, inputs = conv.weight.shape[:2]
    rank = _rank(conv, share, 3 * (inputs + outputs))
    matrix = conv.weight.detach().permute(0, 3, 1, 2).reshape(3 * outputs, 3 * inputs)
    left, right = _halves(matrix, rank)
    column = _conv(right.view(-1, inputs, 3, 1))
    row = _conv(left.view(outputs, 3, -1).permute(0, 2, 1)[:, :, None, :])
    column.stride, column.padding = (conv.stride[0], 1), (1, 0)
    row.stride, row.padding = (1, conv.stride[1]), (0, 1)
    return nn.Sequential(column, row)


def closest_cp(conv: nn.Conv2d, share: float) -> nn.Module:
    outputs, inputs = conv.weight.shape[:2]
    return BSConvCP.from_conv2d(conv, blueprints=_rank(conv, share, inputs + 9 + outputs))


def _halves(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    left, sizes, right = torch.linalg.svd(matrix, full_matrices=False)
    return left[:, :rank] * sizes[:rank], right[:rank]


def _conv(weight: Tensor, like: nn.Conv2d | None = None) -> nn.Conv2d:
    """A convolution of these weights, with the stride and padding of another one."""
    place: dict[str, Any] = {"stride": like.stride, "padding": like.padding} if like else {}
    outputs, inputs, height, width = weight.shape
    conv = nn.Conv2d(inputs, outputs, (height, width), bias=False, **place)
    conv.weight.data.copy_(weight)
    return conv


def pruned(dense: nn.Module, share: float) -> nn.Module:
    """Without the channels of the smallest norm, chosen across all layers."""
    torch_pruning: Any = import_module("torch_pruning")
    network = copy.deepcopy(dense)
    heads = [m for m in network.modules() if isinstance(m, nn.Linear)]
    torch_pruning.pruner.MagnitudePruner(
        network,
        torch.rand(1, 3, 32, 32),
        importance=torch_pruning.importance.GroupMagnitudeImportance(p=2),
        pruning_ratio=1 - share,
        max_pruning_ratio=0.95,
        global_pruning=True,
        ignored_layers=heads,
    ).step()
    return network.eval()


OTHERS: dict[str, Method] = {
    "tucker-2": partial(factorised, tucker),
    "channel svd": partial(factorised, channel_svd),
    "spatial svd": partial(factorised, spatial_svd),
    "cp of the weights": partial(factorised, closest_cp),
    "pruning": pruned,
}
OF_POINTWISE: dict[str, Method] = {
    "channel svd": partial(factorised, channel_svd, size=1),
    "pruning": pruned,
}


@torch.no_grad()
def _macs(network: nn.Module) -> int:
    with FlopCounterMode(display=False) as counter:
        network(torch.rand(1, 3, 32, 32))
    return counter.get_total_flops() // 2


@torch.no_grad()
def measured_accuracy(network: nn.Module, data: ImageDataset) -> float:
    right = 0
    for images, labels in _batches(data):
        right += int((network(images).argmax(1) == labels).sum())
    return round(100 * right / len(data.test_labels), 2)


def _batches(data: ImageDataset, size: int = 250) -> Iterator[tuple[Tensor, Tensor]]:
    for start in range(0, len(data.test_labels), size):
        images = to_float(data.test_images[start : start + size])
        yield images, data.test_labels[start : start + size]


def _seconds(
    networks: dict[tuple[str, float], nn.Module], images: Tensor
) -> dict[tuple[str, float], float]:
    fast = {key: optimize_for_inference(network, images) for key, network in networks.items()}
    runs = {key: partial(network, images) for key, network in fast.items()}
    return medians(in_turns(runs, images.device, budget=60.0, turn=0.05, settle=SETTLE))


if __name__ == "__main__":
    sys.exit(main())
