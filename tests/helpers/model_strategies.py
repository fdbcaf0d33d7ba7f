"""Models as people might write them, for hypothesis: nested, shared, odd; and replacers for them.

Layers map m channels of images (N, C, H, W) to n channels, so that any may follow any other.
"""

import random
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

from bsconv.pytorch import BSConvS, BSConvS_Replacer, BSConvU, BSConvU_Replacer
from bsconv.pytorch.regularization import OrthonormalConv2d
from helpers import odd_layers
from helpers.model_snapshots import walk

WIDTHS = (1, 3, 4, 6, 8, 12, 16, 16)
HALF = (torch.float16, torch.bfloat16)


@dataclass
class Example:
    """A model, a replacer for it and images for it; ``odd`` are layers that have to stay."""

    model: nn.Module
    replacer: BSConvU_Replacer | BSConvS_Replacer
    images: Tensor
    odd: list[nn.Module] = field(default_factory=list)

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """What hypothesis shows of it."""
        layers = ", ".join(f"{n or '(root)'}: {type(m).__name__}" for n, m in walk(self.model))
        printer.text(f"{self.replacer}, images {tuple(self.images.shape)}, {layers}")


class Builder:
    def __init__(self, draw: Callable[[Any], Any]) -> None:
        self.draw = draw
        self.odd: list[nn.Module] = []
        self.made: dict[tuple[int, int], list[nn.Module]] = {}
        self.dimensions = self.one_of(*[(2,)] * 3, (1, 2, 3), (1, 2), (3,))
        self.dtype = self.one_of(*[torch.float32] * 4, torch.float64, *HALF)
        self.device = self.one_of(*["cpu"] * 7, "meta")

    def one_of(self, *choices: Any) -> Any:
        return self.draw(st.sampled_from(choices))

    def chance(self, one_in: int) -> bool:
        return self.draw(st.integers(1, one_in)) == one_in

    # --- convolutions -----------------------------------------------------------------------------

    def conv(self, m: int, n: int, conv_class: Any = nn.Conv2d, **fixed: Any) -> nn.Module:
        kernel = self.one_of(3, 3, 3, 3, 5, (3, 3), 1, (1, 3), 7)
        height, width = (kernel, kernel) if isinstance(kernel, int) else kernel
        dilation = self.one_of(1, 1, 1, 2)
        half = (dilation * (height - 1) // 2, dilation * (width - 1) // 2)
        stride = self.one_of(1, 1, 1, 2)
        options = {
            "kernel_size": kernel, "stride": stride, "dilation": dilation,
            "padding": self.one_of(half, half, half, 0, "same" if stride == 1 else half),
            "padding_mode": self.one_of("zeros", "zeros", "zeros", "replicate", "reflect"),
            "bias": self.draw(st.booleans()), "device": self.device, "dtype": self.dtype,
        } | fixed  # fmt: skip
        return conv_class(m, n, **options)

    def grouped(self, m: int, n: int) -> nn.Module | None:
        shared = [g for g in (2, 3, 4, 6, 8) if m % g == n % g == 0]
        return self.conv(m, n, groups=self.one_of(*shared)) if shared else None

    def subclass(self, m: int, n: int) -> nn.Module:
        if self.draw(st.booleans()):
            return self.conv(m, n, odd_layers.Standardized)
        return self.conv(m, n, OrthonormalConv2d, kernel_size=1, padding=0)

    def parametrised(self, m: int, n: int) -> nn.Module | None:
        if self.dtype in HALF:  # torch has no such arithmetic
            return None
        parametrise = self.one_of(parametrizations.weight_norm, parametrizations.spectral_norm)
        return parametrise(self.conv(m, n))

    def pruned(self, m: int, n: int) -> nn.Module:
        return prune.l1_unstructured(self.conv(m, n), "weight", 0.5)

    def lazy(self, m: int, n: int) -> nn.Module:
        return self.conv(m, n, lambda m, n, **options: nn.LazyConv2d(n, **options))

    def scripted(self, m: int, n: int) -> nn.Module:
        return torch.jit.script(nn.Sequential(self.conv(m, n), nn.ReLU()))

    def patched(self, m: int, n: int) -> nn.Module:
        conv = self.conv(m, n)
        conv.forward = odd_layers.Patched(conv)
        return conv

    def of_another_dtype(self, m: int, n: int) -> nn.Module | None:
        if not self.chance(4):
            return None  # rare, as no model with it can be run
        return self.conv(m, n).to(self.one_of(torch.complex64, torch.float8_e4m3fn))

    def of_other_dimensions(self, m: int, n: int) -> nn.Module | None:
        if self.dtype in HALF:  # what torch computes there is not finite at times
            return None
        options = {"padding": 1, "device": self.device, "dtype": self.dtype}
        conv_class = self.one_of(nn.Conv1d, nn.Conv3d, nn.ConvTranspose2d)
        conv = conv_class(m, n, 3, **options)
        return conv if conv_class is nn.ConvTranspose2d else odd_layers.OtherDimensions(conv)

    def blueprint(self, m: int, n: int) -> nn.Module:
        return self.conv(m, n, self.one_of(BSConvU, BSConvS))

    # --- layers that share ------------------------------------------------------------------------

    def earlier(self, m: int, n: int) -> list[nn.Module]:
        """Dense convolutions whose weight is their own parameter."""
        made = self.made.get((m, n), [])
        plain = [c for c in made if type(c) is nn.Conv2d and c.groups == 1]
        return [c for c in plain if "weight" in c._parameters]

    def with_a_shared_weight(self, m: int, n: int) -> nn.Module | None:
        if not self.earlier(m, n):
            return None
        first = self.one_of(*self.earlier(m, n))
        second = self.conv(m, n, kernel_size=first.kernel_size, padding=0, bias=False)
        second.weight = first.weight
        if self.draw(st.booleans()):
            second.bias = first.bias
        return second

    def tied(self, m: int, n: int) -> nn.Module | None:
        return odd_layers.Tied(self.one_of(*self.earlier(m, n))) if self.earlier(m, n) else None

    def again(self, m: int, n: int) -> nn.Module | None:
        made = self.made.get((m, n))
        return self.one_of(*made) if made else None

    # --- layers, parents, the model ---------------------------------------------------------------

    def layer(self, m: int, n: int) -> nn.Module:
        """A layer of some kind, or a plain one where these channels or the dtype don't allow it."""
        others = [Builder.of_other_dimensions] * 4 * (self.dimensions != (2,))
        make = self.one_of(*[Builder.conv] * 5, *others, *ODD, *REUSED, *REUSED)
        layer = make(self, m, n)
        if make in ODD and layer is not None:
            self.odd += [
                module
                for module in layer.modules()
                if "Conv" in type(module).__name__ and not self.may_go(module)
            ]
        layer = self.conv(m, n) if layer is None else layer
        self.made.setdefault((m, n), []).append(layer)
        if make is Builder.conv and self.chance(3):
            norm = nn.BatchNorm2d(n, device=self.device, dtype=self.dtype)
            return nn.Sequential(layer, norm, nn.ReLU())
        return layer

    def may_go(self, layer: nn.Module) -> bool:
        """Whether an odd layer is only odd by its dimensions, which the replacer takes."""
        dimensions = {nn.Conv1d: 1, nn.Conv3d: 3}.get(type(layer))
        return dimensions in self.dimensions

    def tree(self, depth: int, m: int, n: int) -> nn.Module:
        if depth == 0:
            return self.layer(m, n)
        parent = self.one_of(*PARENTS, *PARENTS, odd_layers.Sealed)
        count = self.draw(st.integers(1, 3))
        widths = [m, *(self.one_of(*WIDTHS, m) for _ in range(count - 1)), n]
        # all branches see the same images
        starts = [m] * count if parent is odd_layers.Branches else widths
        ends = [n] * count if parent is odd_layers.Branches else widths[1:]
        depths = [self.draw(st.integers(0, depth - 1)) for _ in range(count)]
        return parent([self.tree(*each) for each in zip(depths, starts, ends, strict=False)])

    def root(self, m: int, n: int) -> nn.Module:
        if self.chance(20):
            return self.conv(m, n)
        if self.chance(20):
            return torch.fx.symbolic_trace(nn.Sequential(self.conv(m, n), nn.ReLU()))
        model = self.tree(self.one_of(1, 2, 2, 3), m, n)
        if self.draw(st.booleans()):  # something that can be replaced
            model = odd_layers.Steps([model, self.conv(n, n)])
        return self.one_of(*ROOTS)(model) if self.chance(4) else model

    # --- flags, hooks, formats and circles --------------------------------------------------------

    def some(self, things: list[Any]) -> list[Any]:
        share = self.one_of(0, 0, 0.5, 1)
        chosen = random.Random(self.draw(st.integers(0, 999)))
        return [thing for thing in things if chosen.random() < share]

    def finish(self, model: nn.Module) -> nn.Module:
        modules = list({id(module): module for _, module in walk(model)}.values())
        eager = [module for module in modules if not isinstance(module, torch.jit.ScriptModule)]
        convs = [m for m in modules if type(m) is nn.Conv2d and not m.weight.is_complex()]
        for parameter in self.some([p for p in model.parameters() if not nn.parameter.is_lazy(p)]):
            parameter.requires_grad_(False)
        for module in self.some(eager):
            module.training = False
        for conv in self.some(convs):
            conv.to(memory_format=torch.channels_last)
        for module in self.some(eager):
            module.register_forward_pre_hook(odd_layers.COUNT_BEFORE)
            module.register_forward_hook(odd_layers.COUNT_AFTER, with_kwargs=True)
            if type(module) is nn.Conv2d:
                module.register_full_backward_hook(odd_layers.COUNT_BACKWARD)
        if convs and self.chance(15):  # hooks that can't move
            conv = self.one_of(*convs)
            if self.draw(st.booleans()) or not conv.weight.requires_grad:
                conv.register_state_dict_post_hook(odd_layers.keep)
            else:
                conv.weight.register_hook(odd_layers.keep)
        parents = [
            module
            for module in modules
            if isinstance(module, (odd_layers.Steps, odd_layers.Branches))
        ]
        if parents and self.chance(10):
            self.one_of(*parents).add_module("back", self.one_of(model, *parents))
        return model


ODD = (
    Builder.grouped, Builder.subclass, Builder.parametrised, Builder.pruned, Builder.lazy,
    Builder.scripted, Builder.patched, Builder.of_another_dtype, Builder.of_other_dimensions,
    Builder.blueprint,
)  # fmt: skip
REUSED = (Builder.again, Builder.with_a_shared_weight, Builder.tied)
PARENTS: tuple[Callable[[list[nn.Module]], nn.Module], ...] = (
    odd_layers.Steps, odd_layers.Branches, odd_layers.Listed,
    lambda layers: nn.Sequential(*layers), odd_layers.Residual,
)  # fmt: skip
ROOTS: tuple[Callable[[nn.Module], nn.Module], ...] = (
    nn.DataParallel,
    lambda model: odd_layers.WithRegLoss([model]),
    lambda model: odd_layers.WithMixin([model]),
)


@st.composite
def replacers(
    draw: Any, names: list[str], dimensions: tuple[int, ...]
) -> BSConvU_Replacer | BSConvS_Replacer:
    sizes = st.lists(st.sampled_from([3, 5, 7, 1, (3, 3), (1, 3)]), min_size=1, max_size=3)
    some_sizes = draw(st.sampled_from([False, False, False, True]))
    patterns = [*names, *(f"{name}*" for name in names if "[" not in name), "*.0"]
    some_excluded = draw(st.sampled_from([False, False, False, False, True]))
    settings: dict[str, Any] = {
        "kernel_sizes": draw(st.one_of(st.none(), sizes)) if some_sizes else ((3, 3), (5, 5)),
        "with_bn": draw(st.booleans()),
        "bn_kwargs": draw(st.sampled_from([None, {"eps": 0.01}, {"affine": False}])),
        "init": draw(st.sampled_from(["default", "matched", "project"])),
        "dimensions": dimensions,
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
def examples(draw: Any) -> Example:
    """A model with a replacer and images for it."""
    builder = Builder(draw)
    m, n = builder.one_of(*WIDTHS), builder.one_of(*WIDTHS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, that scripted layers are old
        model = builder.finish(builder.root(m, n))
    names = [name for name, _ in walk(model) if name]
    size = builder.one_of((2, m, 9, 8), (2, m, 12, 12), (3, m, 6, 7))
    images = torch.randn(size, dtype=builder.dtype, device=builder.device)
    return Example(model, draw(replacers(names, builder.dimensions)), images, builder.odd)
