"""Layers that are held outside the module tree, and copies that go on using the original's."""

import collections
import copy
import functools
import importlib
import json
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given
from torch import Tensor, nn
from torch.nn.utils import prune

from bsconv import pytorch as bp
from bsconv.pytorch._tools.outside import independent_copy
from helpers import odd_layers

IMAGES = torch.rand(4, 3, 8, 8)
Pair = collections.namedtuple("Pair", "conv stride")


@dataclass
class Data:
    conv: Any


class Slots:
    __slots__ = ("conv",)

    def __init__(self, conv: Any) -> None:
        self.conv = conv


BOXES: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {  # into, and out again
    "list": (lambda x: [x], lambda box: box[0]),
    "tuple": (lambda x: (1, x), lambda box: box[1]),
    "dict": (lambda x: {"x": x}, lambda box: box["x"]),
    "deque": (lambda x: collections.deque([x]), lambda box: box[0]),
    "user dict": (lambda x: collections.UserDict(x=x), lambda box: box["x"]),
    "named tuple": (lambda x: Pair(x, 1), lambda box: box.conv),
    "dataclass": (Data, lambda box: box.conv),
    "slots": (Slots, lambda box: box.conv),
    "closure": (lambda x: lambda: x, lambda box: box()),
    "default": (lambda x: lambda layer=x: layer, lambda box: box()),
    "keyword default": (lambda x: lambda *, layer=x: layer, lambda box: box()),
    "partial": (lambda x: functools.partial(lambda y: y, x), lambda box: box()),
    "cached": (lambda x: functools.lru_cache(lambda: x), lambda box: box()),
    "iterator": (lambda x: iter([x] * 99), next),
    "generator": (lambda x: (x for _ in iter(int, 1)), next),
}
NOT_COPIED = ("closure", "default", "keyword default", "cached")  # by copy.deepcopy


class Holder(nn.Module):
    """Calls its layer by what it holds outside the tree."""

    def __init__(self, kinds: list[str], layer: nn.Module | None = None) -> None:
        super().__init__()
        self.conv = layer or nn.Conv2d(3, 8, 3)
        self.kinds, box = kinds, self.conv
        for kind in kinds:
            box = BOXES[kind][0](box)
        self.held = box

    def forward(self, images: Tensor) -> Tensor:
        box = self.held
        for kind in reversed(self.kinds):
            box = BOXES[kind][1](box)
        return box(images)


kinds = st.lists(st.sampled_from(sorted(BOXES)), min_size=1, max_size=4)


@given(kinds)
def test_a_layer_in_boxes_in_boxes_is_kept(kinds: list[str]) -> None:
    (layer,) = bp.BSConvU_Replacer().plan(Holder(kinds)).layers
    assert layer.description == "kept: is also in held, outside the module tree"


@given(kinds.filter(lambda kinds: "generator" not in kinds))
def test_a_copy_is_independent_or_refused(kinds: list[str]) -> None:
    model = Holder(kinds, bp.BSConvU(3, 8, 3)).eval()
    costs = bp.ModelProfiler(model, IMAGES.shape)
    assert costs.total_mac_count == bp.ModelProfiler(model.conv, IMAGES.shape).total_mac_count
    if set(NOT_COPIED) & set(kinds):
        with pytest.raises(ValueError, match="cannot be copied: its copy calls layers of the orig"):
            bp.collapse(model)
        return
    twin = bp.collapse(model)
    before = twin(IMAGES)
    torch.testing.assert_close(before, model(IMAGES))
    for parameter in model.parameters():
        parameter.data.zero_()
    assert torch.equal(twin(IMAGES), before)


