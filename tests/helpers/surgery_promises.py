"""What replacers promise about any model, each as a function that asserts it.

Nothing here asks the library what is right: places, flags and penalties are looked up again.
"""

import contextlib
import copy
import pickle
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, fx, nn

from bsconv.pytorch import BSConvS, BSConvS_Replacer, BSConvU, reg_loss
from bsconv.pytorch.plan import Plan
from bsconv.pytorch.regularization import OrthonormalBasis
from helpers.model_snapshots import (
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
    "can't move to another layer",
    "has a reg_loss of its own",
    "sealed",
    "of this model: '*.0'",
)
HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_forward_hooks_with_kwargs")


# ------------------------------------------------------------------------------------ the exchange


def replaced(example: Example) -> nn.Module | None:
    """The model after ``plan`` and ``apply``; None where they refused, and nothing changed."""
    model, replacer = example.model, example.replacer
    before, random_state = snapshot(model), torch.get_rng_state()
    refusal: str | None = None
    plan: Plan | None = None
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
        assert refusal in (None, after)
        assert_unchanged(model, before)
        return None
    assert refusal is None, f"plan refused: {refusal}"
    assert plan is not None
    assert replacer.report == plan
    nothing = ["no convolution was replaced" in str(warning.message) for warning in warned]
    assert nothing == ([] if plan.replaced else [True])
    assert_is_as_planned(plan, before, after)
    assert_sharing_is_kept(before, after)
    assert_others_are_untouched(example, plan, before, after)
    return after


def assert_is_as_planned(plan: Plan, before: list[Any], after: nn.Module) -> None:
    old = {name: module for name, module, *_ in before[0]}
    new = dict(walk(after))
    assert len({name for layer in plan.layers for name in layer.names}) == sum(
        len(layer.names) for layer in plan.layers
    )
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
        assert layer.parameters_after == count(new[layer.name])
        assert layer.parameters_after <= layer.parameters_before
    parameters = [tensor for tensor, *_ in before[1] if isinstance(tensor, nn.Parameter)]
    assert plan.parameters_before == sum(parameter.numel() for parameter in parameters)
    assert plan.parameters_after == count(after)


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters() if not nn.parameter.is_lazy(p))


def assert_stands_in(old: Any, new: Any) -> None:
    """The flags, the geometry and the hooks of ``old`` are those of ``new``."""
    for name in ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation"):
        assert getattr(new, name) == getattr(old, name), name
    assert new.padding_mode == old.padding_mode
    assert (new.dw.bias is None) == (old.bias is None)
    for module in new.modules():
        assert module.training == old.training
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


def assert_sharing_is_kept(before: list[Any], after: nn.Module) -> None:
    """What was one layer is one still, what shared a parameter does so still, and nothing else."""
    new = dict(walk(after))
    stands_for: dict[int, nn.Module] = {}
    pairs = []
    for name, module, *_ in before[0]:
        if name in new:
            assert stands_for.setdefault(id(module), new[name]) is new[name], name
            pairs.append((module, new[name]))
    exchanged = {id(b): (a, b) for a, b in pairs if a is not b}.values()
    assert len({id(a) for a, _ in exchanged}) == len(exchanged)
    for old, layer in exchanged:
        for other_old, other in exchanged:
            if layer is not other:
                for key in ("weight", "bias"):
                    ours, theirs = getattr(layer.dw, key), getattr(other.dw, key)
                    shared = getattr(old, key) is getattr(other_old, key)
                    assert (ours is theirs) == shared, key
                shared = old.weight is other_old.weight
                assert (layer[0].weight is other[0].weight) == shared


def assert_others_are_untouched(
    example: Example, plan: Plan, before: list[Any], after: nn.Module
) -> None:
    gone = {name for layer in plan.replaced for name in layer.names}
    new = dict(walk(after))
    odd = {id(module) for module in example.odd}
    for name, module, kind, training, own in before[0]:
        if name in gone:
            assert id(module) not in odd, f"{name} has to stay"
            continue
        assert new[name] is module
        assert (type(module), module.training) == (kind, training)
        own, now = dict(own), attributes(module)
        for attribute in ("reg_loss", "_modules"):  # the one comes, in the other layers change
            own.pop(attribute, None)
            now.pop(attribute, None)
        assert same(own, now), f"changed: {name}"
    kept = tensors(after)
    for tensor, dtype, device, stride, requires_grad, gradient, numbers in before[1]:
        if id(tensor) in kept:
            now = (tensor, tensor.dtype, tensor.device, tensor.stride(), tensor.requires_grad)
            assert same(now, (tensor, dtype, device, stride, requires_grad))
            assert same((tensor.grad, bits(tensor)), (gradient, numbers))


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
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own
        out = model(images)
        if out.requires_grad:
            out.mean().backward()  # a sum would be beyond half precision
    modules = dict(walk(model))
    return {
        "like": (out.shape, out.dtype, out.device),
        "finite": out.is_meta or bool(out.isfinite().all()),
        "learning": {
            name for name in names if any(p.grad is not None for p in modules[name].parameters())
        },
        # copies of a GraphModule have no hooks
        "calls": {} if isinstance(model, fx.GraphModule) else dict(CALLS),
    }


def dense_outcomes(example: Example) -> dict[bool, dict[str, Any]]:
    """What a copy of the model gives in train and in eval mode, where it takes such images."""
    twin = copied(copy.deepcopy, example.model)
    outcomes = {}
    if twin is not None:
        names = [name for name, _ in walk(twin)]
        for training in (True, False):
            with contextlib.suppress(Exception):
                outcomes[training] = run(twin, names, example.images, training)
    return outcomes


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
    assert [(name, kind(m)) for name, m in walk(twin)] == [
        (name, kind(m)) for name, m in walk(model)
    ]
    assert [t.dtype for t in tensors(twin).values()] == [t.dtype for t in tensors(model).values()]
    assert not storages(model) & storages(twin)
    assert not {id(m) for _, m in walk(model)} & {id(m) for _, m in walk(twin)}
    for ours, theirs in zip(tensors(model).values(), tensors(twin).values(), strict=True):
        assert same(bits(ours), bits(theirs))
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
        expected = 0.5 * sum(map(penalty, found))
        assert abs(loss.item() - expected) <= 1e-5 * max(1, expected)
        if attached:
            assert model.reg_loss(alpha=0.5).item() == loss.item()
    parameters = list(tensors(model).values())
    trained = {id(basis) for basis in found if basis.requires_grad}
    assert touched_by(loss, parameters) == trained


def penalty(basis: Tensor) -> float:
    matrix = basis.detach().flatten(1).double()
    return float(torch.linalg.matrix_norm(matrix @ matrix.T - torch.eye(len(matrix)).double()))


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
    dense = dense_outcomes(example)
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
        gradients = [t.grad for t in tensors(model).values() if t.grad is not None]
        assert all(g.is_meta or g.isfinite().all() for g in gradients)
