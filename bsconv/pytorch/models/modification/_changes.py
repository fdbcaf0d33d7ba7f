"""What can happen to a block: it stays, its projection is penalised, or it becomes BSConv-U."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from ..._tools.convs import conv_arguments, memory_format_of
from ..._tools.joining import exact_steps, joined, normed
from ..._tools.model_tree import Place, parameter_count
from ..._tools.obstacles import has_hooks, why_not_plain
from ...initialization import match_variance_
from ...modules import BSConvU
from ...regularization import OrthonormalBasis, OrthonormalConv2d
from ._plan import Action, BlockPlan
from ._recognition import SeparableLayers, is_blueprint_block, read, title


class Change:
    """What happens to one block, which may hang in several places; here nothing."""

    def __init__(self, places: list[Place], action: Action, said: str, **results: Any) -> None:
        self.places, self.block = places, places[0].module
        names, count = tuple(place.name for place in places), parameter_count(self.block)
        sizes = {"parameters_before": count, "parameters_after": count}
        self.plan = BlockPlan(names, title(self.block), action, said, **sizes | results)

    def finish(self) -> None:
        """What remains to be done when the blocks that are replaced have gone."""


class Penalise(Change):
    """The block keeps its layers; its projection gets the penalty (paper, section 4.2)."""

    def __init__(self, places: list[Place], name: str, conv: nn.Conv2d) -> None:
        if peculiar := why_not_plain(conv):
            raise ValueError(f"convolution '{name}' can't be penalised: {peculiar}")
        said = f"projection {name} penalised, basis {conv.out_channels} x {conv.in_channels}"
        super().__init__(places, "penalised", said, projection=name)
        self.conv = conv

    def finish(self) -> None:
        # the same object: its parameters, hooks, and whatever else refers to it stay valid
        self.conv.__class__ = OrthonormalConv2d


class Replace(Change):
    """The block becomes BSConv-U, with the very BatchNorm and activation at its end (4.1)."""

    def __init__(self, places: list[Place], layers: SeparableLayers, init: str) -> None:
        self.layers, self.init = layers, init
        self.projected: BSConvU | None = None
        self.constant: torch.Tensor | None = None  # what it added before its last BatchNorm
        depthwise, _, pointwise, tail = layers
        share, said = None, "becomes BSConv-U with fresh weights"
        if init == "project" and (fresh := why_fresh(layers)):
            said += f", since {fresh}"
        elif init == "project":
            self.projected, self.constant, share = project(layers)
            said = f"becomes BSConv-U, keeps {share:.1%} of the block's linear map"
        blueprints = pointwise.out_channels * depthwise.weight[0].numel()
        after = pointwise.weight.numel() + blueprints + parameter_count(*tail)
        super().__init__(places, "replaced", said, parameters_after=after, share_kept=share)

    def stand_in(self) -> nn.Sequential:
        """What takes the place of the block."""
        depthwise, _, pointwise, tail = self.layers
        arguments = conv_arguments(depthwise) | {"bias": False}
        sides = depthwise.in_channels, pointwise.out_channels
        layer = self.projected or BSConvU(*sides, **arguments)
        if self.init == "matched":
            match_variance_(layer)
        layer.to(depthwise.weight.dtype).to(memory_format=memory_format_of(depthwise.weight))
        for conv, old in ((layer.pw, pointwise), (layer.dw, depthwise)):
            conv.requires_grad_(old.weight.requires_grad).train(old.training)
        new = nn.Sequential(layer, *tail)
        new.training = layer.training = self.block.training
        return new

    def finish(self) -> None:
        """The last BatchNorm learns that the constant is no longer added before it.

        One without running statistics takes it off by itself.
        """
        norm: Any = self.layers.tail[0]
        if self.constant is not None and norm.running_mean is not None:
            norm.running_mean -= self.constant.to(norm.running_mean)


def change_of(model: nn.Module, places: list[Place], init: str) -> Change:
    """What happens to the known block in these places; ValueError if it can't."""
    block = places[0].module
    if is_blueprint_block(block):
        return Change(places, "done", "is BSConv-U already")
    layers = read(block)
    if isinstance(layers, str):
        return Change(places, "kept", f"kept: {layers}")
    names = {module: name for name, module in block.named_modules(prefix=places[0].name)}
    if isinstance(layers, SeparableLayers):
        _check_replaceable(model, places, layers, names)
        return Replace(places, layers, init)
    if isinstance(layers, OrthonormalBasis):
        said = f"projection {names[layers]} is penalised already"
        return Change(places, "done", said, projection=names[layers])
    return Penalise(places, names[layers], layers)


