"""Replacers on generated models: everything that they promise, for each of them.

By night, `nightly/test_surgery.py` tries more of them, and faults that have to be noticed.
"""

import pytest
from hypothesis import given, settings

from helpers.model_strategies import FEATURES, Example, examples
from helpers.surgery_promises import keeps_all

EXAMPLES = 5  # for each feature, of which there are some three dozen


@pytest.mark.parametrize("feature", FEATURES)
def test_generated_models_keep_every_promise(feature: str) -> None:
    tried = []

    @settings(max_examples=EXAMPLES)
    @given(example=examples(feature))
    def keeps_its_promises(example: Example) -> None:
        list(keeps_all(example))
        assert feature in example.features
        tried.append(example)

    keeps_its_promises()
    assert len(tried) >= EXAMPLES
