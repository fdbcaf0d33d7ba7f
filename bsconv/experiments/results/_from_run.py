"""From the folder of a finished run to its record."""

from __future__ import annotations

import dataclasses
import datetime
import platform
from importlib import metadata
from pathlib import Path

import bsconv

from ...pytorch._tools.model_tree import parameter_count
from ..data import DATASETS
from ..files.checkpoints import CONFIG, MODEL, read_config, read_trained
from ..training import read_history, trained_model
from ._record import EXECUTION, Record


def make_record(
    run_folder: str | Path, *, machine: str, note: str = "", commit: str | None = None
) -> Record:
    """The record of a finished run, made with the versions that trained it.

    ``machine`` says in words what it ran on, such as "2 CPU cores (x86-64)", and ``note`` anything
    else worth knowing; ``commit`` is the short hash of the code that ran. ValueError where the run
    is not finished.
    """
    folder = Path(run_folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"the run folder {folder} does not exist")
    config = read_config(folder / CONFIG)
    name = Path(config.model).name  # of code of the user's, without the folder
    epochs = tuple(read_history(folder))
    if len(epochs) < config.epochs or not (folder / MODEL).exists():
        raise ValueError(
            f"the run in {folder} is not finished: {len(epochs)} of {config.epochs} epochs; "
            "go on with bsconv train --resume"
        )
    trained = read_trained(folder / MODEL)
    model = trained_model(trained, folder / MODEL)
    chosen = {name: getattr(trained.config, name) for name in EXECUTION}  # at the start of the run
    dataset = config.dataset if config.dataset in DATASETS else Path(config.dataset).name
    ended = datetime.datetime.fromtimestamp((folder / MODEL).stat().st_mtime, datetime.timezone.utc)
    return Record(
        config=dataclasses.replace(
            config.resolved().without_folders(), model=name, dataset=dataset, **chosen
        ),
        parameters=parameter_count(model),
        epochs=epochs,
        machine=machine,
        versions={
            "python": platform.python_version(),
            "torch": metadata.version("torch"),
            "torchvision": metadata.version("torchvision"),
            "bsconv": bsconv.__version__,
        },
        date=ended.date().isoformat(),
        commit=commit,
        note=note,
    )
