"""Slow tests are marked, and the marks and options choose what runs."""

import pytest

from helpers import costs

TESTS = """
import pytest, subprocess, sys

def test_quick(): pass
@pytest.mark.slow
def test_slow(): subprocess.run(["true"], check=True)
@pytest.mark.slow
def test_slow_too(): pass
@pytest.mark.nightly
def test_nightly(): pass
"""


@pytest.fixture(autouse=True)
def without_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(costs.PATIENCE, raising=False)


@pytest.mark.parametrize(
    ("arguments", "runs"),
    [
        ([], ["quick", "slow", "slow_too"]),
        (["--slow", "first"], ["quick", "slow"]),
        (["--slow", "none"], ["quick"]),
        (["--slow", "rest", "-m", "slow"], ["slow_too"]),
        (["-m", "slow"], ["slow", "slow_too"]),
        (["-m", "nightly"], ["nightly"]),
        (["-m", "nightly or not nightly"], ["quick", "slow", "slow_too", "nightly"]),
    ],
)
def test_the_marks_choose(pytester: pytest.Pytester, arguments: list[str], runs: list[str]) -> None:
    pytester.makepyfile(TESTS)
    found = pytester.inline_run("-p", "helpers.costs", "--collect-only", *arguments)
    calls = found.getcalls("pytest_collection_finish")
    assert [item.name for call in calls for item in call.session.items] == [
        f"test_{name}" for name in runs
    ]


def outcome(pytester: pytest.Pytester, test: str) -> str:
    """How a test ends, in its first line."""
    pytester.makepyfile(test)
    reports = pytester.inline_run("-p", "helpers.costs").getreports("pytest_runtest_logreport")
    (call,) = [report for report in reports if report.when == "call"]
    return call.longreprtext.partition("\n")[0] or call.outcome


@pytest.mark.slow
def test_a_process_needs_the_mark(pytester: pytest.Pytester) -> None:
    test = "import os, pytest\n{}\ndef test_it(): os.system('true')"
    assert outcome(pytester, test.format("")) == "starts a process (os.system): mark it slow"
    assert outcome(pytester, test.format("@pytest.mark.slow")) == "passed"


@pytest.mark.parametrize(
    ("pace", "ends"), [(1, "took 5.0 CPU seconds, of 3.0 here: mark it slow"), (4, "passed")]
)
def test_the_time_that_a_test_may_take_is_of_the_machine(pace, ends, pytester, monkeypatch):
    clock = iter(range(0, 100, 5))  # CPU seconds: a test takes five
    with monkeypatch.context() as patch:  # this test is watched too
        patch.setattr(costs, "cpu_seconds", lambda: next(clock))
        patch.setattr(costs, "pace", lambda: pace * costs.LOOP)
        assert outcome(pytester, "def test_it(): pass") == ends