def _check_replaceable(
    model: nn.Module, places: list[Place], layers: SeparableLayers, names: Mapping[nn.Module, str]
) -> None:
    depthwise, _, pointwise, tail = layers
    for conv, groups in ((depthwise, depthwise.in_channels), (pointwise, 1)):
        if peculiar := why_not_plain(conv, groups):
            raise ValueError(f"convolution '{names[conv]}' can't become BSConv-U: {peculiar}")
    block = places[0].module
    staying = {module for kept in tail for module in kept.modules()}
    for module, name in names.items():
        if module not in staying and has_hooks(module, movable=module is not block):
            why = "which can't move into the BSConv-U that its block becomes: remove them first"
            raise ValueError(f"'{name}' has hooks, {why}")
    inside = tuple(f"{place.name}." if place.name else "" for place in places)
    tensors = {id(tensor) for tensor in (*block.parameters(), *block.buffers())}
    for name, module in model.named_modules(remove_duplicate=False):
        all_of_it = module in names  # a layer of the block that hangs elsewhere, too
        used = (*module.parameters(all_of_it), *module.buffers(all_of_it))
        if not f"{name}.".startswith(inside) and not tensors.isdisjoint(map(id, used)):
            why = "which can't go on when it becomes BSConv-U: untie them first"
            raise ValueError(f"block '{names[block]}' shares tensors with '{name}', {why}")


def why_fresh(layers: SeparableLayers) -> str:
    """Why no weights can be projected from the block; empty if they can."""
    depthwise, inner, pointwise, tail = layers
    if depthwise.weight.is_meta:
        return "the model is on the meta device"
    for norm in (inner, tail[0]):
        if norm is not None and not isinstance(norm, nn.modules.batchnorm._BatchNorm):
            return f"it has {type(norm).__name__} in place of BatchNorm"
    if inner is not None and inner.running_mean is None:
        return "its inner BatchNorm has no running statistics"
    linear = nn.ModuleList(filter(None, (depthwise, inner, pointwise)))
    if not all(tensor.isfinite().all() for tensor in linear.state_dict().values()):
        return "its weights are not finite"
    return ""


@torch.no_grad()
def project(layers: SeparableLayers) -> tuple[BSConvU, torch.Tensor, float]:
    """The closest BSConv-U, in float64; what the block adds before its last BatchNorm; the share of
    the sum of squares of the block's dense kernel that BSConv-U keeps.

    Without its inner activation, a block is linear up to its last BatchNorm. The zeros that pad the
    input don't matter, since the constant is added behind the depthwise convolution.
    """
    depthwise, pointwise = exact_steps((layers.depthwise, layers.pointwise))
    if layers.inner_norm is not None:
        depthwise = normed(depthwise, layers.inner_norm)
    dense = joined(depthwise, pointwise)
    constant = dense.weight.new_zeros(()) if dense.bias is None else dense.bias
    dense.bias = None
    layer = BSConvU.from_conv(dense)
    weights, blueprints = layer.pw.weight.flatten(1), layer.dw.weight.flatten(1)
    kept = (weights.square().sum(1) * blueprints.square().sum(1)).sum()
    energy = dense.weight.square().sum()
    return layer, constant, min(float(kept / energy), 1.0) if energy > 0 else 1.0
