"""Replacers on generated models: everything that they promise, for each of them."""

import json
import os
from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import Phase, given, settings

from helpers.model_strategies import FEATURES, Example, examples
from helpers.surgery_faults import FAULTS
from helpers.surgery_promises import keeps_all

# for each feature, of which there are some three dozen
EXAMPLES = 200 if os.environ.get("HYPOTHESIS_PROFILE") == "nightly" else 7


@pytest.mark.parametrize("feature", FEATURES)
def test_generated_models_keep_every_promise(
    feature: str, record_property: Callable[[str, object], None]
) -> None:
    seen: Counter[str] = Counter()

    @settings(max_examples=EXAMPLES)
    @given(example=examples(feature))
    def keeps_its_promises(example: Example) -> None:
        occasions = set(keeps_all(example))
        assert feature in example.features
        seen.update(["examples", *sorted(example.features), *sorted(occasions)])

    keeps_its_promises()
    assert seen["examples"] >= EXAMPLES
    record_property("seen", json.dumps(seen))


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_noticed(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    feature, put_in = FAULTS[fault]
    put_in(monkeypatch)

    @settings(max_examples=500, phases=[Phase.generate], database=None)
    @given(example=examples(feature))
    def keeps_its_promises(example: Example) -> None:
        list(keeps_all(example))

    with pytest.raises(AssertionError):
        keeps_its_promises()
