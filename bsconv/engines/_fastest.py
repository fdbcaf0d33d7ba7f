"""Networks and their layers in whichever engine runs a given network the fastest."""

from collections.abc import Callable, Mapping
from functools import partial

from torch import Tensor, nn

from ..basics.timing import SETTLE, in_turns, medians
from ._engine import Engine, Setting, dtype_of

SECONDS = 0.5  # of measuring for each engine
Prepare = Callable[..., Callable[[], object]]


def in_fastest(engines: Mapping[str, Engine], model: nn.Module, images: Tensor) -> Prepare:
    """Makes what runs a module once, in the engine that is the fastest for ``model``."""
    setting = Setting(dtype_of(model))
    calls: dict[str, Callable[[], object]] = {}
    for name, engine in engines.items():
        if engine.measures_layers and not engine.why_not(images.device, setting.dtype):
            try:
                calls[name] = partial(engine.build(model, images, setting), images)
            except Exception:  # of the many that engines raise
                continue
    budget = SECONDS * len(calls)
    seconds = medians(in_turns(calls, images.device, budget=budget, settle=SETTLE))
    name = min(seconds, key=seconds.__getitem__)
    fastest, call = engines[name], calls[name]  # the others go out of memory

    def prepare(module: nn.Module, inputs: Tensor) -> Callable[[], object]:
        if module is model:
            return call
        layer = fastest.build_layer(module, inputs, setting)
        return layer or partial(fastest.build(module, inputs, setting), inputs)

    return prepare
