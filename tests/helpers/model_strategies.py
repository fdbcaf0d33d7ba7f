"""Models as people might write them, for hypothesis: nested, shared, odd; and replacers for them.

All layers keep what they are asked to map, channels to channels of images (N, C, H, W), so that any
may follow any other. What a model has in it is listed in ``Example.features``.
"""

import random
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

from bsconv.pytorch import BSConvS, BSConvS_Replacer, BSConvU, BSConvU_Replacer
from bsconv.pytorch.regularization import OrthonormalConv2d
from helpers.odd_layers import (
    Branches,
    Listed,
    OtherDimensions,
    Patched,
    Residual,
    Sealed,
    Standardized,
    Steps,
    Tied,
    WithMixin,
    WithRegLoss,
    count_after,
    count_backward,
    count_before,
    keep_gradient,
    keep_state,
)

WIDTHS = (1, 3, 4, 6, 8, 12, 16, 16)
HALF = (torch.float16, torch.bfloat16)
WHOLE = (torch.float32, torch.float64)
DTYPES = {
    "any": (torch.float32,) * 4 + (torch.float64, *HALF),
    "half precision": HALF,
    "parametrised": WHOLE,  # torch has no such arithmetic in half precision
}


@dataclass
class Example:
    """A model, a replacer for it and images for it; ``odd`` are layers that have to stay."""

    model: nn.Module
    replacer: BSConvU_Replacer | BSConvS_Replacer
    images: Tensor
    features: set[str]
    odd: list[nn.Module] = field(default_factory=list)

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """What hypothesis shows of it."""
        layers = ", ".join(f"{n or '(root)'}: {type(m).__name__}" for n, m in walk(self.model))
        printer.text(f"{self.replacer}, images {tuple(self.images.shape)}, {layers}")


