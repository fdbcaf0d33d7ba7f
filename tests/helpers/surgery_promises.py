"""What replacers promise about any model, each as a function that asserts it.

Nothing here asks the library what is right: places, flags and penalties are looked up again.
"""

import contextlib
import copy
import pickle
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, fx, nn

from bsconv.pytorch import BSConvS, BSConvS_Replacer, BSConvU, reg_loss
from bsconv.pytorch.plan import Plan
from bsconv.pytorch.regularization import OrthonormalBasis
from helpers.model_snapshots import (
    about,
    assert_unchanged,
    attributes,
    bits,
    same,
    snapshot,
    tensors,
    walk,
)
from helpers.model_strategies import Example
from helpers.odd_layers import CALLS, SealedError, WithRegLoss

BLUEPRINT_LAYERS = (BSConvU, BSConvS)
DENSE = {"1d": nn.Conv1d, "3d": nn.Conv3d}  # by the name of the layer; nn.Conv2d for others
REFUSALS = (
    "can't move to another layer", "has a reg_loss of its own", "sealed", "of this model: '*.0'",
)  # fmt: skip
HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_forward_hooks_with_kwargs")


# ------------------------------------------------------------------------------------ the exchange


def replaced(example: Example) -> nn.Module | None:
    """The model after ``plan`` and ``apply``; None where they refused, and nothing changed."""
    model, replacer = example.model, example.replacer
    before, random_state = snapshot(model), torch.get_rng_state()
    plan: Plan | None = None
    refusal = ""
    try:
        plan = replacer.plan(model)
    except ValueError as error:
        refusal = str(error)
    assert_unchanged(model, before)
    assert torch.equal(torch.get_rng_state(), random_state)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            after: nn.Module | str = replacer.apply(model)
        except (ValueError, SealedError) as error:
            after = str(error)
    if isinstance(after, str):
        assert any(known in after for known in REFUSALS), after
        assert refusal in ("", after)
        assert_unchanged(model, before)
        return None
    assert plan is not None, f"plan refused: {refusal}"
    assert replacer.report == plan
    nothing = ["no convolution was replaced" in str(warning.message) for warning in warned]
    assert nothing == ([] if plan.replaced else [True])
    new = dict(walk(after))
    assert_is_as_planned(plan, before, new)
    assert plan.parameters_after == count(after)
    assert_sharing_is_kept(before, new)
    assert_others_are_untouched(example, plan, before, new)
    kept = tensors(after)
    for tensor, *former in before[1]:
        if id(tensor) in kept:
            assert same(about(tensor), former)
    return after


def assert_is_as_planned(plan: Plan, before: list[Any], new: dict[str, nn.Module]) -> None:
    old = {name: module for name, module, *_ in before[0]}
    names = [name for layer in plan.layers for name in layer.names]
    assert len(set(names)) == len(names)
    for layer in plan.layers:
        for name in layer.names:
            if layer.replaced:
                assert isinstance(new[name], BLUEPRINT_LAYERS)
                assert type(old[name]) is DENSE.get(type(new[name]).__name__[-2:], nn.Conv2d)
                assert old[name].groups == 1
                assert_stands_in(old[name], new[name])
            else:
                assert new[name] is old[name]
        assert layer.parameters_before == count(old[layer.name])
        assert layer.parameters_after == count(new[layer.name]) <= layer.parameters_before
    parameters = [tensor for tensor, *_ in before[1] if isinstance(tensor, nn.Parameter)]
    assert plan.parameters_before == sum(parameter.numel() for parameter in parameters)


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters() if not nn.parameter.is_lazy(p))


def assert_stands_in(old: Any, new: Any) -> None:
    """The flags, the geometry and the hooks of ``old`` are those of ``new``."""
    assert (new.in_channels, new.out_channels) == (old.in_channels, old.out_channels)
    for name in ("kernel_size", "stride", "padding", "dilation", "padding_mode"):
        assert getattr(new, name) == getattr(old, name), name
    assert (new.dw.bias is None) == (old.bias is None)
    assert {module.training for module in new.modules()} == {old.training}
    for name, parameter in new.named_parameters():
        assert (parameter.dtype, parameter.device) == (old.weight.dtype, old.weight.device), name
        expected = old.bias if name == "dw.bias" else old.weight
        assert parameter.requires_grad == expected.requires_grad, name
    for conv in (module for module in new if isinstance(module, type(old))):
        expected = torch.empty_like(conv.weight, memory_format=memory_format(old.weight))
        assert conv.weight.stride() == expected.stride()
    assert not old._state_dict_hooks
    assert not old.weight._backward_hooks
    for hooks in HOOKS:
        assert list(getattr(new, hooks).items()) == list(getattr(old, hooks).items()), hooks


