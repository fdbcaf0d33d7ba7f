"""docs/reliability.md from what nightly tests measure: ``pytest -m nightly --reliability PAGE``.

A test hands its lines to the fixture ``section``; those of all tests with one title replace what
stands below MEASURED in that section, whose prose stays. So do sections that no test has recorded,
and those of files in which a test failed.
"""

import datetime
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

MEASURED = "<!-- measured -->"
Section = Callable[[str, str], None]  # takes the title and the text in Markdown


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
    """What is recorded by file and title, and how long the tests of each file took."""

    def __init__(self, path: Path) -> None:
        self.path = path
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
        from benchmarks.records import machine_class

        introduction, *parts = re.split(r"^## (.+)\n", self.path.read_text("utf-8"), flags=re.M)
        sections = dict(zip(parts[::2], parts[1::2], strict=True))
        for (file, title), texts in self.recorded.items():
            if file not in self.failed:
                where = f"{machine_class()}, torch {torch.__version__.split('+')[0]}"
                origin = f"`pytest -m nightly {file}`: {self.seconds[file] / 60:.1f} minutes on"
                origin += f" {where}, {datetime.date.today().isoformat()}."
                prose = sections.get(title, "").partition(MEASURED)[0].strip()
                sections[title] = "\n".join([prose, "", MEASURED, "", *texts, "", origin])
        pages = [f"## {title}\n\n{text.strip()}" for title, text in sections.items()]
        self.path.write_text("\n\n".join([introduction.strip(), *pages]) + "\n", "utf-8")
