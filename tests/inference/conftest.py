"""A stopwatch that tests set: what is chosen does not depend on how fast the machine is."""

from typing import Any

import pytest

from bsconv.pytorch.inference import Setting, _choice, _optimize


class Times:
    """Seconds by the name of a layer plan, a memory format or an engine; notes what it was asked.

    "compiled" may be measured twice: with the plans of eager PyTorch, and, "compiled factored",
    with factored ones.
    """

    def __init__(self) -> None:
        self.asked: set[str] = set()
        self.timed: dict[str, Any] = {}
        self.seconds = {"factored": 3.0, "joined": 2.0, "narrow": 4.0, "merged": 2.5}
        self.seconds |= {f"factored, padded to {width}": 5.0 for width in (8, 16)}
        self.seconds |= {f"narrow, padded to {width}": 5.0 for width in (8, 16)}
        self.seconds |= {"contiguous": 2.0, "channels_last": 1.0}
        self.seconds |= {"given": 9.0, "eager": 8.0, "compiled": 7.0, "compiled factored": 7.5}
        self.seconds |= {"onnxruntime": 6.0, "openvino": 6.5}

    def in_turns(self, contenders, device, **options) -> dict[Any, list[float]]:
        for work in contenders.values():
            work()
        names = {key: self._name(key, list(contenders)) for key in contenders}
        self.asked |= set(names.values())
        self.timed |= {names[key]: getattr(work, "func", None) for key, work in contenders.items()}
        return {key: [self.seconds[name]] for key, name in names.items()}

    def _name(self, key: Any, keys: list[Any]) -> str:
        if isinstance(key, Setting):
            return "channels_last" if key.channels_last else "contiguous"
        if isinstance(key, tuple):
            before = [other for other in keys[: keys.index(key)] if other[0] == key[0]]
            return f"{key[0]} factored" if before else str(key[0])
        return str(key)


@pytest.fixture(autouse=True)
def times(monkeypatch: pytest.MonkeyPatch) -> Times:
    found = Times()
    for module in (_choice, _optimize):
        monkeypatch.setattr(module, "in_turns", found.in_turns)
    return found
