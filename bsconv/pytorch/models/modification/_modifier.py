"""Turn a MobileNet or EfficientNet of any known library into its BSConv form (paper, section 4)."""

from collections import Counter
from collections.abc import Iterable

from torch import nn

from ..._tools.model_tree import Place, check_unwrapped, exchange, parameter_count, places
from ...modules import BSConvS, BSConvU
from ...regularization import OrthonormalBasis, attach_reg_loss, check_reg_loss
from ._changes import Change, Done, Penalise, Replace
from ._plan import ModificationPlan
from ._recognition import SeparableLayers, is_blueprint_block, is_known, known, read, title


def modify_mobilenet(model: nn.Module, *, init: str = "project", verbosity: int = 0) -> nn.Module:
    """Turns ``model`` into its BSConv form, in place, and returns it (paper, section 4).

    Blocks of MobileNetV1 become BSConv-U (section 4.1). Those of MobileNetV2, MobileNetV3 and
    EfficientNet keep their layers, parameters and outputs; their projecting 1x1 convolution becomes
    an :class:`bsconv.pytorch.regularization.OrthonormalConv2d`, which
    ``loss += model.reg_loss(alpha=0.1)`` penalises (section 4.2). For the arguments, the errors and
    the known blocks see :class:`MobileNetModifier`, whose ``plan`` says beforehand what happens.
    """
    return MobileNetModifier(init=init, verbosity=verbosity).apply(model)


class MobileNetModifier:
    """Turns MobileNets and EfficientNets into their BSConv form: :func:`modify_mobilenet`.

    It recognises the blocks of MobileNetV1, V2, V3 and EfficientNet of this package, torchvision,
    pytorchcv and timm, anywhere in a model.

    Args:
        init: how the BSConv-U layers in blocks of MobileNetV1 start. "project": from the block's
            weights. Without its inner activation it is a linear map up to its last BatchNorm; the
            blueprint kernel closest to that is taken, and the report says what share it keeps.
            "default": with fresh weights, as do blocks whose weights can't be projected. "matched":
            with fresh weights that keep the variance, as in :class:`BSConvU_Replacer`.
        verbosity: what ``apply`` prints: 0 nothing, 1 one line, 2 a line for each block.

    Raises ValueError for another ``init``.
    """

    report: ModificationPlan | None = None

    def __init__(self, *, init: str = "project", verbosity: int = 0) -> None:
        if init not in ("default", "matched", "project"):
            raise ValueError(
                f"init needs to be 'default', 'matched' or 'project', got init={init!r}"
            )
        self.init = init
        self.verbosity = verbosity

    def __repr__(self) -> str:
        return f"{type(self).__name__}(init={self.init!r}, verbosity={self.verbosity!r})"

    def plan(self, model: nn.Module) -> ModificationPlan:
        """What :meth:`apply` would do to ``model``, block by block; changes nothing.

        Raises ValueError and TypeError where ``apply`` would refuse.
        """
        return _plan_of(model, self._changes(model))

    def apply(self, model: nn.Module) -> nn.Module:
        """Does what :meth:`plan` says, in place, and returns the model; all or nothing.

        A block of MobileNetV1 becomes a Sequential of BSConv-U and the block's own last BatchNorm
        and activation, under its name; device, dtype, memory format, ``training``, requires_grad
        and the hooks of the block stay. Its convolutions have new parameters: make the optimiser
        afterwards. All other blocks keep their parameters, as the same objects, so their outputs
        are the same bit for bit. The model gets the method ``reg_loss``, and ``report`` holds what
        was done. A second call changes nothing, and the report says so.

        Raises ValueError, before anything changes, for a model without a known block; for a
        convolution to be changed that is parametrised, or of a subclass of Conv2d; for a block of
        MobileNetV1 that shares weights with others, or has hooks inside; for a model in
        DistributedDataParallel, or with a ``reg_loss`` of another kind. Raises TypeError for
        anything but a torch.nn.Module.
        """
        changes = self._changes(model)
        report = _plan_of(model, changes)
        replaced = [change for change in changes if isinstance(change, Replace)]
        stand_ins = {id(change.block): change.stand_in() for change in replaced}
        where = [place for change in replaced for place in change.places]
        model = exchange(model, where, stand_ins, attach_reg_loss)
        for change in changes:
            change.finish()
        self.report = report
        if self.verbosity >= 1:
            print(report if self.verbosity >= 2 else report.summary)
        return model

    def _changes(self, model: nn.Module) -> list[Change]:
        """What happens to each known block; an error if the model must not be touched."""
        if not isinstance(model, nn.Module):
            raise TypeError(f"model needs to be a torch.nn.Module, got {type(model).__name__}")
        check_unwrapped(model)
        check_reg_loss(model)
        everywhere = list(places(model, leaves=(BSConvU, BSConvS)))
        changes = [self._change(block_places) for block_places in _blocks(everywhere)]
        if all(change.action == "kept" for change in changes):
            raise ValueError(
                f"{type(model).__name__} has no block that modify_mobilenet can change"
                f"{_reasons(changes)}; it knows the blocks of {known()}"
            )
        for change in changes:
            change.check(everywhere)
        return changes

    def _change(self, block_places: list[Place]) -> Change:
        block = block_places[0].module
        if is_blueprint_block(block):
            return Done(block_places)
        layers = read(block)
        if isinstance(layers, SeparableLayers):
            return Replace(block_places, layers, self.init)
        if isinstance(layers, str):
            return Change(block_places, f"kept: {layers}")
        if isinstance(layers.projection, OrthonormalBasis):
            return Done(block_places, layers.projection)
        return Penalise(block_places, layers.projection)


def _blocks(everywhere: Iterable[Place]) -> list[list[Place]]:
    """The places of each known block; blocks inside known blocks do not count."""
    found: dict[int, list[Place]] = {}
    inside: tuple[str, ...] = ()
    for place in everywhere:
        if id(place.module) in found:
            found[id(place.module)].append(place)
        elif is_known(place.module) and not place.name.startswith(inside):
            found[id(place.module)] = [place]
            inside = (*inside, f"{place.name}." if place.name else "")
    return list(found.values())


def _plan_of(model: nn.Module, changes: Iterable[Change]) -> ModificationPlan:
    blocks = tuple(change.plan() for change in changes)
    before = parameter_count(model)
    change = sum(block.parameters_after - block.parameters_before for block in blocks)
    return ModificationPlan(blocks, before, before + change)


def _reasons(changes: Iterable[Change]) -> str:
    reasons = Counter(f"{title(change.block)}, {change.description}" for change in changes)
    listed = "; ".join(f"{count} x {reason}" for reason, count in reasons.most_common(3))
    return f" ({listed})" if listed else ""
