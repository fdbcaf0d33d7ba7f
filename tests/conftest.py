"""What all tests share: seeds, threads, hypothesis profiles, the published package, shared data."""

import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import register_random, settings

from helpers.paths import ROOT

pytest_plugins = ["helpers.costs", "pytester"]

PEER = Path(os.environ.get("BSCONV_PEER") or ROOT / ".peer").absolute()

# one thread unless told otherwise: test processes run side by side
torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS") or 1))


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
def seeded() -> None:
    seed_everything()


# Runs in a Python of its own, whose bsconv is the published one and nothing else: the path entry or
# the finder of an editable install would answer for every module that the published one lacks.
RUNNER = """
import sys
peer, project = sys.argv[1:]
sys.meta_path[:] = [f for f in sys.meta_path if "__editable__" not in getattr(f, "__module__", "")]
sys.path[:] = [peer, *(entry for entry in sys.path if entry != project)]
import bsconv
assert bsconv.__path__ == [peer + "/bsconv"], f"not the published package: {bsconv.__path__}"
import torch
arguments = torch.load("arguments.pt", weights_only=True)
exec(compile(open("script.py").read(), "script.py", "exec"))
"""


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """``published(script, *arguments)`` runs a script where ``bsconv`` is the published 0.4.0.

    The script finds its arguments (numbers, strings, tensors, lists and dicts of them) in the list
    ``arguments`` and writes what it found out with ``torch.save(..., "result.pt")``, which is
    returned. Starting it costs seconds: better one script for many cases.
    """
    if not (PEER / "bsconv" / "pytorch").is_dir():
        pytest.skip(f"no published package in {PEER.name}/: make env fetches it (or BSCONV_PEER)")

    def run(script: str, *arguments: Any, timeout: float = 300) -> Any:
        folder = tmp_path_factory.mktemp("published")
        torch.save(list(arguments), folder / "arguments.pt")
        (folder / "script.py").write_text(script)
        # -I: no PYTHONPATH and no working directory on the path
        command = [sys.executable, "-I", "-c", RUNNER, str(PEER), str(ROOT)]
        ended = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=timeout, check=False
        )
        if ended.returncode != 0:
            pytest.fail(f"the script for the published package failed:\n{ended.stderr[-3000:]}")
        if not (folder / "result.pt").is_file():
            pytest.fail("the script for the published package wrote no result.pt")
        return torch.load(folder / "result.pt", weights_only=True)

    return run


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
