"""docs/reliability.md from what nightly tests record: ``pytest -m nightly --reliability PAGE``.

A test hands its lines to the fixture ``section``; several of one file may add to one section.
Sections that no test has recorded, or of files in which a test failed, stay as they are.
"""

from __future__ import annotations

import datetime
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

Section = Callable[[str, str], None]  # takes the title and the text in Markdown

INTRODUCTION = """\
# Reliability

What was tried to make this library compute something else, lose a run or execute what it should
only read, and what came of it. `make nightly` tries all of it and writes this page.
"""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--reliability", type=Path, metavar="PAGE", help="update this page")


def pytest_configure(config: pytest.Config) -> None:
    path = config.getoption("reliability")
    if path is not None and not hasattr(config, "workerinput"):  # xdist's workers report to us
        config.pluginmanager.register(Page(path))


@pytest.fixture
def section(record_property: Callable[[str, object], None]) -> Section:
    return lambda title, text: record_property("section", [title, text])


class Page:
    """The sections by title, and how long the tests of each file took."""

    def __init__(self, path: Path) -> None:
        self.path = path
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        parts = re.split(r"^## (.+)\n", text, flags=re.MULTILINE)[1:]
        self.sections = dict(zip(parts[::2], map(str.strip, parts[1::2]), strict=True))
        self.recorded: dict[tuple[str, str], list[str]] = {}
        self.failed: set[str] = set()
        self.seconds: Counter[str] = Counter()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        file = report.nodeid.partition("::")[0]
        self.seconds[file] += report.duration
        if report.failed:
            self.failed.add(file)
        if report.when == "call":
            for name, value in report.user_properties:
                if name == "section":
                    self.recorded.setdefault((file, value[0]), []).append(value[1])

    def pytest_sessionfinish(self) -> None:
        for (file, title), texts in self.recorded.items():
            if file not in self.failed:
                self.sections[title] = "\n".join([*texts, "", self._origin(file)])
        parts = [f"## {title}\n\n{text}" for title, text in self.sections.items()]
        page = "\n\n".join([INTRODUCTION.strip(), *parts]) + "\n"
        self.path.write_text(page, encoding="utf-8")

    def _origin(self, file: str) -> str:
        from benchmarks.records import machine_class

        return (
            f"`pytest -m nightly {file}`: {self.seconds[file] / 60:.1f} minutes on"
            f" {machine_class()}, torch {torch.__version__.split('+')[0]},"
            f" {datetime.date.today().isoformat()}."
        )
