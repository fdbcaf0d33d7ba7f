"""Say how alike the slices of each kernel are: principal components, compared with random kernels.

A network of trained weights is read from a file, or fetched with --weights DEFAULT. Kernels
of other frameworks are read from HDF5 files (which takes h5py) and ONNX files (which takes onnx).
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..experiments.config import TrainConfig
from ._arguments import add_num_classes, only_with
from ._models import say_random
from ._output import ROWS, add_csv, add_figure, add_json, check_files, print_table

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ..experiments.plotting import Figure
    from ..pytorch import SpectraTable

HELP = "say how alike the slices of each kernel are"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    text = (
        "an architecture of `bsconv models`, torchvision:NAME or pytorchcv:NAME, or a file of "
        "weights alone (.safetensors, .pt, .pth), also of Keras (.h5) or ONNX (.onnx)"
    )
    parser.add_argument("model", metavar="MODEL", help=text)
    text = "trained weights for MODEL: a file, or DEFAULT for those that its library offers"
    parser.add_argument("--weights", metavar="FILE|DEFAULT", help=text)
    text = "shares of the energy, which BSConv-U keeps, rather than of the variance"
    parser.add_argument("--no-center", action="store_true", help=text)
    add_num_classes(parser, of_weights=True)
    add_figure(parser, "the shares of each layer and those of random kernels")
    add_csv(parser)
    add_json(parser, f"model, {ROWS}")


def run(arguments: argparse.Namespace) -> None:
    check_files(arguments.out, arguments.csv)
    name = arguments.model
    source = _source(arguments)

    from ..experiments.files.kernel_files import KERNEL_FILES
    from ..pytorch import spectra_table

    table = spectra_table(source, not arguments.no_center)
    if name.lower().endswith(KERNEL_FILES):  # where each kernel says what it is
        table = replace(table, unsure=0)
    if arguments.out is not None and not table.compared:
        raise ValueError(f"there is nothing to draw in {arguments.out}: {table.summary}")
    print_table(arguments, table, lambda: _figure(name, source, table), model=name)


def _source(arguments: argparse.Namespace) -> nn.Module | dict[str, Tensor]:
    """The weights in the file MODEL, or the network MODEL with --weights, by default random."""
    from ..experiments.files import checkpoints
    from ..experiments.files.kernel_files import KERNEL_FILES, read_kernels
    from ..experiments.files.weights import WEIGHT_FILES
    from ..experiments.model_sources import pretrained_model
    from ..experiments.training import model_by_name, read_start

    name, weights = arguments.model, arguments.weights
    of_others = name.lower().endswith(KERNEL_FILES)
    if of_others or name.endswith(WEIGHT_FILES) or Path(name).exists():
        by_name = f"a model by its name, {name} is a file of weights"
        only_with(False, by_name, arguments, "weights", "num_classes")
        return read_kernels(name) if of_others else checkpoints.read_start(Path(name)).state
    if weights == "DEFAULT":
        only_with(False, "--weights FILE, or without --weights", arguments, "num_classes")
        return pretrained_model(name, weights)
    config = TrainConfig(name, weights=weights, normalize="none")  # it gets no images
    model = model_by_name(config, arguments.num_classes, read_start(config))
    if weights is None:
        say_random("spectra", name, "--weights FILE or --weights DEFAULT")
    return model


def _figure(name: str, source: nn.Module | dict[str, Tensor], table: SpectraTable) -> Figure:
    from ..experiments import plotting
    from ..pytorch import kernel_spectra

    spectra, rows = kernel_spectra(source, table.center), table.compared
    return plotting.layer_boxes(
        {row.name or "(root)": spectra[row.name][:, 0] for row in rows},
        [row.random for row in rows],
        {
            "within kernels": [row.excess for row in rows],
            "across kernels": [row.cross_excess for row in rows],
        },
        ylabel=f"first share of {'variance' if table.center else 'energy'}",
        title=f"{Path(name).name}: how alike the slices of each kernel are",
    )
