"""The face that all engines share."""

import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

GRID = 8  # engines compute channels in blocks of so many, or of twice as many
Tensors = Any  # a tensor, or tuples, lists and dictionaries of such


class Setting(NamedTuple):
    """How numbers are stored while a network is computed."""

    dtype: torch.dtype
    channels_last: bool = False


class Runner:
    """A network in an engine; inputs and outputs are in the dtype of the caller.

    What lives in memory only, in ``_live``, stays out of copies and pickles, and is made again.
    """

    _live: Any = None
    any_size = False  # whether what is right for some sizes is right for all that are larger

    def serves(self, input: Tensor) -> bool:
        """Whether it takes an input of this shape, dtype and device."""
        return True

    def __call__(self, input: Tensor) -> Tensors:
        """What the network returns. Raises whatever the engine does where it cannot compute it."""
        raise NotImplementedError

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_live": None}


class Engine(ABC):
    """One way to run networks."""

    name: ClassVar[str]
    packages: ClassVar[tuple[str, ...]] = ()
    extra: ClassVar[str] = ""
    dtypes: ClassVar[tuple[torch.dtype, ...]] = ()  # none for all
    grids: ClassVar[tuple[int, ...]] = ()  # multiples of one of them may be fast as channel counts
    measures_layers: ClassVar[bool] = True  # as fast alone as in a whole network

    def missing(self) -> str:
        """The packages to install, and how; empty where all are there."""
        absent = [name for name in self.packages if importlib.util.find_spec(name) is None]
        return f"needs {', '.join(absent)}: pip install 'bsconv[{self.extra}]'" if absent else ""

    def runs_on(self, device: torch.device) -> bool:
        """Asked where its packages are there."""
        return True

    def why_not(self, device: torch.device, dtype: torch.dtype) -> str:
        """Why it cannot compute in ``dtype`` on ``device``, in one line; empty if it can."""
        if missing := self.missing():
            return missing
        if self.dtypes and dtype not in self.dtypes:
            known = " and ".join(map(dtype_name, self.dtypes))
            return f"computes in {known}, not in {dtype_name(dtype)}"
        return "" if self.runs_on(device) else f"does not run on {device.type} as installed here"

    @abstractmethod
    def build(self, model: nn.Module, example: Tensor, setting: Setting) -> Runner:
        """``model``, in eval mode and left as it is, for inputs like ``example``; may raise."""

    @abstractmethod
    def build_layer(
        self, layer: nn.Module, images: Tensor, setting: Setting
    ) -> Callable[[], object] | None:
        """One call of a layer plan, to be measured; None where the engine cannot tell."""


def dtype_of(model: nn.Module) -> torch.dtype:
    """That of its first floating-point tensor."""
    tensors = (t.dtype for t in (*model.parameters(), *model.buffers()) if t.is_floating_point())
    return next(tensors, torch.get_default_dtype())


def dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def in_dtype(output: Tensors, computed: torch.dtype, dtype: torch.dtype) -> Tensors:
    """``output`` with the tensors that are in ``computed`` in ``dtype``."""
    if computed == dtype:
        return output
    cast = lambda tensor: tensor.to(dtype) if tensor.dtype == computed else tensor  # noqa: E731
    return pytree.tree_map_only(Tensor, cast, output)


def difference(found: list[Tensor], expected: list[Tensor]) -> float:
    """The largest, relative to the largest number of that tensor; NaN for what is not finite."""
    worst = 0.0
    for one, other in zip(found, expected, strict=True):
        if one.shape != other.shape:
            return float("inf")
        gap = (one.double() - other.double()).abs()
        if one.numel() and not gap.max() <= 0:  # NaN too
            worst = max((gap.max() / other.double().abs().max()).item(), worst)
    return worst
