"""What the tests of training share."""

import functools
from collections.abc import Callable

import pytest

from helpers import small_runs


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """``use(model, data)``: train sees this model (a function of the classes) and this data."""
    return functools.partial(small_runs.use, monkeypatch)
