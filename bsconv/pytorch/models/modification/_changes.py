"""What can happen to a block: it stays, its projection is penalised, or it becomes BSConv-U."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, cast

from torch import nn

from ..._tools.model_tree import Place, parameter_count
from ..._tools.obstacles import has_hooks, why_not_plain
from ...initialization import match_variance_
from ...modules import BSConvU
from ...regularization import OrthonormalBasis, OrthonormalConv2d
from ._plan import Action, BlockPlan
from ._projection import Projection, as_blueprint_block, project, tensors_of, why_fresh
from ._recognition import SeparableLayers, is_blueprint_block, read, title


class Change:
    """What happens to one block, which may hang in several places; here nothing."""

    projection = ""

    def __init__(self, places: list[Place], action: Action, description: str = "") -> None:
        self.places, self.block = places, places[0].module
        self.action, self.description = action, description

    def check(self, everywhere: Sequence[Place]) -> None:
        """Raises ValueError for a block that can't be changed; ``everywhere`` is the model."""

    def finish(self) -> None:
        """What remains to be done when the blocks that are replaced have gone."""

    def plan(self) -> BlockPlan:
        names, kind = tuple(place.name for place in self.places), title(self.block)
        count = parameter_count(self.block)
        how = self.action, self.description
        return BlockPlan(names, kind, *how, count, count, projection=self.projection)

    def name_of(self, inner: nn.Module) -> str:
        """The full name of a module inside the block."""
        name = next(name for name, module in self.block.named_modules() if module is inner)
        return ".".join(filter(None, (self.places[0].name, name)))


class Penalise(Change):
    """The block keeps its layers; its projection gets the penalty, or has it (section 4.2)."""

    def __init__(self, places: list[Place], conv: nn.Conv2d) -> None:
        super().__init__(places, "penalised")
        self.conv, self.projection = conv, self.name_of(conv)
        basis = f"{conv.out_channels} x {conv.in_channels}"
        self.description = f"projection {self.projection} penalised, basis {basis}"
        if isinstance(conv, OrthonormalBasis):
            self.action = "done"
            self.description = f"projection {self.projection} is penalised already"

    def check(self, everywhere: Sequence[Place]) -> None:
        if self.action == "penalised" and (peculiar := why_not_plain(self.conv)):
            raise ValueError(f"convolution '{self.projection}' can't be penalised: {peculiar}")

    def finish(self) -> None:
        if self.action == "penalised":
            # the same object: its parameters, hooks, and whatever else refers to it stay valid
            self.conv.__class__ = OrthonormalConv2d


class Replace(Change):
    """The block becomes BSConv-U, BatchNorm, activation (paper, section 4.1)."""

    def __init__(self, places: list[Place], layers: SeparableLayers, init: str) -> None:
        super().__init__(places, "replaced")
        self.layers, self.init = layers, init

    @cached_property
    def projected(self) -> Projection | None:
        is_possible = self.init == "project" and not why_fresh(self.layers)
        return project(self.layers) if is_possible else None

    def check(self, everywhere: Sequence[Place]) -> None:
        depthwise, _, pointwise, tail = self.layers
        for conv, groups in ((depthwise, depthwise.in_channels), (pointwise, 1)):
            if peculiar := why_not_plain(conv, groups):
                name = self.name_of(conv)
                raise ValueError(f"convolution '{name}' can't become BSConv-U: {peculiar}")
        staying = {module for kept in tail for module in kept.modules()}
        for module in self.block.modules():
            if module not in staying and has_hooks(module, movable=module is not self.block):
                raise ValueError(
                    f"'{self.name_of(module)}' has hooks, which can't move into the BSConv-U that "
                    "its block becomes: remove them first"
                )
        if sharer := self._sharer(everywhere):
            raise ValueError(
                f"block '{self.name_of(self.block)}' shares tensors with '{sharer}', which can't "
                "go on when it becomes BSConv-U: untie them first"
            )

    def _sharer(self, everywhere: Sequence[Place]) -> str:
        """Where a parameter or buffer of the block is used outside it; empty if nowhere."""
        inside = set(self.block.modules())
        tensors = {id(tensor) for tensor in tensors_of(self.block)}
        for place in everywhere:
            if place.parent in inside or place.module is self.block:
                continue
            # a layer of the block that hangs elsewhere too is not entered there
            used = tensors_of(place.module, recurse=place.module in inside)
            if any(id(tensor) in tensors for tensor in used):
                return place.name
        return ""

    def stand_in(self) -> nn.Sequential:
        """What takes the place of the block."""
        new = as_blueprint_block(self.block, self.layers, self.projected)
        if self.init == "matched":
            match_variance_(cast(BSConvU, new[0]))
        return new

    def finish(self) -> None:
        """The last BatchNorm learns that the constant is no longer added before it.

        One without running statistics takes it off by itself.
        """
        norm: Any = self.layers.tail[0]
        if self.projected is not None and norm.running_mean is not None:
            norm.running_mean -= self.projected.constant.to(norm.running_mean)

    def plan(self) -> BlockPlan:
        depthwise, _, pointwise, tail = self.layers
        blueprints = pointwise.out_channels * depthwise.weight[0].numel()
        after = pointwise.weight.numel() + blueprints + parameter_count(*tail)
        share, said = None, "becomes BSConv-U with fresh weights"
        if self.projected is not None:
            share = self.projected.share_kept
            said = f"becomes BSConv-U, keeps {share:.1%} of the block's linear map"
        elif self.init == "project":
            said += f", since {why_fresh(self.layers)}"
        return replace(super().plan(), description=said, parameters_after=after, share_kept=share)


def change_of(places: list[Place], init: str) -> Change:
    """What happens to the known block in these places."""
    block = places[0].module
    if is_blueprint_block(block):
        return Change(places, "done", "is BSConv-U already")
    layers = read(block)
    if isinstance(layers, str):
        return Change(places, "kept", f"kept: {layers}")
    if isinstance(layers, nn.Conv2d):
        return Penalise(places, layers)
    return Replace(places, layers, init)
