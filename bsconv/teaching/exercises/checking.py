"""``check("2.1", answer)``: the last line of every exercise."""

from collections.abc import Callable, Mapping
from typing import Any

import torch

from . import notebooks_00_to_02, notebooks_03_to_05, notebooks_06_to_09
from .hints import NotAttemptedError

# what finds the fault of an answer, by the number of its exercise: a hint, or "" if it is right
CHECKS: Mapping[str, Callable[[Any], str]] = (
    notebooks_00_to_02.CHECKS | notebooks_03_to_05.CHECKS | notebooks_06_to_09.CHECKS
)


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
