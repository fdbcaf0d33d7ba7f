"""Replacers on some thousands of generated models."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings

from helpers.model_strategies import Example, examples
from helpers.reliability import Section
from helpers.surgery_promises import keeps_all

pytestmark = pytest.mark.nightly

EXAMPLES = 1000


@pytest.fixture(scope="module")
def seen() -> Counter[str]:
    """How many models there were, and what they gave occasion to."""
    return Counter()


@pytest.mark.parametrize("number", range(6))
def test_generated_models_keep_every_promise(number: int, seen: Counter[str]) -> None:
    @settings(max_examples=EXAMPLES, derandomize=False, print_blob=True, database=None)
    @given(example=examples())
    def keeps_its_promises(example: Example) -> None:
        seen.update(["models", *set(keeps_all(example))])

    keeps_its_promises()


def test_page(seen: Counter[str], section: Section) -> None:
    assert seen["models"] >= 6 * EXAMPLES
    for occasion in ("replaced", "refused", "deepcopy", "pickle", "forward and backward"):
        assert seen[occasion]
    section(
        "Model surgery, fuzzed",
        f"Hypothesis made {seen['models']:,} models and replacers for them: nested, shared, tied,"
        " cyclic, sealed, scripted, traced, behind DataParallel; with layers that are grouped,"
        " subclasses, parametrised, pruned, lazy, patched, of other dtypes and dimensions; frozen,"
        " hooked, in half precision, on the meta device. Layers were replaced in"
        f" {seen['replaced']:,}, and"
        f" {seen['refused']:,} were refused, with every bit, hook, flag and attribute as before."
        " For each: `plan` is what `apply` does and changes nothing, not even the random state;"
        " what is shared stays shared; device, dtype, memory format, `training`, requires_grad and"
        " hooks are kept; layers of other kinds are not touched; a second application changes"
        " nothing; the penalty is the one of the formula, and has finite gradients on its own"
        " parameters only.\n\n"
        f"{seen['forward and backward']:,} times such a model took the images made for it: forward"
        " and backward, in train or in eval mode, the replaced model gives the shapes, calls the"
        " hooks and reaches the layers that the dense one does. Where PyTorch can copy or pickle"
        " the dense model, it can copy or pickle the replaced one"
        f" ({seen['deepcopy']:,} and {seen['pickle']:,} times), and the copies are complete and"
        " independent.",
    )
