"""Recorded spectra: of kernels while they learn, and of networks whose weights are not here."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ...pytorch import spectra_table
from ...pytorch.spectra import LayerSpectrum, SpectraTable
from ..files.checkpoints import write_atomically
from ..files.json_files import holding, read_json
from ..training import EpochMetrics

FORMAT, NETWORK_FORMAT = "bsconv spectra 1", "bsconv network spectra 1"


@dataclass
class TrainingSpectra:
    """The median first share of each layer, epoch by epoch; 0 stands for before training.

    Filled by ``train(config, after_epoch=spectra)``, or by calls of :meth:`look`. ``layers`` has a
    share of each layer for each of ``epochs``, ``random`` the median of random kernels of its size,
    ``top1`` the test accuracies in percent, ``about`` whatever else should be known.
    """

    epochs: list[int] = field(default_factory=list)
    top1: list[float | None] = field(default_factory=list)
    layers: dict[str, list[float]] = field(default_factory=dict)
    random: dict[str, float] = field(default_factory=dict)
    about: dict[str, Any] = field(default_factory=dict)

    def __call__(self, metrics: EpochMetrics, model: nn.Module) -> None:
        self.look(metrics.epoch, model, metrics.test_top1)

    def look(
        self, epoch: int, source: nn.Module | Mapping[str, Tensor], top1: float | None = None
    ) -> None:
        """Note the shares of a model, or of a state dict, as those after ``epoch``."""
        self.epochs.append(epoch)
        self.top1.append(top1)
        for row in spectra_table(source).compared:
            self.layers.setdefault(row.name, []).append(row.median)
            self.random[row.name] = row.random

    def write(self, path: str | os.PathLike[str]) -> None:
        """As JSON."""
        values = {"format": FORMAT, **vars(self), **self.about}
        del values["about"]
        write_atomically(path, json.dumps(values, indent=1).encode())

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> TrainingSpectra:
        """The inverse of :meth:`write`; ValueError for a file that holds something else."""
        with holding("spectra of a training", Path(path)):
            values = read_json(Path(path), FORMAT)
            own = {key: values.pop(key) for key in ("epochs", "top1", "layers", "random")}
            spectra = cls(**own, about=values)
            lengths = {len(spectra.top1), *map(len, spectra.layers.values())}
        if lengths != {len(spectra.epochs)}:
            raise ValueError(f"{path} needs a share of each layer for each epoch")
        return spectra


@dataclass(frozen=True)
class NetworkSpectra:
    """The compared layers of a network, as ``results/spectra/record.py`` writes them.

    ``about`` holds source, licence, date and checksum; ``kernel`` the slices (M, Kh, Kw) of one
    kernel, empty if none was recorded.
    """

    table: SpectraTable
    kernel: list[list[list[float]]]
    about: dict[str, Any]

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> NetworkSpectra:
        """From a JSON file; ValueError for one that holds something else."""
        with holding("spectra of a network", Path(path)):
            values = read_json(Path(path), NETWORK_FORMAT)
            layers = []
            for row in values.pop("layers"):
                layers.append(LayerSpectrum(**row | {"kernel_size": tuple(row["kernel_size"])}))
            table = SpectraTable(tuple(layers), values.pop("center"))
            return cls(table, values.pop("slices"), values)
