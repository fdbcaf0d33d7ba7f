"""What every notebook starts with: how big it runs, seeds, threads, figure style, data."""

import os
import platform
import random
import sys
from dataclasses import dataclass
from importlib import metadata
from typing import Any, TypeVar

import numpy as np
import torch

import bsconv

from ..experiments.data import DatasetNotFoundError, ImageDataset, load_dataset
from ..experiments.plotting import use_style

Choice = TypeVar("Choice")
MODES = ("fast", "full", "auto")


@dataclass(frozen=True)
class Session:
    """How big a notebook runs, and where: ``fast``, on the CPU, is stored and compared by tests."""

    mode: str
    device: torch.device

    def pick(self, *, fast: Choice, full: Choice) -> Choice:
        """The value for this session's mode: ``epochs = session.pick(fast=1, full=200)``."""
        return fast if self.mode == "fast" else full


def start(seed: int = 0, threads: int = 2) -> Session:
    """Set the seeds, the threads and the style of the figures; the session says how big to run.

    A fast run always takes ``threads`` threads: sums over another number of them round differently,
    and would not give the notebook's stored outputs.
    """
    session = _session()
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    if session.mode == "fast":
        torch.set_num_threads(threads)
    # PyTorch's default for convolutions keeps three digits, and the notebooks compare five
    torch.backends.cudnn.allow_tf32 = False
    use_style()
    if "ipykernel" in sys.modules:
        from IPython import get_ipython
        from matplotlib_inline.backend_inline import set_matplotlib_formats

        set_matplotlib_formats("retina")  # 200 dpi
        get_ipython().set_custom_exc((Exception,), _show_error)
    return session


def describe(dataset: ImageDataset | None = None) -> None:
    """Print versions, mode and device and, given the data set in use, where its images are from."""
    session = _session()
    used = ("torch", "torchvision", "pytorchcv")
    versions = ", ".join(f"{library} {metadata.version(library)}" for library in used)
    where = f"mode {session.mode}, device {session.device}, {torch.get_num_threads()} threads"
    print(f"bsconv {bsconv.__version__}, {versions}\nPython {platform.python_version()}, {where}")
    if dataset is not None:
        height, width = dataset.image_size
        counts = f"{len(dataset.train_images)} training and {len(dataset.test_images)} test images"
        print(f"data: {dataset.name}, {counts}, {height} x {width}, {dataset.num_classes} classes")


def find_dataset(name: str = "cifar10") -> ImageDataset:
    """The data set ``name`` or, where it can't be had, the synthetic one, with a message."""
    try:
        return load_dataset(name)
    except DatasetNotFoundError as error:
        print(f"SYNTHETIC DATA: {error}.")
        print(f"Going on with the synthetic set: what follows is true of it, not of {name}.")
        return load_dataset("synthetic")


def title_suffix(dataset: ImageDataset) -> str:
    """What titles of figures end in, so that synthetic results never pass for real ones."""
    return " (synthetic data)" if dataset.name == "synthetic" else ""


def _show_error(shell: Any, kind: Any, error: Any, trace: Any, tb_offset: Any = None) -> None:
    """The lines of cells that lead to it, without those of libraries, and the message."""
    *frames, message = shell.InteractiveTB.structured_traceback(kind, error, trace, tb_offset)
    of_cells = [frame for frame in frames if "In[" in frame.partition("\n")[0]]
    shell._showtraceback(kind, error, [*of_cells, message])


def _session() -> Session:
    mode = os.environ.get("BSCONV_MODE") or "auto"
    if mode not in MODES:
        raise ValueError(f"BSCONV_MODE needs to be one of {', '.join(MODES)}, got {mode!r}")
    cuda = torch.cuda.is_available()
    if mode == "auto":
        mode = "full" if cuda else "fast"
    return Session(mode, torch.device("cuda" if cuda and mode == "full" else "cpu"))
