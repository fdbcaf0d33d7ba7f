"""Draws the README's figures from recorded results and our own weights: ``make figures``.

Arguments name some of them; without any, all are written to docs/figures/.
"""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from bsconv.__main__ import main as bsconv
from bsconv.commands._files import write_figure
from bsconv.pytorch import get_model
from bsconv.pytorch.decomposition import blueprint_factors, compose

FOLDER = Path(__file__).resolve().parent / "figures"
RESULTS = FOLDER.parents[1] / "results"
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


def main(argv: Sequence[str] | None = None) -> int:
    for name in argv or ("blueprint", *COMMANDS):
        torch.manual_seed(0)
        path = FOLDER / f"{name}.png"
        if name == "blueprint":
            blueprint(path)
        else:
            with contextlib.redirect_stdout(io.StringIO()):  # its table is for terminals
                code = bsconv([*map(str, COMMANDS[name]), "--out", str(path)])
            if code:
                return code
        print(f"docs/figures/{name}.png")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
