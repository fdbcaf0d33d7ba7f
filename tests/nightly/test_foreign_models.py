"""Replacers on some hundreds of models of torchvision, pytorchcv and timm."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from statistics import median
from typing import Any

import pytest

from helpers.reliability import Section
from nightly.foreign import table
from nightly.foreign.libraries import LIBRARIES, RULES, names
from nightly.foreign.trial import trial

pytestmark = [pytest.mark.nightly, pytest.mark.filterwarnings("ignore")]  # theirs

SECONDS = 60  # of computing, for one model
EVERY = 20  # of the models is exported too, in one format and the other by turns
FORMATS = ("exported-program", "onnx")


class TooSlow(BaseException):  # not to be taken for an error of the model
    """The time for one model is over."""


@pytest.fixture(scope="module")
def found() -> dict[str, list[dict[str, Any]]]:
    """What came of each model, by library."""
    return {}


@pytest.fixture
def time_limit() -> Iterator[None]:
    def stop(*_: object) -> None:
        raise TooSlow

    former = signal.signal(signal.SIGPROF, stop)
    yield
    signal.setitimer(signal.ITIMER_PROF, 0)
    signal.signal(signal.SIGPROF, former)


@pytest.mark.usefixtures("time_limit")
@pytest.mark.parametrize("library", LIBRARIES)
def test_models_work_as_bsconv(library: str, found: dict[str, list[dict[str, Any]]]) -> None:
    models = [
        attempt(library, name, FORMATS[number // EVERY % 2] if number % EVERY == 0 else "")
        for number, name in enumerate(names(library))
    ]
    broken = [f"{one['model']}: {one['outcome']}" for one in models if "broken" in one["outcome"]]
    assert broken == []
    found[library] = models


def attempt(library: str, name: str, export: str) -> dict[str, Any]:
    """What came of a model, by its shapes where it takes too long otherwise."""
    outcome = f"not run: takes more than {SECONDS} seconds"
    for by_shapes in (False, True):
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        try:
            return trial(library, name, export, by_shapes=by_shapes)
        except TooSlow:
            continue
        except Exception as error:
            outcome = f"broken: {type(error).__name__}: {' '.join(str(error).split())[:500]}"
            break
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
    return {"library": library, "model": name, "outcome": outcome}


def test_the_pages(
    found: dict[str, list[dict[str, Any]]], section: Section, pytestconfig: pytest.Config
) -> None:
    assert list(found) == list(LIBRARIES), "another test failed"
    if pytestconfig.getoption("reliability") is not None:
        table.write([model for models in found.values() for model in models])
    section("Models of other libraries", text({name: summary(found[name]) for name in found}))


def summary(models: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the page says of one library."""
    works = [one for one in models if one["outcome"] == "works"]
    nothing = [one for one in models if one["outcome"] == "nothing to replace"]
    read = [one for one in models if "convolutions" in one]
    kept: Counter[str] = Counter()
    for one in read:
        kept.update(one["kept"])
    return {
        "version": metadata.version(models[0]["library"]),
        "models": len(models),
        "works": len(works),
        "by shapes": sum(one["device"] == "meta" for one in works),
        "nothing to replace": len(nothing),
        "not run": {
            one["model"]: one["outcome"]
            for one in models
            if one not in works and one not in nothing
        },
        "convolutions": sum(one["convolutions"] for one in read),
        "replaced": sum(one["replaced"]["U"] for one in read),
        "kept": kept,
        "share": {variant: median(share(one, variant) for one in works) for variant in "US"},
        "exported": Counter(one["exported"] for one in works if "exported" in one),
    }


def share(found: Mapping[str, Any], variant: str) -> float:
    left: float = found["parameters"][variant] / found["parameters"]["dense"]
    return left


def text(figures: Mapping[str, Mapping[str, Any]]) -> str:
    """The counts side by side, why layers are kept, and what was not run."""
    found = list(figures.values())
    titles = [f"{library} {one['version']}" for library, one in figures.items()]
    rows = {
        "models": [f"{one['models']}" for one in found],
        "work as BSConv-U and BSConv-S": [f"{one['works']}" for one in found],
        "... of them by shapes alone": [f"{one['by shapes']}" for one in found],
        "have nothing to replace": [f"{one['nothing to replace']}" for one in found],
        "do not run here themselves": [f"{len(one['not run'])}" for one in found],
        "convolutions": [f"{one['convolutions']:,}" for one in found],
        "... replaced": [f"{one['replaced']:,}" for one in found],
    }
    reasons = sum((one["kept"] for one in found), Counter[str]())
    for reason, _ in reasons.most_common():
        rows[f"... kept: {reason}"] = [f"{one['kept'][reason]:,}" for one in found]
    for variant in "US":
        shares = [f"{one['share'][variant]:.1%}" for one in found]
        rows[f"parameters left by BSConv-{variant}, median"] = shares
    exported = sum((one["exported"] for one in found), Counter[str]())
    not_run = {name: reason for one in found for name, reason in one["not run"].items()}
    return "\n".join(
        [
            f"These were tried: {'; '.join(f'of {name} {RULES[name]}' for name in LIBRARIES)}."
            " [Each model](foreign_models.md) is listed with what is replaced in it, what is kept"
            " and why, and what works means.",
            "",
            f"| | {' | '.join(titles)} |",
            f"| --- |{' ---: |' * len(titles)}",
            *(f"| {name} | {' | '.join(cells)} |" for name, cells in rows.items()),
            "",
            f"Every {EVERY}th of all was exported as BSConv-S too, if something is replaced in it,"
            " and the file computes the same:"
            f" {', '.join(f'{count} x {what}' for what, count in exported.items())}.",
            "\nNot run here:\n" if not_run else "",
            *(f"- `{name}`: {why.removeprefix('not run: ')}" for name, why in not_run.items()),
        ]
    )
