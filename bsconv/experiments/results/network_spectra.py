"""Recorded spectra of networks whose weights are not here, and one of their kernels."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...pytorch.spectra import LayerSpectrum, SpectraTable
from ..files.json_files import holding, read_json

__all__ = ["NetworkSpectra"]

FORMAT = "bsconv network spectra 1"


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
            values = read_json(Path(path), FORMAT)
            layers = [
                row | {"kernel_size": tuple(row["kernel_size"])} for row in values.pop("layers")
            ]
            table = SpectraTable(
                tuple(LayerSpectrum(**layer) for layer in layers), values.pop("center")
            )
            return cls(table, values.pop("slices"), values)
