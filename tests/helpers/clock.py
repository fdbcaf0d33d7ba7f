"""A clock that tests set, in place of the stopwatch's own."""

import itertools
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from bsconv.basics import timing


class Clock:
    """Stands still but when told; notes in ``events`` when it is read."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        self.events: list[str] = []
        monkeypatch.setattr(timing, "time", SimpleNamespace(perf_counter=self.read))
        monkeypatch.setattr(timing, "synchronize", lambda device: self.events.append(str(device)))

    def read(self) -> float:
        self.events.append("clock")
        return self.now

    def takes(self, name: str, *seconds: float) -> Callable[[], None]:
        """Work that takes so many seconds, call by call, and the last of them from then on."""
        left = itertools.chain(seconds, itertools.repeat(seconds[-1]))

        def work() -> None:
            self.events.append(name)
            self.now += next(left)

        return work
