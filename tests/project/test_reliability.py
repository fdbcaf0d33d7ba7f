"""The page of reliability: what nightly tests record, and nothing of those that fail."""

import re
from pathlib import Path

import pytest

TESTS = """
def test_one(section): section("One", "first line")
def test_more(section): section("One", "second line")
"""
FAILS = """
def test_two(section): section("Two", "new figures"); assert False
"""


def test_sections_of_tests_that_pass_are_written(pytester: pytest.Pytester) -> None:
    page = Path(pytester.path, "page.md")
    page.write_text("# Reliability\n\nIntroduction.\n\n## Two\n\nold figures\n")
    pytester.makepyfile(test_passes=TESTS, test_fails=FAILS)
    pytester.inline_run("-p", "helpers.reliability", "--reliability", str(page))
    assert re.fullmatch(
        r"# Reliability\n\nIntroduction\.\n\n## Two\n\nold figures\n\n"
        r"## One\n\nfirst line\nsecond line\n\n"
        r"`pytest -m nightly test_passes.py`: 0.0 minutes on .*, torch .*, [\d-]+\.\n",
        page.read_text(),
    )
