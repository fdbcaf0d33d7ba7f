"""Turn a MobileNet or EfficientNet of any known library into its BSConv form (paper, section 4)."""

from collections import Counter

from torch import nn

from ..._tools.model_tree import Place, check_changeable, exchange, parameter_count, places
from ...modules import BLUEPRINT_LAYERS
from ...regularization import attach_reg_loss, check_reg_loss
from ._changes import Change, Replace, change_of
from ._plan import ModificationPlan
from ._recognition import is_known, known


def modify_mobilenet(model: nn.Module, *, init: str = "project", verbosity: int = 0) -> nn.Module:
    """Turns ``model`` into its BSConv form, in place, and returns it (paper, section 4).

    Arguments and errors are those of :class:`MobileNetModifier`, whose ``apply`` this is.

    >>> model = modify_mobilenet(get_model("cifar_mobilenetv2_w1", num_classes=10))
    >>> loss = model.reg_loss(alpha=0.1)
    """
    return MobileNetModifier(init=init, verbosity=verbosity).apply(model)


class MobileNetModifier:
    """Turns MobileNets and EfficientNets into their BSConv form, with a plan and a report.

    It knows the blocks of this package, torchvision, pytorchcv and timm, anywhere in a model. Those
    of MobileNetV1 become BSConv-U (paper, section 4.1). Those of MobileNetV2, V3 and EfficientNet
    keep their layers, parameters and outputs; their projecting 1x1 convolution becomes an
    :class:`bsconv.pytorch.regularization.OrthonormalConv2d`, which
    ``loss += model.reg_loss(alpha=0.1)`` penalises (section 4.2).

    Args:
        init: how BSConv-U starts. "project": as the blueprint kernel closest to the block, which is
            linear up to its last BatchNorm without its inner activation. "default": with fresh
            weights, as do blocks that can't be projected. "matched": with fresh weights that keep
            the variance, as in :class:`BSConvU_Replacer`.
        verbosity: what ``apply`` prints: 0 nothing, 1 one line, 2 a line for each block.

    Raises ValueError for another ``init``.

    >>> len(MobileNetModifier().plan(get_model("cifar_mobilenetv1_w1", num_classes=10)).blocks)
    13
    """

    report: ModificationPlan | None = None

    def __init__(self, *, init: str = "project", verbosity: int = 0) -> None:
        if init not in ("default", "matched", "project"):
            raise ValueError(f"init needs to be 'default', 'matched' or 'project', got {init=}")
        self.init = init
        self.verbosity = verbosity

    def __repr__(self) -> str:
        return f"{type(self).__name__}(init={self.init!r}, verbosity={self.verbosity!r})"

    def plan(self, model: nn.Module) -> ModificationPlan:
        """What :meth:`apply` would do to ``model``, block by block; changes nothing.

        Raises ValueError and TypeError where ``apply`` would refuse.
        """
        return _report(model, self._changes(model))

    def apply(self, model: nn.Module) -> nn.Module:
        """Does what :meth:`plan` says, in place, and returns the model; all or nothing.

        What becomes BSConv-U is a Sequential with the block's own last BatchNorm and activation;
        device, dtype, memory format, ``training``, requires_grad and the hooks of the block stay.
        Its convolutions have new parameters: make the optimiser afterwards. The model gets the
        method ``reg_loss``, and ``report`` holds what was done. A second call changes nothing.

        Raises ValueError, before anything changes, for a model without a known block, with a
        convolution to be changed that is parametrised or of a subclass, with a block of MobileNetV1
        that shares weights or has hooks inside, in DistributedDataParallel, or with another
        ``reg_loss``. Raises TypeError for anything but a torch.nn.Module.
        """
        changes = self._changes(model)
        report = _report(model, changes)
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
        check_changeable(model)
        check_reg_loss(model)
        changes = [change_of(model, found, self.init) for found in _blocks(model)]
        if all(change.plan.action == "kept" for change in changes):
            reasons = Counter(f"{one.plan.kind}, {one.plan.description}" for one in changes)
            listed = "; ".join(f"{count} x {reason}" for reason, count in reasons.most_common(3))
            kept = f" ({listed})" if listed else ""
            lacks = f"has no block that modify_mobilenet can change{kept}"
            raise ValueError(f"{type(model).__name__} {lacks}; it knows the blocks of {known()}")
        return changes


def _blocks(model: nn.Module) -> list[list[Place]]:
    """The places of each known block; blocks inside known blocks do not count."""
    found: dict[int, list[Place]] = {}
    inside: tuple[str, ...] = ()
    for place in places(model, leaves=BLUEPRINT_LAYERS):
        if id(place.module) in found:
            found[id(place.module)].append(place)
        elif is_known(place.module) and not place.name.startswith(inside):
            found[id(place.module)] = [place]
            inside = (*inside, f"{place.name}." if place.name else "")
    return list(found.values())


def _report(model: nn.Module, changes: list[Change]) -> ModificationPlan:
    blocks = tuple(change.plan for change in changes)
    before = parameter_count(model)
    more = sum(block.parameters_after - block.parameters_before for block in blocks)
    return ModificationPlan(blocks, before, before + more)
