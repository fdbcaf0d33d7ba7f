"""What a budget promises, measured end to end: how long projecting takes, and what it gives.

``python -m benchmarks.budgets`` projects the package's own ResNet-20 (500 images of CIFAR-10) and
torchvision's ResNet-18 (random weights, 100 random images of 224x224) to a quarter of their
multiply-accumulates, and ResNet-20 to half of its time. It notes the seconds, the most memory that
the process held, and the time of each network against its dense one, both in their fastest engine
and in turns, and writes results/compression/budgets.json.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import sys
import time
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from bsconv.basics.timing import SETTLE, in_turns, medians
from bsconv.experiments.data import load_dataset, to_float
from bsconv.pytorch import get_model, optimize_for_inference, project_pretrained

from .published import ROOT
from .records import current_commit, machine_class

PATH = ROOT / "results" / "compression" / "budgets.json"


def main() -> int:
    import torchvision

    parser = argparse.ArgumentParser("benchmarks.budgets", description=__doc__)
    parser.add_argument("--data", default=str(ROOT / "data"), help="folder of cifar10.npz")
    parser.add_argument("--machine", help='its class in words, such as "2 CPU cores (x86-64)"')
    given = parser.parse_args()
    torch.manual_seed(0)
    small = get_model("cifar_resnet20", num_classes=10, pretrained="cifar10").eval()
    large = torchvision.models.resnet18().eval()
    photographs = to_float(load_dataset("cifar10", given.data).train_images[:500])
    noise = torch.rand(100, 3, 224, 224)
    rows = [
        _row("ResNet-20, 32x32, 64 images", small, photographs, 64, 0.25, "macs"),
        _row("ResNet-20, 32x32, 16 images", small, photographs, 16, 0.5, "time"),
        _row("ResNet-18, 224x224, 4 images", large, noise, 4, 0.25, "macs"),
    ]
    record = {
        "format": "bsconv budgets 1",
        "machine": given.machine or machine_class(),
        "commit": current_commit(),
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "rows": rows,
        "peak_gigabytes": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 1),
    }
    PATH.write_text(json.dumps(record, indent=1) + "\n")
    return 0


def _row(
    name: str, dense: nn.Module, images: Tensor, batch: int, budget: float, of: Any
) -> dict[str, Any]:
    start = time.perf_counter()
    student, _ = project_pretrained(dense, images, budget=budget, of=of)
    seconds = time.perf_counter() - start
    networks = {"dense": dense, "student": student}
    fast = {key: optimize_for_inference(each, images[:batch]) for key, each in networks.items()}
    runs = {key: partial(each, images[:batch]) for key, each in fast.items()}
    times = medians(in_turns(runs, images.device, budget=30.0, turn=0.05, settle=SETTLE))
    row = {
        "network": name,
        "budget": budget,
        "of": of,
        "seconds_to_project": round(seconds, 1),
        "share_of_time": round(times["student"] / times["dense"], 3),
        "milliseconds": {key: round(1000 * each, 3) for key, each in times.items()},
        "engines": {key: each.report.engine for key, each in fast.items()},
    }
    print(row, flush=True)
    return row


if __name__ == "__main__":
    sys.exit(main())
