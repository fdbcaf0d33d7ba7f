"""What is recorded of 0.4.0 is what it answers still."""

import json
from pathlib import Path
from typing import Any

import pytest

from golden import assert_extracts_close, record, recorded

pytestmark = pytest.mark.nightly


def test_the_published_package_answers_what_is_recorded(tmp_path: Path) -> None:
    if not (record.PEER / "bsconv" / "pytorch").is_dir():
        pytest.skip("no published package here: make .peer fetches it")
    record.record(tmp_path)
    for name in record.NAMES:
        compare(json.loads((tmp_path / f"{name}.json").read_text()), recorded(name), name)


def compare(found: Any, expected: Any, where: str) -> None:
    """The same structure with the same values; numbers differ by what float32 rounds."""
    assert type(found) is type(expected), where
    if isinstance(found, dict):
        assert list(found) == list(expected), where
        for key in found:
            compare(found[key], expected[key], f"{where} {key}")
    elif isinstance(found, list) and found and all(type(value) is float for value in found):
        assert_extracts_close(found, expected, 1e-4)
    elif isinstance(found, list):
        for one, other in zip(found, expected, strict=True):
            compare(one, other, where)
    else:
        assert found == pytest.approx(expected), where