def memory_format(weight: Tensor) -> torch.memory_format:
    """By the strides, since is_contiguous is true of both where a side is 1."""
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    channels_last = formats.get(weight.dim(), torch.contiguous_format)
    last = torch.empty_like(weight, memory_format=channels_last)
    first = torch.empty_like(weight, memory_format=torch.contiguous_format)
    is_last = weight.stride() == last.stride() != first.stride()
    return channels_last if is_last else torch.contiguous_format


def ties(objects: Iterable[object]) -> list[int]:
    """For each of them the first that it is."""
    ids = list(map(id, objects))
    return [ids.index(each) for each in ids]


def assert_sharing_is_kept(before: list[Any], new: dict[str, Any]) -> None:
    """What was one layer is one still, what shared a parameter does so still, and nothing else."""
    pairs = [(module, new[name]) for name, module, *_ in before[0] if name in new]
    assert ties(old for old, _ in pairs) == ties(layer for _, layer in pairs)
    exchanged = [(old, layer) for old, layer in pairs if old is not layer]
    weights, biases = (
        ties(getattr(old, key) for old, _ in exchanged) for key in ("weight", "bias")
    )
    assert ties(layer.dw.weight for _, layer in exchanged) == weights
    assert ties(layer[0].weight for _, layer in exchanged) == weights
    assert ties(layer.dw.bias for _, layer in exchanged) == biases


def assert_others_are_untouched(
    example: Example, plan: Plan, before: list[Any], new: dict[str, nn.Module]
) -> None:
    gone = {name for layer in plan.replaced for name in layer.names}
    odd = {id(module) for module in example.odd}
    for name, module, *former, own in before[0]:
        if name in gone:
            assert id(module) not in odd, f"{name} has to stay"
            continue
        assert new[name] is module
        assert [type(module), module.training] == former
        for attribute, value in attributes(module).items():
            # the one comes, in the other layers change
            assert attribute in ("reg_loss", "_modules") or same(value, own[attribute]), name
        assert not own.keys() - vars(module).keys() - {"reg_loss"}


def assert_a_second_application_changes_nothing(replacer: Any, model: nn.Module) -> None:
    before = snapshot(model)
    plan = replacer.plan(model)
    assert not plan.replaced
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that nothing was replaced
        assert replacer.apply(model) is model
    assert replacer.report == plan
    assert_unchanged(model, before)


# ------------------------------------------------------------------------------- the model in use


def run(model: nn.Module, names: list[str], images: Tensor, training: bool) -> dict[str, Any]:
    """What a forward and a backward pass came to, and which hooks they called.

    ``learning`` are those of ``names`` whose modules have parameters with a gradient.
    """
    for parameter in model.parameters():
        parameter.grad = None
    for _, module in walk(model):  # train() would not end where references are cyclic
        module.training = training
    CALLS.clear()
    torch.manual_seed(1)  # layers that are dropped at random are the same ones
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own
        outputs = list(floats_in(model(images)))
        losses = [out.mean() for out in outputs if out.requires_grad]
        if losses:
            torch.autograd.backward(losses)
    modules = dict(walk(model))
    return {
        "like": [(out.shape, out.dtype, out.device) for out in outputs],
        "finite": all(out.is_meta or bool(out.isfinite().all()) for out in outputs),
        "learning": {
            name for name in names if any(p.grad is not None for p in modules[name].parameters())
        },
        # copies of a GraphModule have no hooks
        "calls": {} if isinstance(model, fx.GraphModule) else dict(CALLS),
    }


def floats_in(outputs: Any) -> Iterator[Tensor]:
    """All tensors of floats in what a model returns."""
    if isinstance(outputs, Tensor) and (outputs.is_floating_point() or outputs.is_complex()):
        yield outputs
    elif isinstance(outputs, (dict, list, tuple)):
        for value in outputs.values() if isinstance(outputs, dict) else outputs:
            yield from floats_in(value)


def assert_gradients_are_finite(model: nn.Module) -> None:
    gradients = [t.grad for t in tensors(model).values() if t.grad is not None]
    assert all(gradient.is_meta or gradient.isfinite().all() for gradient in gradients)


