"""Replacers on generated models: everything that they promise, for each of them."""

import hypothesis
import pytest
from hypothesis import given, settings

from helpers.model_strategies import Example, examples
from helpers.surgery_promises import keeps_all


@pytest.mark.parametrize("number", range(20))
def test_generated_models_keep_every_promise(number: int) -> None:
    """By night, `nightly/test_surgery.py` tries some thousands."""

    @hypothesis.seed(number)
    @settings(max_examples=10)
    @given(example=examples())
    def keeps_its_promises(example: Example) -> None:
        list(keeps_all(example))

    keeps_its_promises()
