from collections.abc import Iterator

import matplotlib as mpl
import pytest
import torch


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    """Notebooks set gradients and the style of figures."""
    with mpl.rc_context(), torch.enable_grad():
        yield