def copied(make: Callable[[nn.Module], nn.Module], model: nn.Module) -> nn.Module | None:
    """A copy; None where PyTorch can make none, or none that is a module still."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            twin = make(model)
            snapshot(twin)
        except Exception:
            return None
    return twin


COPIES: dict[str, Callable[[nn.Module], nn.Module]] = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda model: pickle.loads(pickle.dumps(model)),
}


def assert_a_copy_is_independent(model: nn.Module, twin: nn.Module, attached: bool) -> None:
    ours, theirs = ([(name, kind(m)) for name, m in walk(each)] for each in (model, twin))
    assert ours == theirs
    assert not storages(model) & storages(twin)
    assert not {id(m) for _, m in walk(model)} & {id(m) for _, m in walk(twin)}
    for mine, other in zip(tensors(model).values(), tensors(twin).values(), strict=True):
        assert mine.dtype == other.dtype
        assert same(bits(mine), bits(other))
    if bases(model):
        # a GraphModule copies no methods of its instances
        has_method = attached and not isinstance(model, fx.GraphModule)
        loss = twin.reg_loss() if has_method else reg_loss(twin)
        torch.testing.assert_close(loss, reg_loss(model), rtol=0, atol=0)
        own = {id(basis) for basis in bases(twin)}
        assert touched_by(loss, [*bases(twin), *bases(model)]) <= own


def kind(module: nn.Module) -> type:
    """Its class; each GraphModule has one of its own."""
    return fx.GraphModule if isinstance(module, fx.GraphModule) else type(module)


def storages(model: nn.Module) -> set[int]:
    here = [t for t in tensors(model).values() if not t.is_meta and t.numel()]
    return {t.untyped_storage().data_ptr() for t in here}


# ------------------------------------------------------------------------------------- the penalty


def bases(model: nn.Module) -> list[nn.Parameter]:
    """The weights that are to be kept orthonormal, each layer once."""
    layers = {id(m): m for _, m in walk(model) if isinstance(m, OrthonormalBasis)}.values()
    return [layer.pw1.weight if isinstance(layer, BSConvS) else layer.weight for layer in layers]


def assert_the_penalty_is_right(model: nn.Module, attached: bool) -> None:
    loss = reg_loss(model, alpha=0.5)
    assert loss.shape == ()
    assert hasattr(model, "reg_loss") or not attached
    found = bases(model)
    if not loss.is_meta:
        matrices = [basis.detach().flatten(1).double() for basis in found]
        products = [m @ m.T - torch.eye(len(m)).double() for m in matrices]
        expected = 0.5 * sum(float(torch.linalg.matrix_norm(product)) for product in products)
        assert abs(loss.item() - expected) <= 1e-5 * max(1, expected)
        if attached:
            assert model.reg_loss(alpha=0.5).item() == loss.item()
    parameters = list(tensors(model).values())
    trained = {id(basis) for basis in found if basis.requires_grad}
    assert touched_by(loss, parameters) == trained


def touched_by(loss: Tensor, parameters: list[Tensor]) -> set[int]:
    """The ids of the parameters that ``loss`` has a gradient for, all of them finite."""
    learning = [parameter for parameter in parameters if parameter.requires_grad]
    if not loss.requires_grad or not learning:
        return set()
    gradients = torch.autograd.grad(loss, learning, allow_unused=True, retain_graph=True)
    touched = [(p, g) for p, g in zip(learning, gradients, strict=True) if g is not None]
    assert all(g.is_meta or g.isfinite().all() for _, g in touched)
    return {id(parameter) for parameter, _ in touched}


def keeps_all(example: Example) -> Iterator[str]:
    """Asserts everything; yields what this example gave occasion to."""
    names = [name for name, _ in walk(example.model)]
    copyable = {name for name, make in COPIES.items() if copied(make, example.model) is not None}
    dense: dict[bool, dict[str, Any]] = {}  # where a copy takes such images
    if "deepcopy" in copyable:
        twin = copied(copy.deepcopy, example.model)
        for training in (True, False):
            with contextlib.suppress(Exception):
                dense[training] = run(twin, names, example.images, training)
    model = replaced(example)
    if model is None:
        yield "refused"
        return
    assert example.replacer.report is not None
    if example.replacer.report.replaced:
        yield "replaced"
    assert_a_second_application_changes_nothing(example.replacer, model)
    attached = isinstance(example.replacer, BSConvS_Replacer)
    assert not attached or not isinstance(model, WithRegLoss)
    assert_the_penalty_is_right(model, attached)
    for name, make in COPIES.items():
        if name in copyable:
            yield name
            twin = copied(make, model)
            assert twin is not None, f"no {name} of the replaced model"
            assert_a_copy_is_independent(model, twin, attached)
    for training, expected in dense.items():
        yield "forward and backward"
        outcome = run(model, names, example.images, training)
        assert outcome == expected, f"{outcome}, where the dense model has {expected}"
        assert_gradients_are_finite(model)
