"""Replacers on some thousands of generated models."""

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
        "\n".join(f"- {what}: {count:,}" for what, count in seen.most_common()),
    )
