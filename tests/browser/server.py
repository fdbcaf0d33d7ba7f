"""A JupyterLab of its own, which leaves nothing behind: no file, no process."""

import contextlib
import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil

SECONDS = 120  # to start, and to end
NO_NEWS = {"fetchNews": "false", "checkForUpdates": False}  # else a pop-up asks


@contextlib.contextmanager
def jupyterlab(root: Path, folder: Path, **variables: str) -> Iterator[str]:
    """The address of a JupyterLab that serves ``root``; what it writes of its own is in ``folder``.

    It takes nothing from the user's settings, and its end is the end of its kernels. These find
    ``variables`` in their environment.
    """
    settings = folder / "settings"
    news = settings / "@jupyterlab" / "apputils-extension" / "notification.jupyterlab-settings"
    news.parent.mkdir(parents=True)
    news.write_text(json.dumps(NO_NEWS))
    own = {f"JUPYTER_{name}_DIR": str(folder / name) for name in ("CONFIG", "DATA", "RUNTIME")}
    command = [
        sys.executable,
        "-m",
        "jupyterlab",
        "--no-browser",
        "--ServerApp.ip=127.0.0.1",
        "--ServerApp.port=0",  # whichever is free
        f"--ServerApp.root_dir={root}",
        "--ServerApp.allow_root=True",
        "--IdentityProvider.token=",
        "--LabApp.expose_app_in_browser=True",
        f"--LabApp.user_settings_dir={settings}",
        f"--LabApp.workspaces_dir={folder / 'workspaces'}",
    ]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("JUPYTER")}
    log = folder / "log"
    with log.open("w") as file:
        server = subprocess.Popen(
            command, env={**kept, **own, **variables}, stdin=subprocess.DEVNULL, stdout=file,
            stderr=file,
        )  # fmt: skip
    try:
        yield _address(server, folder / "RUNTIME" / f"jpserver-{server.pid}.json", log)
    finally:
        _end(server)


def _address(server: subprocess.Popen[bytes], note: Path, log: Path) -> str:
    """What the server wrote down as its address, once it answers there."""
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        with contextlib.suppress(OSError, json.JSONDecodeError):  # not there yet, or not whole
            address = json.loads(note.read_text())["url"].rstrip("/")
            urllib.request.urlopen(f"{address}/api/status", timeout=10).close()
            return address
        time.sleep(0.1)
    raise RuntimeError(f"JupyterLab did not start:\n{log.read_text()[-3000:]}")


def _end(server: subprocess.Popen[bytes]) -> None:
    """End the server, which ends its kernels; then whatever of them would not end."""
    started = psutil.Process(server.pid).children(recursive=True) if server.poll() is None else []
    server.terminate()
    _, alive = psutil.wait_procs([psutil.Process(server.pid), *started], timeout=SECONDS)
    for process in alive:
        process.kill()
    server.wait()
