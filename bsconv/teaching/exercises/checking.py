"""``check("2.1", answer)``: the last line of every exercise."""

from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch

from .hints import NotAttemptedError

__all__ = ["CHECKS", "check"]

NOTEBOOKS = [import_module(f"{__package__}.notebook_{number:02}") for number in range(9)]
# what finds the fault of an answer, by the number of its exercise: a hint, or "" if it is right
CHECKS: dict[str, Callable[[Any], str]] = {
    number: find_fault for notebook in NOTEBOOKS for number, find_fault in notebook.CHECKS.items()
}


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
