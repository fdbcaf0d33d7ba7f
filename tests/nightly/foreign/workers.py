"""Models tried by several processes at once; a process that ends is replaced by another."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import IO, Any, cast

Job = tuple[str, str, str]  # library, model, format of its export or none
ALONE = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive", "PYTHONWARNINGS": "ignore"}


class Worker:
    """One process, ``reliability.foreign.worker``."""

    def __init__(self) -> None:
        self.process = self._started()

    def stop(self) -> int:
        """End the process; its exit status, negative for a signal."""
        self.process.kill()
        with self.process:  # closes the pipes
            return self.process.wait()

    def try_model(self, job: Job) -> dict[str, Any]:
        """What came of one model, and if it is the end of the process."""
        cast(IO[str], self.process.stdin).write(json.dumps(job) + "\n")
        cast(IO[str], self.process.stdin).flush()
        line = cast(IO[str], self.process.stdout).readline()
        if line:
            found: dict[str, Any] = json.loads(line)
            return found
        code = self.stop()
        self.process = self._started()
        library, model, _ = job
        return {"library": library, "model": model, "outcome": f"broken: process ended by {code}"}

    def _started(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "nightly.foreign.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **ALONE},
            text=True,
        )


def try_models(jobs: Sequence[Job], processes: int = 2) -> list[dict[str, Any]]:
    """What came of each, in the order of ``jobs``."""
    free: SimpleQueue[Worker] = SimpleQueue()

    def attempt(job: Job) -> dict[str, Any]:
        worker = free.get()
        try:
            found = worker.try_model(job)
        finally:
            free.put(worker)
        print(f"  {job[0]}:{job[1]}: {found['outcome']}", flush=True)
        return found

    with ThreadPoolExecutor(processes) as threads:
        workers = [Worker() for _ in range(processes)]
        try:
            for worker in workers:
                free.put(worker)
            return list(threads.map(attempt, jobs))
        finally:
            for worker in workers:
                worker.stop()
