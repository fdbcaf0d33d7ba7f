"""A process in which the published package's training script runs, an epoch at a turn.

The script, its DataLoader and its pipeline are as they come. This process watches the
iteration over the training set alone: it waits there for its turn, and measures until the set is
used up.
"""

from __future__ import annotations

import os
import runpy
import sys
import time
from collections.abc import Iterator
from typing import Any

from .published import PEER, SCRIPT, become_published
from .turns import Turns, given_arguments


def main() -> None:
    given = given_arguments()
    turns = Turns()
    turns.wait()
    become_published()
    import torch
    import torchvision
    from torch.utils.data import DataLoader

    cuda = given["device"] == "cuda" or (given["device"] == "auto" and torch.cuda.is_available())
    batches_of: Any = DataLoader.__iter__
    measured: dict[str, float] = {}

    def now() -> float:
        if cuda:
            torch.cuda.synchronize()
        return time.perf_counter()

    def watched(loader: Any) -> Iterator[Any]:
        if not loader.dataset.train:
            yield from batches_of(loader)
            return
        if measured:  # the epoch before, with its test at the end, is over
            turns.report(**measured)
            turns.wait()
        start = now()
        for number, batch in enumerate(batches_of(loader)):
            if number == 0:  # workers have started and the first batch has come: once an epoch
                measured["startup"] = time.perf_counter() - start
            yield batch
        measured["seconds"] = now() - start

    DataLoader.__iter__ = watched  # type: ignore[assignment, method-assign]
    # the folder holds the pixels of the archive, but not its bytes
    cifar: Any = torchvision.datasets.cifar
    cifar.check_integrity = lambda *_, **__: True
    sys.argv = [SCRIPT, "-r", given["folder"], "-d", "cifar10", "-a", given["model"]]
    sys.argv += ["-g", "0" if cuda else "-1", "-b", str(given["batch_size"]), "-e", "1000000"]
    if given["workers"] is not None:
        sys.argv += ["-j", str(given["workers"])]
    os.chdir(given["folder"])  # it leaves a checkpoint in the working directory after each epoch
    runpy.run_path(str(PEER / SCRIPT), run_name="__main__")


if __name__ == "__main__":
    main()
