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
from ._arguments import add_csv, add_num_classes
from ._files import add_figure, check_files, write_figure
from ._json import add_json, print_json, rows_of
from ._models import model_by_name, say_random

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ..experiments.plotting import Figure
    from ..pytorch import SpectraTable

HELP = "say how alike the slices of each kernel are"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model",
        metavar="MODEL",
        help="an architecture of `bsconv models`, torchvision:NAME or pytorchcv:NAME, or a file of "
        "weights alone (.safetensors, .pt, .pth), also of Keras (.h5) or ONNX (.onnx)",
    )
    parser.add_argument(
        "--weights",
        metavar="FILE|DEFAULT",
        help="trained weights for MODEL: a file, or DEFAULT for those that its library offers",
    )
    parser.add_argument(
        "--no-center",
        action="store_true",
        help="shares of the energy, which BSConv-U keeps, rather than of the variance",
    )
    add_num_classes(parser, of_weights=True)
    add_figure(parser, "the shares of each layer and those of random kernels")
    add_csv(parser)
    add_json(parser, "model, rows with the columns of --csv")


def run(arguments: argparse.Namespace) -> int:
    check_files(figure=arguments.out, other=arguments.csv)
    source = _source(arguments.model, arguments.weights, arguments.num_classes)

    from ..experiments.files.kernel_files import KERNEL_FILES
    from ..pytorch import kernel_spectra, spectra_table

    center = not arguments.no_center
    table = spectra_table(source, center)
    if arguments.model.lower().endswith(KERNEL_FILES):  # where each kernel says what it is
        table = replace(table, unsure=0)
    if arguments.out is not None:
        if not table.compared:
            raise ValueError(f"there is nothing to draw in {arguments.out}: {table.summary}")
        spectra = kernel_spectra(source, center)
        write_figure(arguments.out, lambda: _overview(arguments.model, table, spectra))
    if arguments.csv is not None:
        table.to_csv(arguments.csv)
    if arguments.json:
        print_json(model=arguments.model, rows=rows_of(table))
    else:
        print(table)
    return 0


def _source(
    name: str, weights: str | None, num_classes: int | None
) -> nn.Module | dict[str, Tensor]:
    """The weights in the file ``name``, or the model ``name`` with ``weights``, random if None."""
    from ..experiments.files.kernel_files import KERNEL_FILES, read_kernels
    from ..experiments.files.weights import is_weight_file, read_weights
    from ..experiments.model_sources import pretrained_model
    from ..experiments.training import read_start

    of_others = name.lower().endswith(KERNEL_FILES)
    if of_others or is_weight_file(name):
        if weights is not None:
            raise ValueError(f"--weights goes with a model by its name, {name} is a file of them")
        return read_kernels(name) if of_others else read_weights(name)
    if weights == "DEFAULT":
        return pretrained_model(name, weights)
    config = TrainConfig(name, weights=weights, normalize="none")  # it gets no images
    model = model_by_name(config, num_classes, read_start(config))
    if weights is None:
        say_random("spectra", name, "--weights FILE or --weights DEFAULT")
    return model


def _overview(model: str, table: SpectraTable, spectra: dict[str, Tensor]) -> Figure:
    from ..experiments import plotting

    rows = table.compared
    what = "variance" if table.center else "energy"
    return plotting.layer_boxes(
        {row.name or "(root)": spectra[row.name][:, 0] for row in rows},
        [row.random for row in rows],
        {
            "within kernels": [row.excess for row in rows],
            "across kernels": [row.cross_excess for row in rows],
        },
        ylabel=f"first share of {what}",
        title=f"{Path(model).name}: how alike the slices of each kernel are",
    )
