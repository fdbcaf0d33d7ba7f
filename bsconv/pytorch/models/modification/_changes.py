"""What can happen to a block: it stays, its projection is penalised, or it becomes BSConv-U."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import cast

from torch import nn

from ..._tools.model_tree import Place, parameter_count
from ..._tools.obstacles import has_hooks, why_not_plain
from ...initialization import match_variance_
from ...modules import BSConvU
from ...regularization import OrthonormalConv2d
from ._plan import Action, BlockPlan
from ._projection import (
    Projection,
    absorb,
    as_blueprint_block,
    parameters_after,
    project,
    tensors_of,
    why_fresh,
)
from ._recognition import SeparableLayers, title


class Change:
    """What happens to one block, which may hang in several places; here nothing."""

    action: Action = "kept"
    projection = ""

    def __init__(self, places: list[Place], description: str = "") -> None:
        self.places = places
        self.block = places[0].module
        self.description = description

    def check(self, everywhere: Sequence[Place]) -> None:
        """Raises ValueError for a block that can't be changed; ``everywhere`` is the model."""

    def finish(self) -> None:
        """What remains to be done when the blocks that are replaced have gone."""

    def plan(self) -> BlockPlan:
        return BlockPlan(
            names=tuple(place.name for place in self.places),
            kind=title(self.block),
            action=self.action,
            description=self.description,
            parameters_before=parameter_count(self.block),
            parameters_after=parameter_count(self.block),
            projection=self.projection,
        )

    def name_of(self, inner: nn.Module) -> str:
        """The full name of a module inside the block."""
        name = next(name for name, module in self.block.named_modules() if module is inner)
        return ".".join(filter(None, (self.places[0].name, name)))


class Done(Change):
    """The block is BSConv already."""

    action = "done"

    def __init__(self, places: list[Place], projection: nn.Module | None = None) -> None:
        super().__init__(places, "is BSConv-U already")
        if projection is not None:
            self.projection = self.name_of(projection)
            self.description = f"projection {self.projection} is penalised already"


class Penalise(Change):
    """The block keeps its layers; its projection gets the penalty (paper, section 4.2)."""

    action = "penalised"

    def __init__(self, places: list[Place], conv: nn.Conv2d) -> None:
        super().__init__(places)
        self.conv = conv
        self.projection = self.name_of(conv)
        basis = f"{conv.out_channels} x {conv.in_channels}"
        self.description = f"projection {self.projection} penalised, basis {basis}"

    def check(self, everywhere: Sequence[Place]) -> None:
        if peculiar := why_not_plain(self.conv):
            raise ValueError(f"convolution '{self.projection}' can't be penalised: {peculiar}")

    def finish(self) -> None:
        # the same object: its parameters, hooks, and whatever else refers to it stay valid
        self.conv.__class__ = OrthonormalConv2d


class Replace(Change):
    """The block becomes BSConv-U, BatchNorm, activation (paper, section 4.1)."""

    action = "replaced"

    def __init__(self, places: list[Place], layers: SeparableLayers, init: str) -> None:
        super().__init__(places)
        self.layers = layers
        self.init = init

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
        if self.projected is not None:
            absorb(self.layers.tail[0], self.projected.constant)

    def plan(self) -> BlockPlan:
        share, said = None, "becomes BSConv-U with fresh weights"
        if self.projected is not None:
            share = self.projected.share_kept
            said = f"becomes BSConv-U, keeps {share:.1%} of the block's linear map"
        elif self.init == "project":
            said += f", since {why_fresh(self.layers)}"
        after = parameters_after(self.layers)
        return replace(super().plan(), description=said, parameters_after=after, share_kept=share)
