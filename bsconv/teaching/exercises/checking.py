"""``check("2.1", answer)`` ends every exercise, and says in one sentence what is wrong.

A hint does not give the answer away; it is empty where the answer is right.
"""

import copy
import inspect
from collections.abc import Callable, Iterable, Sequence
from numbers import Real
from typing import Any

import torch
from torch import Tensor, nn

Hint = Callable[[Any], str]
CHECKS: dict[str, Hint] = {}  # by the number of the exercise


class NotAttemptedError(Exception):
    """The stub is still there: the answer is ``...`` or None, or a function returns ``...``."""


def exercise(number: str) -> Callable[[Hint], Hint]:
    """Decorates the function that gives the hint to an answer to this exercise."""

    def register(hint: Hint) -> Hint:
        CHECKS[number] = hint
        return hint

    return register


def check(number: str, answer: Any) -> None:
    """Print whether the answer to exercise ``number`` is right; no answer makes it raise.

    The notebook's random numbers stay as they would be without the check. ValueError for a number
    that no exercise has.
    """
    if number not in CHECKS:
        raise ValueError(f"number needs to be one of {', '.join(CHECKS)}, got {number!r}")
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(0)
        try:
            hint = CHECKS[number](answer)
            verdict = f"not yet: {hint}" if hint else "correct"
        except NotAttemptedError:
            verdict = "not attempted yet"
        except Exception as error:  # a student's answer may be anything, and must not stop Run All
            verdict = f"not yet: it raised {type(error).__name__}: {error}"
    print(f"Exercise {number}: {verdict}")


def value_hint(
    answer: Any, expected: Any, *, tolerance: float = 0.0, hints: Iterable[tuple[Any, str]] = ()
) -> str:
    """The hint to an ``answer`` that should be ``expected`` within ``tolerance``.

    ``hints`` are pairs of a typical wrong answer and the hint to whoever gives it.
    """
    _require_attempt(answer)
    if _same(answer, expected, tolerance):
        return ""
    for wrong, hint in hints:
        if _same(answer, wrong, tolerance):
            return hint
    if (kind := _kind(expected)) and kind != _kind(answer):
        return f"the answer should be {kind}, got {shown(answer)}"
    return f"{shown(answer)} is not correct"


def function_hint(
    function: Any,
    reference: Callable[..., Any],
    cases: Iterable[Sequence[Any]],
    *,
    tolerance: float = 1e-5,
    hints: Iterable[tuple[Callable[..., Any], str]] = (),
) -> str:
    """The hint to a ``function`` that should return what ``reference`` does, in all ``cases``.

    A case is the positional arguments. ``hints`` are pairs of a typical wrong function and the hint
    to whoever wrote it; else the hint says which case failed, and what came out.
    """
    _require_attempt(function)
    if not callable(function):
        return f"the answer should be a function, got {shown(function)}"
    names = list(inspect.signature(reference).parameters)
    for case in cases:
        given = ", ".join(f"{n}={shown(v)}" for n, v in zip(names, case, strict=True))
        try:
            found = function(*copy.deepcopy(case))
        except Exception as error:
            return f"for {given}, it raised {type(error).__name__}: {error}"
        if found is ...:
            raise NotAttemptedError
        if _same(found, reference(*case), tolerance):
            continue
        for wrong, hint in hints:
            if _same(found, wrong(*case), tolerance):
                return f"for {given}, it returned {shown(found)}; {hint}"
        return f"for {given}, it returned {shown(found)}, which is not correct"
    return ""


def shown(value: Any) -> str:
    """The value as a hint quotes it: short, and without more digits than it takes."""
    value = _plain(value)
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    if isinstance(value, nn.Module):
        return type(value).__name__
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, (tuple, list)):
        left, right = "[]" if isinstance(value, list) else "()"
        return f"{left}{', '.join(map(shown, value))}{right}"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _same(found: Any, expected: Any, tolerance: float) -> bool:
    """Equal in kind, shape and value; numbers within ``tolerance``, which is absolute."""
    if isinstance(expected, Tensor):
        if not isinstance(found, Tensor) or found.shape != expected.shape:
            return False
        found, expected = (tensor.detach().cpu().double() for tensor in (found, expected))
        return torch.allclose(found, expected, rtol=0, atol=tolerance)
    if _kind(found) != _kind(expected):
        return False
    if isinstance(expected, (tuple, list)):
        return all(_same(f, e, tolerance) for f, e in zip(found, expected, strict=True))
    found = _plain(found)
    if _kind(expected) == "a number":
        return abs(found - expected) <= tolerance
    return type(found) is type(expected) and found == expected


def _kind(value: Any) -> str:
    """As hints call it; empty for what is neither number, name, set nor several values."""
    if isinstance(value, (tuple, list)):
        return f"{len(value)} values"
    if isinstance(value, (str, set)):
        return "a name" if isinstance(value, str) else "a set of names"
    value = _plain(value)
    return "a number" if not isinstance(value, bool) and isinstance(value, Real) else ""


def _plain(value: Any) -> Any:
    """A tensor of no dimensions as the number or truth value that it holds."""
    return value.item() if isinstance(value, Tensor) and value.dim() == 0 else value


def _require_attempt(answer: Any) -> None:
    parts = answer if isinstance(answer, (tuple, list)) else (answer,)
    if any(part is None or part is Ellipsis for part in parts):
        raise NotAttemptedError
