"""What three epochs with its teacher bring back to a network that a budget made smaller.

``python -m benchmarks.distillation`` projects the package's own ResNet-20, or ``--model MODEL
--weights FILE``, to the budgets of benchmarks.compression, trains each for three epochs of the
recipe ``finetune`` on the dense network's answers, without labels, and adds their accuracies on all
test images to results/compression/distilled.json. What is recorded there is not done again.
"""

from __future__ import annotations

import argparse
import copy
import json
import platform
import sys
from typing import Any

import torch

from bsconv.experiments.data import load_dataset, to_float
from bsconv.experiments.training import TrainConfig, train
from bsconv.pytorch import budget_curve, project_pretrained

from .compression import BUDGETS, IMAGES, add_network, measured_accuracy, trained_network
from .published import ROOT
from .records import current_commit, machine_class

PATH = ROOT / "results" / "compression" / "distilled.json"
EPOCHS = 3


def main() -> int:
    parser = argparse.ArgumentParser("benchmarks.distillation", description=__doc__)
    add_network(parser)
    parser.add_argument("--name", help="of the network in the record (default: that of MODEL)")
    parser.add_argument("--budgets", nargs="+", type=float, default=BUDGETS, metavar="SHARE")
    arguments = parser.parse_args()
    name = arguments.name or arguments.model.rpartition(":")[2]
    record = _record()
    done = {(row["network"], row["budget"]) for row in record["rows"]}
    left = [budget for budget in arguments.budgets if (name, budget) not in done]
    dense = trained_network(arguments.model, arguments.weights).eval()
    data = load_dataset("cifar10", arguments.data)
    curve = budget_curve(dense, to_float(data.train_images[:IMAGES]))
    config = TrainConfig(data=arguments.data, recipe="finetune", epochs=EPOCHS, device="cpu")
    for budget in left:
        student = project_pretrained(dense, curve, budget=budget)[0]
        row: dict[str, Any] = {"network": name, "budget": budget}
        row["before"] = measured_accuracy(student, data)
        trained = train(config, model=student, teacher=copy.deepcopy(dense))
        row["after"] = round(trained.last.test_top1, 2)
        row |= {"machine": arguments.machine or machine_class(), "commit": current_commit()}
        print(row, flush=True)
        record["rows"].append(row)
        PATH.write_text(json.dumps(record, indent=1) + "\n")
    return 0


def _record() -> dict[str, Any]:
    if PATH.exists():
        read: dict[str, Any] = json.loads(PATH.read_text())
        return read
    versions = {"python": platform.python_version(), "torch": torch.__version__}
    about = {"images": IMAGES, "epochs": EPOCHS, "recipe": "finetune", "versions": versions}
    return {"format": "bsconv distillation 1", **about, "rows": []}


if __name__ == "__main__":
    sys.exit(main())
