"""`make nightly`: which checks are run, what is recorded, and the page that is made of it."""

from __future__ import annotations

import types
from pathlib import Path
from typing import Any

import pytest

from nightly import checks, page, records
from nightly.__main__ import main


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """The checks that were run, each of which finds what its name is; nothing else is touched."""
    names: list[str] = []

    def load(name: str) -> types.SimpleNamespace:
        def run() -> dict[str, Any]:
            names.append(name)
            if name == "numbers":
                raise RuntimeError("two promises are broken")
            return {"found": name}

        return types.SimpleNamespace(
            TITLE=f"Title of {name}", run=run, section=lambda figures: figures["found"]
        )

    monkeypatch.setattr(checks, "load", load)
    monkeypatch.setattr(records, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(page, "PAGE", tmp_path / "reliability.md")
    return names


def test_without_names_all_checks_run_and_the_others_go_on_where_one_fails(
    ran: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([]) == 1
    assert ran == list(checks.NAMES)
    assert capsys.readouterr().err.endswith("reliability: FAILED: numbers\n")
    text = page.PAGE.read_text(encoding="utf-8")
    assert "## Title of surgery\n\nsurgery\n\n`python -m reliability surgery`: 0.0 minutes" in text
    assert "Not measured yet: `python -m reliability numbers`" in text


def test_a_broken_promise_keeps_the_former_figures(ran: list[str]) -> None:
    records.write("numbers", {"found": "the former ones"}, 60)
    assert main(["numbers"]) == 1
    assert "the former ones" in page.PAGE.read_text(encoding="utf-8")


def test_the_page_says_how_long_all_checks_take(ran: list[str]) -> None:
    for name in checks.NAMES[1:]:
        records.write(name, {"found": name}, 60)
    assert "Together" not in page.render()
    records.write(checks.NAMES[0], {"found": ""}, 180)
    assert f"Together they took {len(checks.NAMES) + 2} minutes." in page.render()


def test_named_checks_run_alone(ran: list[str]) -> None:
    assert main(["mutation", "surgery"]) == 0
    assert ran == ["mutation", "surgery"]
    assert main(["page"]) == 0
    assert ran == ["mutation", "surgery"]


def test_a_name_that_is_none_is_refused(ran: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["sugery"])
    assert "must be one of page, surgery," in capsys.readouterr().err
    assert not ran


def test_the_page_is_what_was_recorded() -> None:
    assert page.PAGE.read_text(encoding="utf-8") == page.render(), "python -m reliability page"