def walk(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Every name that leads to a module, of which each is entered once, parents first."""
    entered = set()
    waiting = [("", model)]
    while waiting:
        name, module = waiting.pop()
        yield name, module
        if id(module) not in entered:
            entered.add(id(module))
            prefix = f"{name}." if name else ""
            inside = [(prefix + key, m) for key, m in module._modules.items() if m is not None]
            waiting += reversed(inside)


def is_plain(module: nn.Module) -> bool:
    """Whether it is a dense convolution whose weight is its own parameter."""
    return type(module) is nn.Conv2d and module.groups == 1 and "weight" in module._parameters


# --------------------------------------------------------------------------------------- building


class Builder:
    """Draws a model, layer by layer, in which there is what is ``wanted``, one of ``FEATURES``."""

    def __init__(self, draw: Callable[[Any], Any], wanted: str) -> None:
        self.draw = draw
        self.wanted = wanted
        self.features: set[str] = set()
        self.odd: list[nn.Module] = []
        self.made: dict[tuple[int, int], list[nn.Module]] = {}
        self.dtype = self.one_of(*DTYPES.get(wanted, DTYPES["any"]))
        self.device = "cpu"
        if self.wants("meta", 8):
            self.device = "meta"
        if self.dtype.itemsize == 2:
            self.features.add("half precision")

    def one_of(self, *choices: Any) -> Any:
        return self.draw(st.sampled_from(choices))

    def chance(self, one_in: int) -> bool:
        return self.draw(st.integers(1, one_in)) == one_in

    def wants(self, feature: str, one_in: int) -> bool:
        """Whether the model gets a feature that is as rare as that where it is not wanted."""
        wanted = self.wanted == feature or self.chance(one_in)
        self.features |= {feature} if wanted else set()
        return wanted

    # ------------------------------------------------------------------------------- convolutions

    def conv(self, m: int, n: int, conv_class: Any = nn.Conv2d, **fixed: Any) -> nn.Module:
        kernel = self.one_of(3, 3, 3, 3, 5, (3, 3), 1, (1, 3), 7)
        height, width = (kernel, kernel) if isinstance(kernel, int) else kernel
        dilation = self.one_of(1, 1, 1, 2)
        half = (dilation * (height - 1) // 2, dilation * (width - 1) // 2)
        stride = self.one_of(1, 1, 1, 2)
        options = {
            "kernel_size": kernel,
            "stride": stride,
            "dilation": dilation,
            "padding": self.one_of(half, half, half, 0, "same" if stride == 1 else half),
            "padding_mode": self.one_of("zeros", "zeros", "zeros", "replicate", "reflect"),
            "bias": self.draw(st.booleans()),
            "device": self.device,
            "dtype": self.dtype,
        } | fixed
        return conv_class(m, n, **options)

    def plain(self, m: int, n: int) -> nn.Module:
        return self.conv(m, n)

    def with_a_shared_weight(self, m: int, n: int) -> nn.Module | None:
        earlier = [c for c in self.made.get((m, n), ()) if is_plain(c)]
        if not earlier:
            return None
        first = self.one_of(*earlier)
        second = self.conv(m, n, kernel_size=first.kernel_size, padding=0, bias=False)
        second.weight = first.weight
        if self.draw(st.booleans()):
            second.bias = first.bias
        return second

    def tied(self, m: int, n: int) -> nn.Module | None:
        earlier = [c for c in self.made.get((m, n), ()) if is_plain(c)]
        return Tied(self.one_of(*earlier)) if earlier else None

    def again(self, m: int, n: int) -> nn.Module | None:
        earlier = self.made.get((m, n))
        return self.one_of(*earlier) if earlier else None

    def odd_conv(self, kind: str, m: int, n: int) -> nn.Module | None:
        layer = ODD[kind](self, m, n)
        if layer is not None:
            self.features.add(kind)
            self.odd += [module for module in layer.modules() if "Conv" in type(module).__name__]
        return layer

    def grouped(self, m: int, n: int) -> nn.Module | None:
        shared = [g for g in (2, 3, 4, 6, 8) if m % g == n % g == 0]
        return self.conv(m, n, groups=self.one_of(*shared)) if shared else None

    def subclass(self, m: int, n: int) -> nn.Module:
        if self.draw(st.booleans()):
            return self.conv(m, n, Standardized)
        return self.conv(m, n, OrthonormalConv2d, kernel_size=1, padding=0)

    def parametrised(self, m: int, n: int) -> nn.Module | None:
        if self.dtype not in WHOLE:
            return None
        parametrise = self.one_of(parametrizations.weight_norm, parametrizations.spectral_norm)
        return parametrise(self.conv(m, n))

    def pruned(self, m: int, n: int) -> nn.Module:
        return prune.l1_unstructured(self.conv(m, n), "weight", 0.5)

    def lazy(self, m: int, n: int) -> nn.Module:
        return nn.LazyConv2d(n, 3, padding=1, device=self.device, dtype=self.dtype)

    def scripted(self, m: int, n: int) -> nn.Module:
        return torch.jit.script(nn.Sequential(self.conv(m, n), nn.ReLU()))

    def patched(self, m: int, n: int) -> nn.Module:
        conv = self.conv(m, n)
        conv.forward = Patched(conv)
        return conv

    def of_another_dtype(self, m: int, n: int) -> nn.Module | None:
        if not self.wants("of another dtype", 9):
            return None  # rare, as no model with it can be run
        return self.conv(m, n).to(self.one_of(torch.complex64, torch.float8_e4m3fn))

    def other_dimensions(self, m: int, n: int) -> nn.Module:
        options = {"padding": 1, "device": self.device, "dtype": self.dtype}
        conv_class = self.one_of(nn.Conv1d, nn.Conv3d, nn.ConvTranspose2d)
        conv = conv_class(m, n, 3, **options)
        return conv if conv_class is nn.ConvTranspose2d else OtherDimensions(conv)

    def blueprint(self, m: int, n: int) -> nn.Module:
        return self.conv(m, n, self.one_of(BSConvU, BSConvS))

    # ------------------------------------------------------------------------- layers and parents

    def layer(self, m: int, n: int, kind: str = "") -> nn.Module:
        """A layer of some kind, or a plain one where these channels or the dtype don't allow it."""
        kind = kind or self.one_of(*["plain"] * 5, *ODD, *REUSED, *REUSED)
        if kind in ODD:
            layer = self.odd_conv(kind, m, n)
        else:
            layer = REUSED[kind](self, m, n) if kind in REUSED else None
            self.features |= {kind} if layer is not None else set()
        layer = self.plain(m, n) if layer is None else layer
        self.made.setdefault((m, n), []).append(layer)
        if kind == "plain" and self.chance(3):
            norm = nn.BatchNorm2d(n, device=self.device, dtype=self.dtype)
            return nn.Sequential(layer, norm, nn.ReLU())
        return layer

    def tree(self, depth: int, m: int, n: int) -> nn.Module:
        if depth == 0:
            return self.layer(m, n)
        kind = self.one_of(*PARENTS)
        if kind == "sealed parent" and not self.wants(kind, 3):
            kind = "ModuleList"
        return self.parent(kind, depth, m, n)

    def parent(self, kind: str, depth: int, m: int, n: int) -> nn.Module:
        count = self.draw(st.integers(1, 3))
        widths = [m, *(self.one_of(*WIDTHS, m) for _ in range(count - 1)), n]
        if kind == "ModuleDict":  # all of them see the same images
            widths = [m] * count + [n]
        steps = []
        for i in range(count):
            ends = n if kind == "ModuleDict" else widths[i + 1]
            steps.append(self.tree(self.draw(st.integers(0, depth - 1)), widths[i], ends))
        self.features.add(kind)
        return PARENTS[kind](steps)

    def root(self, m: int, n: int) -> nn.Module:
        wanted = self.wanted
        kind = wanted if wanted in ROOTS else self.one_of(*["tree"] * 15, *ROOTS)
        if wanted not in ROOTS and kind in ("root convolution", "fx"):
            kind = "tree"  # in which there is room for what is wanted
        if kind != "tree":
            self.features.add(kind)
        if kind == "root convolution":
            return self.plain(m, n)
        if kind == "fx":
            return torch.fx.symbolic_trace(nn.Sequential(self.plain(m, n), nn.ReLU()))
        top = wanted if wanted in PARENTS else self.one_of(*PARENTS)
        model = self.parent(top, self.one_of(1, 2, 2, 3), m, n)
        if wanted in MODEL_WIDE or self.draw(st.booleans()):  # something that can be replaced
            model = Steps([model, self.layer(n, n, "plain")])
        if wanted in (*ODD, *REUSED) and wanted not in self.features:
            model = Steps([model, self.layer(n, n, "plain"), self.layer(n, n, wanted)])
        return ROOTS[kind](model) if kind in ROOTS else model

    # ------------------------------------------------------------------------------ on the whole

    def some(self, feature: str, things: list[Any]) -> list[Any]:
        """Some or all of them, or, where that is not wanted, mostly none."""
        share = self.one_of(0.5, 1) if self.wanted == feature else self.one_of(0, 0, 0.5, 1)
        chosen = random.Random(self.draw(st.integers(0, 999)))
        found = [thing for thing in things if chosen.random() < share]
        if self.wanted == feature and not found:
            found = things[:1]
        self.features |= {feature} if found else set()
        return found

    def finish(self, model: nn.Module) -> nn.Module:
        """Flags, hooks, formats and circles of a built model."""
        modules = list({id(module): module for _, module in walk(model)}.values())
        eager = [module for module in modules if not isinstance(module, torch.jit.ScriptModule)]
        convs = [m for m in modules if type(m) is nn.Conv2d and not m.weight.is_complex()]
        there = [p for p in model.parameters() if not nn.parameter.is_lazy(p)]
        for parameter in self.some("frozen", there):
            parameter.requires_grad_(False)
        for module in self.some("partly in eval mode", eager):
            module.training = False
        for conv in self.some("channels_last", convs):
            conv.to(memory_format=torch.channels_last)
        for module in self.some("hooked", eager):
            module.register_forward_pre_hook(count_before)
            module.register_forward_hook(count_after, with_kwargs=True)
            if type(module) is nn.Conv2d:
                module.register_full_backward_hook(count_backward)
        if convs and self.wants("hooks that can't move", 15):
            conv = self.one_of(*convs)
            if self.draw(st.booleans()) or not conv.weight.requires_grad:
                conv.register_state_dict_post_hook(keep_state)
            else:
                conv.weight.register_hook(keep_gradient)
        parents = [module for module in modules if isinstance(module, (Steps, Branches))]
        if parents and self.wants("cyclic", 10):
            self.one_of(*parents).add_module("back", self.one_of(model, *parents))
        return model


ODD: dict[str, Callable[[Builder, int, int], nn.Module | None]] = {
    "grouped": Builder.grouped,
    "subclass": Builder.subclass,
    "parametrised": Builder.parametrised,
    "pruned": Builder.pruned,
    "lazy": Builder.lazy,
    "scripted": Builder.scripted,
    "patched forward": Builder.patched,
    "of another dtype": Builder.of_another_dtype,
    "1-D, 3-D, transposed": Builder.other_dimensions,
    "BSConv already": Builder.blueprint,
}
REUSED: dict[str, Callable[[Builder, int, int], nn.Module | None]] = {
    "shared module": Builder.again,
    "shared weight": Builder.with_a_shared_weight,
    "weight of another kind of layer too": Builder.tied,
}
PARENTS: dict[str, Callable[[list[nn.Module]], nn.Module]] = {
    "ModuleList": Steps,
    "ModuleDict": Branches,
    "Sequential": lambda layers: nn.Sequential(*layers),
    "residual": lambda layers: Residual(*layers),
    "layers in a plain list too": Listed,
    "sealed parent": lambda layers: Sealed(*layers),
}
ROOTS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "root convolution": lambda model: model,
    "fx": lambda model: model,
    "DataParallel": nn.DataParallel,
    "own reg_loss": lambda model: WithRegLoss([model]),
    "mixin": lambda model: WithMixin([model]),
}
MODEL_WIDE = (
    "frozen",
    "partly in eval mode",
    "hooked",
    "hooks that can't move",
    "channels_last",
    "half precision",
    "meta",
    "cyclic",
)
FEATURES = (*ODD, *REUSED, *PARENTS, *ROOTS, *MODEL_WIDE)


