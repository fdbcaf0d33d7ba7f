"""Recorded spectra of networks whose weights are not here, and one of their kernels."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ...pytorch.spectra import LayerSpectrum, SpectraTable
from ..files.checkpoints import write_atomically
from ..files.json_files import holding, read_json

__all__ = ["NetworkSpectra"]

FORMAT = "bsconv network spectra 1"


@dataclass
class NetworkSpectra:
    """The compared layers of a network, and in ``about`` its source, licence, date and checksum.

    ``kernel`` holds the slices (M, Kh, Kw) of one kernel, rounded to four decimals, if it was
    recorded; ``about["kernel"]`` says which one it is.
    """

    table: SpectraTable
    about: dict[str, Any] = field(default_factory=dict)
    kernel: list[list[list[float]]] | None = None

    def write(self, path: str | os.PathLike[str]) -> None:
        """As JSON, a line for each layer and slice; the file is written whole or not at all."""
        values = {"format": FORMAT, **self.about, "center": self.table.center}
        heads = [f" {json.dumps(key)}: {json.dumps(value)}" for key, value in values.items()]
        layers = [
            {key: value for key, value in asdict(row).items() if value != ""}
            for row in self.table.compared
        ]
        parts: dict[str, list[Any]] = {"layers": layers, "slices": self.kernel or []}
        for key, rows in parts.items():
            lines = ",\n".join(f"  {json.dumps(_rounded(row))}" for row in rows)
            heads.append(f" {json.dumps(key)}: [\n{lines}\n ]")
        write_atomically(path, ("{\n" + ",\n".join(heads) + "\n}\n").encode())

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> NetworkSpectra:
        """The inverse of :meth:`write`; ValueError for a file that holds something else."""
        with holding("spectra of a network", Path(path)):
            values = read_json(Path(path), FORMAT)
            rows = [
                LayerSpectrum(**row | {"kernel_size": tuple(row["kernel_size"])})
                for row in values.pop("layers")
            ]
            table = SpectraTable(tuple(rows), values.pop("center"))
            return cls(table, kernel=values.pop("slices") or None, about=values)


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(inner) for inner in value]
    return round(value, 4) if isinstance(value, float) else value
