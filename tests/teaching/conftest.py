from collections.abc import Iterator

import matplotlib as mpl
import pytest
import torch


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    """Notebooks set threads, gradients and the style of figures."""
    threads = torch.get_num_threads()
    with mpl.rc_context(), torch.enable_grad():
        yield
    torch.set_num_threads(threads)
