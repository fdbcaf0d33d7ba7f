"""What the published package 0.4.0 answers: recorded by record.py, asked here by the same code."""

import json
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parent


def recorded(name: str) -> Any:
    """The answers of 0.4.0 to one function of measures.py or questions.py."""
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


def assert_extracts_close(found: list[float], expected: list[float], tolerance: float) -> None:
    """Norms, which come first, and entries differ by at most that share of the norm."""
    assert expected[0] >= 0
    assert found == pytest.approx(expected, rel=0, abs=tolerance * expected[0])