HOLDERS: dict[bool, list[Callable[[Any], object]]] = {  # by whether what they hold is replaced
    False: [
        lambda model: model.register_forward_hook(lambda _, args, __, conv=model[0]: conv(*args)),
        lambda model: setattr(model, "forward", lambda x, conv=model[0]: conv(x)),
        lambda model: setattr(model, "parent", weakref.ref(model[0])),
        lambda model: vars(model).update(parent=weakref.proxy(model[0])),
        lambda model: setattr(model, "tied", [model[0].weight]),
        lambda model: setattr(model, "call", model[0].forward),
        lambda model: setattr(model, "hidden", (nn.ModuleDict({"conv": model[0]}),)),
        lambda model: setattr(model[1], "before", (model[0],)),
    ],
    True: [  # they find the new layer
        lambda model: model.register_forward_hook(lambda *_: model.training),
        lambda model: setattr(model, "parent", weakref.ref(model)),
        lambda model: setattr(model, "parents", (nn.ModuleDict({"parent": model}),)),
        lambda model: setattr(model[0], "reg_loss", functools.partial(bp.reg_loss, model[0])),
        lambda model: setattr(model, "call", lambda x: model[0](x)),
        lambda model: setattr(model, "optimiser", torch.optim.SGD(model.parameters())),
        lambda model: model[0].register_forward_hook(lambda *_, own=model[0]: print(own, end="")),
    ],
}


@pytest.mark.parametrize("is_replaced", HOLDERS)
def test_a_layer_is_replaced_where_its_holder_finds_the_new_one(is_replaced: bool) -> None:
    for hold in HOLDERS[is_replaced]:
        model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())
        hold(model)
        assert bool(bp.BSConvU_Replacer().plan(model).replaced) == is_replaced


OUTSIDE: Any = None


class ByGlobalName(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.other = nn.Conv2d(3, 8, 3), nn.Conv2d(3, 8, 3)

    def forward(self, images: Tensor) -> Tensor:
        return OUTSIDE(images) + self.other(images)


def test_a_global_name_keeps_a_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    model = ByGlobalName()
    monkeypatch.setitem(globals(), "OUTSIDE", model.conv)
    monkeypatch.setitem(globals(), "other", model.other)  # an attribute of that name is used, only
    assert [layer.name for layer in bp.BSConvU_Replacer().plan(model).replaced] == ["other"]


def doubling() -> nn.Module:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 4))
    old = model.forward
    model.forward = lambda images: old(images * 2)  # type: ignore[method-assign, assignment]
    return model


class Remembering(nn.Sequential):
    """Returns what a hook has put into a dictionary."""

    def __init__(self) -> None:
        super().__init__(nn.Conv2d(3, 8, 3))
        found = self.found = dict[str, Tensor]()
        self[0].register_forward_hook(lambda _, __, output: found.update(conv=output))

    def forward(self, images: Tensor) -> Tensor:
        super().forward(images)
        return self.found["conv"]


@pytest.mark.parametrize("make", [doubling, Remembering])
@pytest.mark.parametrize(
    "use",
    [
        bp.collapse,
        lambda model: bp.optimize_for_inference(model, IMAGES, engines="eager"),
        lambda model: bp.project_pretrained(model, progress=False),
        lambda model: bp.project_pretrained(model, IMAGES, progress=False),
    ],
)
def test_whoever_copies_refuses(make, use):
    with pytest.raises(ValueError, match=r"cannot be copied: its copy (calls|uses) .* original"):
        use(make().eval())


class Remembering(nn.Sequential):
    def forward(self, input: torch.Tensor) -> torch.Tensor:
        self.seen = {"last": [super().forward(input)]}
        return self.seen["last"][0]


def test_what_an_earlier_pass_has_left_in_a_model_is_copied() -> None:
    model = Remembering(bp.BSConvU(3, 8, 3)).eval()
    expected = model(IMAGES)
    torch.testing.assert_close(bp.collapse(model)(IMAGES), expected)
    optimized = bp.optimize_for_inference(model, IMAGES, engines="eager")
    torch.testing.assert_close(optimized(IMAGES), expected.detach())


def test_a_copy_has_the_modes_of_the_original() -> None:
    class Forgetful(nn.ReLU):
        def __deepcopy__(self, memo: Any) -> nn.Module:
            return Forgetful()

    Forgetful.usual = Forgetful()  # of a class, without state
    model = nn.Sequential(Forgetful.usual, nn.LSTM(2, 2), nn.Dropout()).eval()
    model[2].train()
    assert [part.training for part in independent_copy(model)] == [False, False, True]


