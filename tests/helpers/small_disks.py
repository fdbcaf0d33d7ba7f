"""A disk of its own for a test, where this user may mount one."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest


@contextlib.contextmanager
def mounted(folder: Path, kibibytes: int) -> Iterator[Callable[[str], None]]:
    """A disk of that size at ``folder``, and how to mount it with other options."""
    folder.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={kibibytes}k", "tmpfs", str(folder)]
    try:
        may = subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        may = False
    if not may:
        pytest.skip("mounting a disk takes root on Linux")

    def remount(options: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)

    try:
        yield remount
    finally:
        subprocess.run(["umount", str(folder)], check=True)
