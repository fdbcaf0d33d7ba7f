"""What all tests share: seeds, threads, hypothesis profiles, shared data."""

import os
import random
import re
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from hypothesis import register_random, settings

from helpers.paths import ROOT

pytest_plugins = ["helpers.costs", "helpers.reliability", "pytester"]

# one thread unless told otherwise: test processes run side by side
THREADS = int(os.environ.get("OMP_NUM_THREADS") or 1)
torch.set_num_threads(THREADS)

# shells start background jobs with Ctrl-C ignored, and so would be all that the tests start
if threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGINT, signal.default_int_handler)


class TorchRandom:
    """torch's generator as hypothesis wants it, so that each example starts from the same seed."""

    seed = staticmethod(torch.manual_seed)
    getstate = staticmethod(torch.get_rng_state)
    setstate = staticmethod(torch.set_rng_state)


TORCH_RANDOM = TorchRandom()  # hypothesis holds only a weak reference
register_random(TORCH_RANDOM)  # type: ignore[arg-type]
settings.register_profile("default", deadline=None, derandomize=True, max_examples=25)
settings.register_profile("nightly", deadline=None, max_examples=1000, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))

SEED = int(os.environ.get("BSCONV_TEST_SEED") or 0)  # other seeds find tests that hold by luck


def seed_everything() -> None:
    random.seed(SEED)
    np.random.seed(SEED)
    torch.manual_seed(SEED)


def pytest_collectstart(collector: pytest.Collector) -> None:
    """Models that a test file makes when it is imported are the same in every run."""
    if isinstance(collector, pytest.Module):
        seed_everything()


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    """Each test starts from the same seed; a number of threads that it sets ends with it."""
    seed_everything()
    yield
    torch.set_num_threads(THREADS)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of packed CIFAR images and real trained kernels, where this machine has it."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("no ../shared/data on this machine")
    return folder


@pytest.fixture(scope="session")
def cifar10_folder() -> Path:
    """The folder of the real CIFAR-10 archive, where this machine has it."""
    folder = Path(os.environ.get("BSCONV_DATA", ROOT / "data"))
    if not (folder / "cifar10.npz").is_file():
        pytest.skip(f"no cifar10.npz in {folder.name}/: make data fetches it (or BSCONV_DATA)")
    return folder


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test gets at the network."""
    refuse = Mock(side_effect=AssertionError("a test tried to get at the network"))
    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture
def process_group(tmp_path: Path) -> Iterator[None]:
    """Of this process alone."""
    store = f"file://{tmp_path}/store"
    torch.distributed.init_process_group("gloo", init_method=store, rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.fixture
def failure(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs a command that must fail as bad input does; gives its one line on stderr."""

    from bsconv.__main__ import main

    def run(*arguments: object) -> str:
        capsys.readouterr()
        try:
            code: Any = main([str(argument) for argument in arguments])
        except SystemExit as stop:  # argparse
            code = stop.code
        captured = capsys.readouterr()
        assert (code, captured.out) == (2, ""), captured
        assert re.fullmatch(r"bsconv.*\n", captured.err), captured.err
        return captured.err

    return run


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """Runs a command that must succeed; gives what it printed, as ``out`` and ``err``."""

    from bsconv.__main__ import main

    def run(*arguments: object) -> Any:
        capsys.readouterr()
        assert main([str(argument) for argument in arguments]) == 0
        return capsys.readouterr()

    return run
