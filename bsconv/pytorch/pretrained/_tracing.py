"""Where the output of a convolution lands, found by watching one forward pass and disturbing it.

In ``relu(norm(conv(x)) + shortcut)`` the output of ``conv`` lands, behind ``norm`` and with
something added, in the input of ``relu``. Who knows that can choose ``conv`` so that the *sum*
comes out right, whatever is wrong with the shortcut.
"""

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


class Call(NamedTuple):
    """The ``turn``-th call, counted from 0, of the module of that name in one forward pass."""

    name: str
    turn: int


class Point(NamedTuple):
    """One side of a call."""

    call: Call
    side: Literal["input", "output"]


class Landing(NamedTuple):
    """What happens to the output of a convolution that is called once."""

    norm: str  # the BatchNorm that takes it and nothing else; "" if none does
    call: Call | None  # the next call that sees it, with something constant added; None if unknown
    rectified: bool  # that call is one of ReLU


class _Reached(Exception):
    """All that was wanted of a forward pass has been seen."""


class _Step(NamedTuple):
    call: Call
    module: nn.Module
    given: Tensor  # the tensors themselves, which tell who took whose output,
    returned: Tensor
    input: Tensor  # and copies, since later calls may write into them
    output: Tensor


def find_landings(model: nn.Module, images: Tensor, names: Iterable[str]) -> dict[str, Landing]:
    """For each convolution of that name that the model calls exactly once, in the order of calls.

    ``images`` are a few inputs; ``model`` is in eval mode.
    """
    wanted = set(names)
    steps = _watch(model, images)
    counts = Counter(step.call.name for step in steps)
    norms = _norms_behind(steps)
    landings = {}
    for name in (step.call.name for step in steps if step.call.name in wanted):
        if counts[name] == 1:
            norm = norms.get(name, "")
            if norm and not _can_take_over(model.get_submodule(norm), counts[norm]):
                norm = ""
            landings[name] = _landing(model, images, steps, name, norm)
    return landings


def _norms_behind(steps: list[_Step]) -> dict[str, str]:
    """Which BatchNorm takes the very output of which module."""
    producers: dict[int, str] = {}
    norms = {}
    for step in steps:
        if isinstance(step.module, NORMS) and id(step.given) in producers:
            norms[producers[id(step.given)]] = step.call.name
        producers[id(step.returned)] = step.call.name
    return norms


def capture(
    model: nn.Module,
    images: Tensor,
    points: Collection[Point],
    part: Callable[[Tensor], Tensor] = torch.clone,
) -> dict[Point, Tensor]:
    """What is seen at ``points`` in one forward pass, which ends with the last of them.

    ``part`` takes what is wanted of each tensor into memory of its own.
    """
    found: dict[Point, Tensor] = {}

    def note(point: Point, value: Tensor) -> Tensor:
        found[point] = part(value.detach())
        if len(found) == len(points):
            raise _Reached
        return value

    with at_points(model, points, note), torch.no_grad(), suppress(_Reached):
        model(images)
    return found


@contextmanager
def at_points(
    model: nn.Module, points: Collection[Point], note: Callable[[Point, Tensor], Tensor]
) -> Iterator[None]:
    """At each of ``points``, forward passes go on with what ``note`` returns for the tensor."""
    counts: Counter[str] = Counter()

    def seen(point: Point, value: Tensor) -> Tensor:
        return note(point, value) if point in points else value

    def before(name: str, _: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return seen(Point(Call(name, counts[name]), "input"), given[0]), *given[1:]

    def after(name: str, _: nn.Module, __: tuple[Tensor, ...], output: Tensor) -> Tensor:
        counts[name] += 1
        return seen(Point(Call(name, counts[name] - 1), "output"), output)

    with ExitStack() as stack:
        for name in {point.call.name for point in points}:
            module = model.get_submodule(name)
            stack.callback(module.register_forward_pre_hook(partial(before, name)).remove)
            stack.callback(module.register_forward_hook(partial(after, name)).remove)
        yield


def _can_take_over(norm: nn.Module, calls: int) -> bool:
    """Whether scale and shift of ``norm`` are the convolution's own, and can be set."""
    affine = isinstance(norm, NORMS) and norm.affine and norm.running_mean is not None
    return affine and calls == 1


def _landing(model: nn.Module, images: Tensor, steps: list[_Step], name: str, norm: str) -> Landing:
    """Adds noise to the output of the convolution and looks where it is seen first."""
    noise: list[Tensor] = []

    def disturb(_: nn.Module, __: tuple[Tensor, ...], output: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(0)
        drawn = torch.randn(output.shape, generator=generator).to(output)
        noise.append(drawn * output.std().clamp_min(1e-3))
        return output + noise[0]

    handle = model.get_submodule(name).register_forward_hook(disturb, prepend=True)
    try:
        disturbed = _watch(model, images)
    finally:
        handle.remove()
    expected = noise[0]
    started = False
    for old, new in zip(steps, disturbed, strict=False):
        if old.call.name == (norm or name):
            started = True
            if norm:
                expected = new.output - old.output
        elif started and old.input.shape == new.input.shape:
            change = new.input - old.input
            if change.abs().max() == 0:
                continue
            largest = float(expected.abs().max())
            fits = (
                change.shape == expected.shape
                and math.isfinite(largest)
                and torch.allclose(change, expected, rtol=1e-3, atol=1e-4 * largest)
            )
            return Landing(norm, old.call if fits else None, fits and type(old.module) is nn.ReLU)
    return Landing(norm, None, False)


def _watch(model: nn.Module, images: Tensor) -> list[_Step]:
    """The calls of all modules without children, in order."""
    steps: list[_Step] = []
    counts: Counter[str] = Counter()
    copies: dict[str, Tensor] = {}

    def before(name: str, _: nn.Module, given: tuple[object, ...]) -> None:
        if given and isinstance(given[0], Tensor):
            copies[name] = given[0].clone()

    def after(name: str, module: nn.Module, given: tuple[Tensor, ...], output: object) -> None:
        if name in copies and isinstance(output, Tensor):
            call = Call(name, counts[name])
            counts[name] += 1
            copy = copies.pop(name)
            steps.append(_Step(call, module, given[0], output, copy, output.clone()))

    with ExitStack() as stack, torch.no_grad():
        for name, module in model.named_modules():
            if not any(True for _ in module.children()):
                stack.callback(module.register_forward_pre_hook(partial(before, name)).remove)
                stack.callback(module.register_forward_hook(partial(after, name)).remove)
        model(images)
    return steps