@st.composite
def replacers(draw: Any, names: list[str]) -> BSConvU_Replacer | BSConvS_Replacer:
    sizes = st.lists(st.sampled_from([3, 5, 7, 1, (3, 3), (1, 3)]), min_size=1, max_size=3)
    some_sizes = draw(st.sampled_from([False, False, False, True]))
    patterns = [*names, *(f"{name}*" for name in names if "[" not in name), "*.0"]
    some_excluded = draw(st.sampled_from([False, False, False, False, True]))
    settings: dict[str, Any] = {
        "kernel_sizes": draw(st.one_of(st.none(), sizes)) if some_sizes else ((3, 3), (5, 5)),
        "with_bn": draw(st.booleans()),
        "bn_kwargs": draw(st.sampled_from([None, {"eps": 0.01}, {"affine": False}])),
        "init": draw(st.sampled_from(["default", "matched", "project"])),
        "exclude": draw(st.lists(st.sampled_from(patterns), max_size=2)) if some_excluded else (),
    }
    if draw(st.booleans()):
        return BSConvU_Replacer(**settings)
    shares = st.one_of(
        st.floats(0, 1), st.fractions(0, 1, max_denominator=16), st.sampled_from([0, 0.25])
    )
    share: float | Fraction = draw(shares)
    return BSConvS_Replacer(
        **settings, p=share, min_mid_channels=draw(st.sampled_from([0, 1, 4, 5]))
    )


@st.composite
def examples(draw: Any, wanted: str) -> Example:
    """A model in which there is what is wanted, with a replacer and images for it."""
    builder = Builder(draw, wanted)
    widths = (4, 6, 8, 16) if wanted == "grouped" else WIDTHS
    m, n = builder.one_of(*WIDTHS), builder.one_of(*widths)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, that scripted and quantised layers are old
        model = builder.finish(builder.root(m, n))
    names = [name for name, _ in walk(model) if name]
    size = builder.one_of((2, m, 9, 8), (2, m, 12, 12), (3, m, 6, 7))
    return Example(
        model,
        draw(replacers(names)),
        torch.randn(size, dtype=builder.dtype, device=builder.device),
        builder.features,
        builder.odd,
    )
