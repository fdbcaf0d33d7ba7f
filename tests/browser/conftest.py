"""One browser and one JupyterLab for a process; where they can't be had, one line says why."""

import os
import re
import shutil
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from xdist.scheduler import LoadScopeScheduling

from helpers.paths import ROOT

from .server import jupyterlab

if TYPE_CHECKING:
    from playwright.sync_api import Browser
    from xdist.remote import Producer

    from .lab import LabNotebook

CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
# no window, nothing from the net, and no sandbox, which a container does not allow
OPTIONS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip


# a run that is told to end first ends what it has started, as after Ctrl-C
if threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGTERM, signal.default_int_handler)


class NotebookScheduling(LoadScopeScheduling):
    """All tests of one notebook go to one process, which runs it once."""

    def _split_scope(self, nodeid: str) -> str:
        notebook = re.search(r"\[(\d\d_\w+)", nodeid)
        return notebook[1] if notebook else super()._split_scope(nodeid)


def pytest_xdist_make_scheduler(config: pytest.Config, log: "Producer") -> LoadScopeScheduling:
    return NotebookScheduling(config, log)


@pytest.fixture(scope="session")
def browser() -> Iterator["Browser"]:
    sync_api = pytest.importorskip("playwright.sync_api")
    chromium = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if chromium is None:
        pytest.skip("browser tests need a browser (Debian: apt install chromium)")
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium, args=OPTIONS)
        yield started
        started.close()


@pytest.fixture(scope="session")
def lab(browser: "Browser", tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a JupyterLab that serves a copy of the notebooks and of the records."""
    root = tmp_path_factory.mktemp("lab")
    for name in ("notebooks", "results"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns(".*", "__*"))
    data = os.environ.get("BSCONV_DATA") or str(ROOT / "data")
    variables = {"BSCONV_MODE": "fast", "BSCONV_OFFLINE": "1", "BSCONV_DATA": data}
    with jupyterlab(root, tmp_path_factory.mktemp("lab-own"), **variables) as address:
        yield address


@pytest.fixture(scope="module")
def notebook(request, browser: "Browser", lab: str) -> Iterator["LabNotebook"]:
    """The notebook of the name that the test gives, run to its end."""
    from .lab import LabNotebook

    opened = LabNotebook(browser, lab, f"notebooks/{request.param}.ipynb")
    try:
        opened.run_all()
        yield opened
    finally:
        opened.close()


@pytest.fixture(scope="session")
def screenshots() -> Path:
    """Where pictures of what was tested go, to be looked at."""
    folder = Path(os.environ.get("BSCONV_SCREENSHOTS") or ROOT / ".venv" / "screenshots")
    folder.mkdir(parents=True, exist_ok=True)
    return folder
