"""Tensors that are computed when they are asked for: writing into them would be lost."""

import re
from typing import Any

import torch
from torch import Tensor

WRITING = re.compile(r"[a-z]\w*[^_]_|__(set|setitem|i(add|sub|mul|truediv|floordiv|mod|pow))__")
VIEWING = ("__get__", "__getitem__", "detach", "flatten", "reshape", "view")  # the first is .data


class ReadOnly(Tensor):
    """A tensor like any other, but one that no function writes into, nor into a view of it."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        first = next(iter((*args, *kwargs.values())), None)
        written = first if WRITING.fullmatch(name) else kwargs.get("out")
        if isinstance(written, cls):
            raise RuntimeError(
                "weight of a BSConv layer is computed and needs to be written into the weights of "
                f"its parts, got {name}"
            )
        with torch._C.DisableTorchFunctionSubclass():
            result = func(*args, **kwargs)
            if name in VIEWING and isinstance(result, Tensor) and isinstance(first, cls):
                return result.as_subclass(cls)
        return result
