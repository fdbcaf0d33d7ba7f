"""Draws the README's figures from recorded results and our own weights: ``make figures``.

Arguments name some of them; without any, all are written to docs/figures/.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from bsconv.__main__ import main as bsconv
from bsconv.commands._output import write_figure
from bsconv.pytorch import get_model
from bsconv.pytorch.decomposition import blueprint_factors, compose

if TYPE_CHECKING:
    from bsconv.experiments.plotting import Figure

FOLDER = Path(__file__).resolve().parent / "figures"
RESULTS = FOLDER.parents[1] / "results"
Points = Mapping[str, Sequence[tuple[float, float]]]
LAYER = "backbone.stage1.unit1.conv1.conv"
# what draws the others: accuracy against parameters, recorded and published; how similar the slices
# of each kernel are, compared with chance
COMMANDS = {
    "accuracy": ("results", "--results", RESULTS, "--dataset", "cifar10"),
    "spectra": ("spectra", "cifar_resnet20", "--weights", "DEFAULT"),
}


def blueprint(path: Path) -> None:
    """The kernel of an early layer that one blueprint fits best; the title adds the median."""
    from bsconv.experiments import plotting

    model = get_model("cifar_resnet20", num_classes=10, pretrained="cifar10")
    kernels = model.get_parameter(f"{LAYER}.weight").detach().double()
    weights, blueprints = blueprint_factors(kernels)
    lost = (kernels - compose(weights, blueprints)).square().sum((1, 2, 3))
    kept = 1 - lost / kernels.square().sum((1, 2, 3))
    best = int(kept.argmax())
    title = (
        "A trained kernel as one blueprint, spread by weights: "
        f"{{kept:.0%}} kept (median of its layer: {kept.median():.0%})"
    )
    parts = kernels[best].numpy(), blueprints[best].numpy(), weights[best].numpy()
    write_figure(path, lambda: plotting.blueprint_fit(*parts, title=title))


def trade_offs(
    panels: Mapping[str, Points], *, ylabel: str, level: float, title: str = ""
) -> Figure:
    """Panels side by side, each ``{label: (share of a cost, value)}``, named after its cost.

    A line at ``level`` is what the whole cost buys.
    """
    from bsconv.experiments.plotting import _figures as figures

    figure, axes = figures.panels_of(panels, title, ylabel=ylabel, sharey=True)
    looks = figures.looks_of(chain.from_iterable(panels.values()))
    for name, axis in axes.items():
        axis.axhline(level, color="black", linewidth=1, linestyle=":", marker="", label="dense")
        for label, points in panels[name].items():
            axis.plot(*zip(*points, strict=True), **looks[label], label=label)
        axis.set(title="", xlabel=name)
        figures.in_percent(axis.xaxis)
        axis.set_xlim(left=0)
        axis.grid()
    return figures.with_legend(figure, columns=4)


def compression(path: Path) -> None:
    """What is left of the accuracy at a share of the cost, ours and what others offer."""
    record = json.loads((RESULTS / "compression" / "cifar_resnet20.json").read_text())
    dense, *rows = record["rows"]
    by_macs: dict[str, list[tuple[float, float]]] = {}
    by_time: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        by_macs.setdefault(row["method"], []).append((row["macs"], row["accuracy"]))
        if row["seconds"]:
            share = row["seconds"] / dense["seconds"]
            by_time.setdefault(row["method"], []).append((share, row["accuracy"]))
    panels = {"share of the multiply-accumulates": by_macs, "share of the measured time": by_time}
    write_figure(
        path,
        lambda: trade_offs(
            panels,
            ylabel="top-1 on CIFAR-10 (%)",
            level=dense["accuracy"],
            title=f"A trained ResNet-20 at a share of its cost, from {record['images']} images",
        ),
    )


FORMS = {  # of ResNet-20, trained from scratch: by form, what to call each network and its model
    "dense": {"": "cifar_resnet20"},
    "BSConv-U": {"": "cifar_resnet20_bsconvu"},
    "BSConv-S": {
        "p = 1/4": "cifar_resnet20_bsconvs_p1d4",
        "p = 1/2": "cifar_resnet20_bsconvs_p1d2",
    },
    "BSConv-CP": {"": "benchmarks.networks:resnet20_bsconvcp"},
}
FORM_LENGTH = "20 epochs"


def forms(path: Path) -> None:
    """Which form is best trained from scratch; nothing while a network has no record."""
    from bsconv.experiments import plotting
    from bsconv.experiments.results import load_records, summarize

    runs = {
        one.config.model: one
        for one in summarize(load_records(RESULTS))
        if (one.config.dataset, one.recipe, one.length) == ("cifar10", "fast", FORM_LENGTH)
    }
    points = {
        form: [(text, runs[name].parameters / 1e6, runs[name].top1) for text, name in some.items()]
        for form, some in FORMS.items()
        if runs.keys() >= {*some.values()}
    }
    if points.keys() == FORMS.keys():
        title = f"ResNet-20 trained from scratch, {FORM_LENGTH} of CIFAR-10"
        write_figure(path, lambda: plotting.accuracy_panels({title: points}))


DRAWN = {"blueprint": blueprint, "compression": compression, "forms": forms}


def main(argv: Sequence[str] | None = None) -> int:
    for name in argv or (*DRAWN, *COMMANDS):
        torch.manual_seed(0)
        path = FOLDER / f"{name}.png"
        if name in DRAWN:
            DRAWN[name](path)
        else:
            with contextlib.redirect_stdout(io.StringIO()):  # its table is for terminals
                code = bsconv([*map(str, COMMANDS[name]), "--out", str(path)])
            if code:
                return code
        if path.exists():
            print(f"docs/figures/{name}.png")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
