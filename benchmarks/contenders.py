"""Contenders in processes of their own, which stay alive and idle while the others have a turn."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from typing import Any

from .published import ROOT


class ContenderError(RuntimeError):
    """A contender that ended before its turn did."""


class Contender:
    """A process of ``python -m benchmarks.MODULE`` with these arguments.

    It waits for its first turn before it imports or does anything.
    """

    def __init__(self, module: str, threads: int | None = None, **arguments: Any) -> None:
        self.module = module
        self.last: dict[str, Any] = {}
        self.first_seconds: float | None = None  # from nothing to the end of the first turn
        self._log = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115 - closed on exit
        environment = dict(os.environ, PYTHONWARNINGS="ignore", PYTHONUNBUFFERED="1")
        if threads is not None:
            environment["OMP_NUM_THREADS"] = environment["MKL_NUM_THREADS"] = str(threads)
        self._process = subprocess.Popen(
            [sys.executable, "-m", f"benchmarks.{module}", json.dumps(arguments)],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )

    def turn(self) -> dict[str, Any]:
        """What the process reports of its next turn; ContenderError if it fails."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        start = time.perf_counter()
        try:
            self._process.stdin.write("\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            code = self._process.wait()
            self._log.seek(0)
            raise ContenderError(f"{self.module} ended with {code}:\n{self._log.read()[-3000:]}")
        self.last = json.loads(line)
        if self.first_seconds is None:
            self.first_seconds = time.perf_counter() - start
        return self.last

    def __enter__(self) -> Contender:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.communicate(timeout=30)  # closes its stdin: no more turns
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()
        self._log.close()