def test_a_copy_that_is_the_original_is_refused() -> None:
    class Shared(nn.ReLU):
        def __deepcopy__(self, memo: Any) -> nn.Module:
            return self

    with pytest.raises(ValueError, match=r"of the original, which 0 leads to"):
        independent_copy(nn.Sequential(Shared()))


def test_the_search_is_quick() -> None:
    """In a thousand modules, it takes less time than their copy."""
    layers = [nn.Sequential(nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2), nn.ReLU()) for _ in range(250)]
    model, seconds = nn.Sequential(*layers), []
    for work in (bp.BSConvU_Replacer().plan, copy.deepcopy):
        start = time.perf_counter()
        work(model)
        seconds.append(time.perf_counter() - start)
    assert seconds[0] < 3 * seconds[1]


class Context:
    convs: ClassVar[dict[str, Any]] = {}


class Described:
    known: ClassVar[Any] = weakref.WeakKeyDictionary()

    def __get__(self, owner: Any, _: type) -> Any:
        return Described.known[owner]

    def __set__(self, owner: Any, value: Any) -> None:
        Described.known[owner] = value


class Keeping(nn.Module):
    """Keeps its layer, and finds it again, as a subclass says."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 3)
        self.keep(self.conv)

    def forward(self, images: Tensor) -> Tensor:
        return self.kept()(images)


def keeping(keep: Callable[..., Any], kept: Callable[..., Any], **own: Any) -> type[nn.Module]:
    return type("Kept", (Keeping,), {"keep": keep, "kept": kept, **own})


KEEPING = {
    "class": keeping(lambda _, x: Context.convs.update(x=x), lambda _: Context.convs["x"]),
    "class of another file": keeping(
        lambda _, conv: odd_layers.Registry.items.update(conv=conv),
        lambda _: odd_layers.Registry.items["conv"],
    ),
    "slot": keeping(
        lambda self, conv: type(self).other.__set__(self, conv),
        lambda self: self.other,
        __slots__="other",  # one name, not a letter each
    ),
    "descriptor": keeping(
        lambda self, conv: Described.known.update({self: conv}),
        lambda self: self.other,
        other=Described(),
    ),
}
# where no search looks: among the attributes of the standard library
OfALibrary = keeping(
    lambda _, conv: vars(json).update(of_a_test=conv),
    lambda _: importlib.import_module("json").of_a_test,
)


def test_a_copy_that_calls_the_original_is_noticed_when_it_runs() -> None:
    for work in (bp.project_pretrained, bp.optimize_for_inference):
        with pytest.raises(ValueError, match="its copy calls 'conv' of the original"):
            work(OfALibrary(), IMAGES)
    assert bp.ModelProfiler(OfALibrary(), (1, 3, 8, 8)).total_mac_count == 3 * 16 * 9 * 36


@pytest.mark.parametrize("kind", KEEPING)
def test_classes_and_slots_may_hold_a_layer(kind: str) -> None:
    (layer,) = bp.BSConvU_Replacer().plan(KEEPING[kind]()).layers
    assert "outside the module tree" in layer.description
    if kind != "slot":  # which is copied
        with pytest.raises(ValueError, match="model cannot be copied"):
            bp.project_pretrained(KEEPING[kind]())


@pytest.mark.parametrize(
    ("change", "remover"),
    [
        (nn.utils.weight_norm, "remove_weight_norm"),
        (nn.utils.spectral_norm, "remove_spectral_norm"),
        (functools.partial(prune.l1_unstructured, name="weight", amount=0.5), "prune.remove"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
def test_weights_that_old_hooks_compute(change: Callable[..., nn.Module], remover: str) -> None:
    stale, fresh = change(nn.Conv2d(3, 16, 3)), change(nn.Conv2d(3, 16, 3))
    stale.load_state_dict(fresh.state_dict())
    fresh.eval()(IMAGES)
    made = [bp.BSConvU.from_conv(conv).weight for conv in (stale, fresh)]
    torch.testing.assert_close(*made, rtol=0, atol=1e-6)
    torch.testing.assert_close(bp.kernel_spectra(stale), bp.kernel_spectra(fresh))
    stale.train()(IMAGES)
    with pytest.raises(ValueError, match=f"which {remover} undoes"):
        bp.optimize_for_inference(nn.Sequential(stale), IMAGES)
