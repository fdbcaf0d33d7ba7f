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
PAGE = """# Reliability

Old introduction.

## Two

old figures

## Three

is not tried
"""


def test_sections_of_tests_that_pass_are_written(pytester: pytest.Pytester) -> None:
    page = Path(pytester.path, "page.md")
    page.write_text(PAGE)
    pytester.makepyfile(test_passes=TESTS, test_fails=FAILS)
    pytester.inline_run("-p", "helpers.reliability", "--reliability", str(page))
    introduction, *sections = re.split(r"^## ", page.read_text(), flags=re.MULTILINE)
    assert "`make nightly` tries all of it" in introduction
    two, three, one = sections
    assert two == "Two\n\nold figures\n\n"
    assert three == "Three\n\nis not tried\n\n"
    assert re.fullmatch(
        r"One\n\nfirst line\nsecond line\n\n"
        r"`pytest -m nightly test_passes.py`: 0.0 minutes on .*, torch .*, [\d-]+\.\n",
        one,
    )


def test_without_a_page_nothing_is_written(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(TESTS)
    pytester.inline_run("-p", "helpers.reliability").assertoutcome(passed=2)
    assert not list(Path(pytester.path).glob("*.md"))
