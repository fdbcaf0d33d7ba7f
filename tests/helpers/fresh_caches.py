"""A pytest plugin: tests start with empty caches, though mutmut forks where all tests have run."""

import sys

from bsconv.pytorch import _layer_plans


def pytest_sessionstart() -> None:
    _layer_plans._fastest.clear()
    for name, module in list(sys.modules.items()):
        if name.startswith("bsconv."):
            for value in vars(module).values():
                if hasattr(value, "cache_clear"):
                    value.cache_clear()
