"""Questions about single layers: their arguments, padding, memory format, number of channels."""

import copy
import math
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from numbers import Integral, Real
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

Conv = nn.Conv1d | nn.Conv2d | nn.Conv3d
BatchNorm = nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d
CONVS, BATCH_NORMS = get_args(Conv), get_args(BatchNorm)  # by the number of dimensions - 1
PLAIN = {*CONVS, *BATCH_NORMS}
CONVOLUTIONS = (*CONVS, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
IntOrTuple = int | tuple[int, ...]
GEOMETRY = ("kernel_size", "stride", "padding", "dilation", "padding_mode")
PaddingMode = Literal["zeros", "reflect", "replicate", "circular"]
REMOVERS = {  # of hooks of these classes, which compute a tensor from others
    "torch.nn.utils.weight_norm.WeightNorm": "remove_weight_norm",
    "torch.nn.utils.spectral_norm.SpectralNorm": "remove_spectral_norm",
    "torch.nn.utils.prune.BasePruningMethod": "prune.remove",
}


def check_sizes(layer: str, dimensions: int = 1, **sizes: Any) -> None:
    """Raises ValueError unless each is a number from 1 on (padding: 0), or one a dimension."""
    for name, size in sizes.items():
        sides = tuple(size) if isinstance(size, (tuple, list)) else (size,)
        least = 0 if name == "padding" else 1
        numbers = all(isinstance(side, Integral) and int(side) >= least for side in sides)
        if not numbers or len(sides) not in (1, dimensions):
            several = f", {dimensions} at most" if len(sides) > 1 else ""
            raise ValueError(f"{layer} needs {name} >= {least}{several}, got {name}={size!r}")


def mid_channels(in_channels: int, p: float | Fraction, min_mid_channels: int = 4) -> int:
    """M' = min(M, max(min_mid_channels, ceil(p * M))) for M input channels (paper, section 3).

    Exact: a float ``p`` is read as the simple fraction it was meant to be, so p = 7/12 of 12
    channels is 7. Raises ValueError for a share or a lower limit that no BSConv-S can have.
    """
    check_sizes("BSConv-S", in_channels=in_channels)
    if not isinstance(p, Real) or not 0 <= p <= 1:
        raise ValueError(
            f"BSConv-S needs 0 <= p <= 1, the share of input channels kept, got p={p!r}"
        )
    if not isinstance(min_mid_channels, int) or min_mid_channels < 0:
        raise ValueError(
            "BSConv-S needs min_mid_channels >= 0, the least number of channels in the middle, "
            f"got min_mid_channels={min_mid_channels!r}"
        )
    share = p if isinstance(p, Fraction) else Fraction(float(p)).limit_denominator(10_000)
    return min(in_channels, max(min_mid_channels, math.ceil(share * in_channels), 1))


def checked_sizes(
    kernel_sizes: Sequence[IntOrTuple], dimensions: Sequence[int]
) -> tuple[tuple[int, ...], ...]:
    """Kernel sizes as tuples, ints as pairs; ValueError for what is not a sequence of sizes."""
    rule = "kernel_sizes needs a sequence of ints or tuples of ints, each at least 1"
    sizes = []
    for given in kernel_sizes if isinstance(kernel_sizes, Iterable) else [()]:
        many: tuple[Any, ...] = tuple(given) if isinstance(given, Iterable) else (given, given)
        size = tuple(int(side) for side in many if isinstance(side, Integral) and int(side) >= 1)
        if len(size) not in (2, *dimensions) or len(size) < len(many):
            raise ValueError(f"{rule}, got kernel_sizes={kernel_sizes!r}")
        sizes.append(size)
    return tuple(sizes)


def conv_arguments(conv: Conv) -> dict[str, Any]:
    """The geometry of ``conv``, and where its weights live, as keyword arguments."""
    geometry = {name: getattr(conv, name) for name in GEOMETRY}
    place = {"device": conv.weight.device, "dtype": conv.weight.dtype}
    return geometry | place | {"bias": conv.bias is not None}


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
    hooks: Iterable[Any] = module._forward_pre_hooks.values()
    for hook in hooks:
        kinds = (f"{kind.__module__}.{kind.__name__}" for kind in type(hook).__mro__)
        for remover in (REMOVERS[kind] for kind in kinds if kind in REMOVERS):
            yield getattr(hook, "name", None) or hook._tensor_name, remover, hook


def why_computed(module: nn.Module) -> str:
    """Which tensors of ``module`` are computed from other ones, and what undoes that."""
    found: dict[str, str] = {}
    if parametrize.is_parametrized(module):
        tables = module.get_submodule("parametrizations").named_children()
        found = {name: "remove_parametrizations" for name, _ in tables}
    found |= {name: remover for name, remover, _ in computing_hooks(module)}
    if not found:
        return ""
    removers = " and ".join(dict.fromkeys(found.values()))
    return f"parametrised ({', '.join(found)}), which {removers} undoes"


def present_weight(layer: nn.Module) -> Tensor:
    """The weight that ``layer`` would compute with in eval mode, which hooks set in each call."""
    if hooks := [hook for name, _, hook in computing_hooks(layer) if name == "weight"]:
        layer = copy.copy(layer).train(False)
        for hook in hooks:
            hook(layer, ())
    weight: Any = layer.weight
    return weight
