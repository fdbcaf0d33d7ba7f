"""Questions about single layers: their arguments, padding, memory format, number of channels."""

import copy
import math
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from numbers import Integral, Real
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor, nn
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

Conv = nn.Conv1d | nn.Conv2d | nn.Conv3d
BatchNorm = nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d
CONVS, BATCH_NORMS = get_args(Conv), get_args(BatchNorm)  # by the number of dimensions - 1
PLAIN = {*CONVS, *BATCH_NORMS}
CONVOLUTIONS = (*CONVS, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
IntOrTuple = int | tuple[int, ...]
GEOMETRY = ("kernel_size", "stride", "padding", "dilation", "padding_mode")
SIZES = ("in_channels", "out_channels", *GEOMETRY[:4], "blueprints", "min_mid_channels")
PaddingMode = Literal["zeros", "reflect", "replicate", "circular"]
REMOVERS: dict[Any, str] = {  # of hooks that compute a tensor from others
    WeightNorm: "remove_weight_norm",
    SpectralNorm: "remove_spectral_norm",
    BasePruningMethod: "prune.remove",
}


def is_size(value: Any, least: int = 1) -> bool:
    return not isinstance(value, bool) and isinstance(value, Integral) and int(value) >= least


def check_sizes(layer: str, kind: type = nn.Conv1d, /, *sizes: Any, **options: Any) -> None:
    """Raises ValueError unless sizes of a ``kind`` are whole numbers from 1, or one a dimension."""
    dimensions = [issubclass(kind, conv) for conv in CONVS].index(True) + 1
    for name, size in (dict(zip(SIZES[:6], sizes, strict=False)) | options).items():
        least = 0 if name in ("padding", "min_mid_channels") else 1
        sides = tuple(size) if isinstance(size, (tuple, list)) else (size,)
        by_name = name == "padding" and isinstance(size, str)  # such as "same"
        fits = len(sides) in (1, dimensions) and all(is_size(side, least) for side in sides)
        if name in SIZES and not by_name and not fits:
            several = f", {dimensions} at most" if len(sides) > 1 else ""
            raise ValueError(f"{layer} needs {name} >= {least}{several}, got {name}={size!r}")


def check_shape(name: str, meaning: str, tensor: Tensor, *dimensions: int) -> None:
    """Raises ValueError unless ``tensor`` has so many dimensions, none of them of length 0."""
    if tensor.dim() not in dimensions or not tensor.numel():
        raise ValueError(f"{name} needs shape {meaning}, sides >= 1, got shape {(*tensor.shape,)}")


def mid_channels(in_channels: int, p: float | Fraction, min_mid_channels: int = 4) -> int:
    """M' = min(M, max(min_mid_channels, ceil(p * M))), 7 for M = 12 and p = 7/12 as a float."""
    check_sizes("BSConv-S", in_channels=in_channels, min_mid_channels=min_mid_channels)
    if isinstance(p, bool) or not isinstance(p, Real) or not 0 <= p <= 1:
        raise ValueError(f"BSConv-S needs 0 <= p <= 1, the share of input channels kept, got {p=}")
    share = p if isinstance(p, Fraction) else Fraction(float(p)).limit_denominator(10_000)
    return min(in_channels, max(min_mid_channels, math.ceil(share * in_channels), 1))


def checked_sizes(kernel_sizes: Any, dimensions: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    """Kernel sizes as tuples, ints as pairs; ValueError for what is not a sequence of sizes."""
    sizes = []
    kernel_sizes = kernel_sizes.tolist() if hasattr(kernel_sizes, "tolist") else kernel_sizes
    for given in kernel_sizes if isinstance(kernel_sizes, Iterable) else [()]:
        many: tuple[Any, ...] = tuple(given) if isinstance(given, Iterable) else (given, given)
        size = tuple(int(side) for side in many if is_size(side))
        if len(size) not in (2, *dimensions) or len(size) < len(many):
            rule = "a sequence of ints or tuples of ints, each at least 1"
            raise ValueError(f"kernel_sizes needs {rule}, got {kernel_sizes=}")
        sizes.append(size)
    return tuple(sizes)


def conv_arguments(conv: Conv) -> dict[str, Any]:
    """The geometry of ``conv``, and where its weights live, as keyword arguments."""
    place = {"device": conv.weight.device, "dtype": conv.weight.dtype}
    geometry = {name: getattr(conv, name) for name in GEOMETRY}
    return {**geometry, **place, "bias": conv.bias is not None}


def memory_format_of(weight: Tensor) -> torch.memory_format:
    """Read from the strides, since is_contiguous can't tell the two apart where a side is 1."""
    contiguous = torch.empty(weight.shape, device="meta")
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    last = formats.get(weight.dim(), torch.contiguous_format)
    is_last = weight.stride() == contiguous.to(memory_format=last).stride() != contiguous.stride()
    return last if is_last else torch.contiguous_format


def with_ones(tensor: Tensor, dimensions: int) -> Tensor:
    """``tensor`` with as many sides of length one at its end as it lacks of ``dimensions``."""
    return tensor.view(*tensor.shape, *(1,) * (dimensions - tensor.dim()))


def pads_with_zeros(conv: Conv) -> bool:
    if conv.padding_mode != "zeros" or conv.padding == "valid":
        return False
    if conv.padding == "same":
        return any(d * (k - 1) > 0 for d, k in zip(conv.dilation, conv.kernel_size, strict=True))
    return any(padding != 0 for padding in conv.padding)


def computing_hooks(module: nn.Module) -> Iterator[tuple[str, str, Any]]:
    """Hooks that compute tensors of ``module`` in each call: the name, what undoes it, the hook."""
    for hook in module._forward_pre_hooks.values():
        for kind, remover in REMOVERS.items():
            if isinstance(hook, kind):
                yield getattr(hook, "name", None) or hook._tensor_name, remover, hook


def why_computed(module: nn.Module) -> str:
    """Which tensors of ``module`` are computed from other ones, and what undoes that."""
    tables: Any = module._modules.get("parametrizations", {})  # of torch.nn.utils.parametrize
    found = dict.fromkeys(tables, "remove_parametrizations")
    found |= {name: remover for name, remover, _ in computing_hooks(module)}
    removers = " and ".join(dict.fromkeys(found.values()))
    return f"parametrised ({', '.join(found)}), which {removers} undoes" if found else ""


def present_weight(layer: nn.Module) -> Tensor:
    """The weight that ``layer`` would compute with in eval mode, which hooks set in each call."""
    if hooks := [hook for name, _, hook in computing_hooks(layer) if name == "weight"]:
        layer = copy.copy(layer).train(False)
        for hook in hooks:
            hook(layer, ())
    return cast(Tensor, layer.weight)
