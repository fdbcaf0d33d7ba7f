"""The markers ``slow`` and ``nightly``: which tests run, and that a slow one cannot hide.

A test without marker fails if it takes more than 3 CPU seconds or starts a process. A slower
machine gets as much more as a loop takes longer there, measured when a test seems to be slow.
"""

import os
import sys
import time
from collections.abc import Generator

import pytest
import torch

LIMIT = 3.0  # CPU seconds of a test without marker, children included
LOOP = 0.0066  # CPU seconds of `pace`'s loop where LIMIT was chosen
PATIENCE = "BSCONV_TEST_PATIENCE"  # environment: a factor for LIMIT
LIBRARY = 100  # a test that imports as many modules pays for all that come after it
STARTS = {"os.fork", "os.forkpty", "os.posix_spawn", "os.system", "subprocess.Popen"}

started: list[str] = []  # processes, as audit events
sys.addaudithook(lambda event, _: started.append(event) if event in STARTS else None)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--slow",
        choices=["none", "first", "rest", "all"],
        default="all",
        help="slow tests of each file",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "slow: more than 3 CPU seconds, or starts a process")
    config.addinivalue_line("markers", "nightly: for hours at night; runs with -m nightly only")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    at_night, slow = "nightly" in config.getoption("markexpr"), config.getoption("slow")
    files_seen: set[object] = set()

    def runs(item: pytest.Item) -> bool:
        if item.get_closest_marker("nightly"):
            return at_night
        if slow == "all" or not item.get_closest_marker("slow"):
            return True
        which = "rest" if item.path in files_seen else "first"
        files_seen.add(item.path)
        return slow == which

    chosen = [item for item in items if runs(item)]
    config.hook.pytest_deselected(items=list(set(items) - set(chosen)))
    items[:] = chosen


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Fail an unmarked test for what it cost."""
    if any(item.get_closest_marker(name) for name in ("slow", "nightly")):
        return (yield)
    processes, modules, seconds = len(started), len(sys.modules), cpu_seconds()
    result = yield
    seconds = cpu_seconds() - seconds
    if len(sys.modules) >= modules + LIBRARY:
        return result
    if len(started) > processes:
        pytest.fail(f"starts a process ({started[-1]}): mark it slow", pytrace=False)
    if seconds > LIMIT and seconds > (most := limit()):
        message = f"took {seconds:.1f} CPU seconds, of {most:.1f} here: mark it slow"
        pytest.fail(message, pytrace=False)
    return result


def cpu_seconds() -> float:
    """Of this process and of those that it started and that have ended."""
    return sum(os.times()[:4])


def limit() -> float:
    """The CPU seconds of a test without marker on this machine, as busy as it is now."""
    return LIMIT * max(1.0, pace() / LOOP) * float(os.environ.get(PATIENCE, 1))


def pace() -> float:
    """CPU seconds of a loop of what tests do: small convolutions and plain Python."""
    images, weight = torch.ones(4, 16, 16, 16), torch.ones(16, 16, 3, 3)
    seconds = []
    for _ in range(5):
        begin = time.process_time()
        for _ in range(20):
            torch.nn.functional.conv2d(images, weight).sum().item()
            sum(index % 7 for index in range(5000))
        seconds.append(time.process_time() - begin)
    return sorted(seconds)[2]
