"""Comparing what `golden.measures` extracts from tensors."""

import pytest


def assert_extracts_close(found: list[float], expected: list[float], tolerance: float) -> None:
    """Norms, which come first, and entries differ by at most that share of the norm."""
    assert len(found) == len(expected)
    assert expected[0] >= 0
    assert found == pytest.approx(expected, rel=0, abs=tolerance * expected[0])
