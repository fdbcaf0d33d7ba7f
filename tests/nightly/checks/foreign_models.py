"""Replacers on some hundreds of models of torchvision, pytorchcv and timm."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from importlib import metadata
from statistics import median
from typing import Any

from ..foreign import table
from ..foreign.libraries import LIBRARIES, RULES, names
from ..foreign.workers import Job, try_models

TITLE = "Models of other libraries"

EVERY = 20  # of the models is exported too, in one format and the other by turns
FORMATS = ("exported-program", "onnx")


def run() -> dict[str, Any]:
    """Counts by library; writes docs/foreign_models.md. AssertionError where a model is broken."""
    every = [(library, name) for library in LIBRARIES for name in names(library)]
    jobs: list[Job] = [
        (library, name, FORMATS[i // EVERY % 2] if i % EVERY == 0 else "")
        for i, (library, name) in enumerate(every)
    ]
    models = try_models(jobs)
    broken = [found for found in models if found["outcome"].startswith("broken")]
    if broken:
        raise AssertionError("\n".join(f"{f['model']}: {f['outcome']}" for f in broken))
    table.write(models)
    return {
        library: summary([f for f in models if f["library"] == library]) for library in LIBRARIES
    }


def summary(models: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the page says of one library."""
    works = [found for found in models if found["outcome"] == "works"]
    nothing = [found for found in models if found["outcome"] == "nothing to replace"]
    read = [found for found in models if "convolutions" in found]
    kept: Counter[str] = Counter()
    for found in read:
        kept.update(found["kept"])
    return {
        "version": metadata.version(models[0]["library"]),
        "models": len(models),
        "works": len(works),
        "by shapes": sum(found["device"] == "meta" for found in works),
        "nothing to replace": len(nothing),
        "not run": {
            f["model"]: f["outcome"] for f in models if f not in works and f not in nothing
        },
        "convolutions": sum(found["convolutions"] for found in read),
        "replaced": sum(found["replaced"]["U"] for found in read),
        "kept": dict(kept.most_common()),
        "median share of parameters": {
            variant: round(median(share(found, variant) for found in works), 3) for variant in "US"
        },
        "exported": dict(Counter(found["exported"] for found in works if "exported" in found)),
    }


def share(found: Mapping[str, Any], variant: str) -> float:
    left: float = found["parameters"][variant] / found["parameters"]["dense"]
    return left


def section(figures: Mapping[str, Any]) -> str:
    """The counts side by side, why layers are kept, and what was not run."""
    found = [figures[library] for library in LIBRARIES]
    titles = [f"{library} {figures[library]['version']}" for library in LIBRARIES]
    rows: dict[str, list[str]] = {
        "models": [f"{f['models']}" for f in found],
        "work as BSConv-U and BSConv-S": [f"{f['works']}" for f in found],
        "... of them by shapes alone": [f"{f['by shapes']}" for f in found],
        "have nothing to replace": [f"{f['nothing to replace']}" for f in found],
        "do not run here themselves": [f"{len(f['not run'])}" for f in found],
        "convolutions": [f"{f['convolutions']:,}" for f in found],
        "... replaced": [f"{f['replaced']:,}" for f in found],
    }
    reasons: Counter[str] = Counter()
    for f in found:
        reasons.update(f["kept"])
    for reason, _ in reasons.most_common():
        rows[f"... kept: {reason}"] = [f"{f['kept'].get(reason, 0):,}" for f in found]
    for variant in "US":
        shares = [f["median share of parameters"][variant] for f in found]
        rows[f"parameters left by BSConv-{variant}, median"] = [f"{left:.1%}" for left in shares]
    exported: Counter[str] = Counter()
    not_run: dict[str, str] = {}
    for f in found:
        exported.update(f["exported"])
        not_run |= f["not run"]
    return "\n".join(
        [
            f"Tried are, of {' of '.join(f'{name} {RULES[name]};' for name in LIBRARIES)[:-1]}."
            " [Each model](foreign_models.md) is listed with what is replaced in it, what is kept"
            " and why, and what works means.",
            "",
            f"| | {' | '.join(titles)} |",
            f"| --- |{' ---: |' * len(titles)}",
            *(f"| {name} | {' | '.join(cells)} |" for name, cells in rows.items()),
            "",
            f"Every {EVERY}th of all was exported as BSConv-S too, if something is replaced in it,"
            f" and the file computes the same: {listed(exported)}.",
            *(["", "Not run here:", ""] if not_run else []),
            *(
                f"- `{name}`: {reason.removeprefix('not run: ')}"
                for name, reason in not_run.items()
            ),
        ]
    )


def listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} x {what}" for what, count in counts.items())
