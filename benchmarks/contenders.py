"""Contenders in processes of their own, which stay alive and idle while the others have a turn."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from typing import Any, cast

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


def seconds_in_turns(
    contenders: Mapping[str, Contender],
    rounds: int,
    seconds_of: Callable[[dict[str, Any]], float] = lambda figures: float(figures["seconds"]),
) -> dict[str, list[float]]:
    """What ``seconds_of`` reads in the report of each turn; a first turn warms up."""
    import torch

    from bsconv.basics.timing import in_turns

    turns = {name: contender.turn for name, contender in contenders.items()}
    return in_turns(
        turns,
        torch.device("cpu"),  # each process waits for its own device
        rounds=rounds,
        seconds_of=lambda turn: seconds_of(cast("dict[str, Any]", turn())),
    )


def run_in_turns(
    module: str, contenders: Mapping[str, Mapping[str, Any]], rounds: int, threads: int | None
) -> tuple[dict[str, list[float]], dict[str, str]]:
    """Seconds of the processes of ``benchmarks.MODULE`` with these arguments, and their notes."""
    with contextlib.ExitStack() as processes:
        running = {
            name: processes.enter_context(Contender(module, threads, **given))
            for name, given in contenders.items()
        }
        seconds = seconds_in_turns(running, rounds)
        notes = {name: one.last["how"] for name, one in running.items() if "how" in one.last}
    return seconds, notes
