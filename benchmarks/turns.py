"""The end of a contender's process that takes its turns when told; see contenders.py.

Imports nothing but the standard library: which bsconv is imported is decided later.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any


class Turns:
    """One line on stdin starts a turn, one line of JSON on stdout ends it.

    Whatever else is printed goes to stderr.
    """

    def __init__(self) -> None:
        self._reports = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)

    def wait(self) -> None:
        """Until it is this process's turn; SystemExit when there are no more turns."""
        if not sys.stdin.readline():
            raise SystemExit(0)

    def report(self, **figures: float | str) -> None:
        print(json.dumps(figures), file=self._reports, flush=True)


def given_arguments() -> dict[str, Any]:
    """The arguments of this process, one JSON object."""
    arguments: dict[str, Any] = json.loads(sys.argv[1])
    return arguments


def stopwatch(function: Callable[[], object]) -> float:
    """Seconds that one call takes; for processes that may run the published package."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start
