"""Files that want to run code, fill the memory or lead elsewhere: all refused in one line."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from ..hostile import bombs, links, pickles

TITLE = "Nothing executes"
MOST_MEGABYTES = 2500  # more than before, for the largest of the bombs
KINDS: dict[str, Mapping[str, object]] = {
    "pickles that call a function, as or in any file": pickles.CASES,
    "small files that claim to be large, values nested without end": bombs.CASES,
    "links and paths out of the folder, networks in other files": links.CASES,
}
LONGEST = 140  # characters of a line in the table


def run() -> dict[str, Any]:
    """Raises AssertionError where a file was read, ran code or took the memory that it claims."""
    command = [sys.executable, "-m", "nightly.hostile"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    if ended.returncode != 0:
        raise AssertionError(ended.stderr[-2000:])
    figures: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    if figures["megabytes"] > MOST_MEGABYTES:
        raise AssertionError(f"the files took {figures['megabytes']} MB of memory")
    return figures


def section(figures: Mapping[str, Any]) -> str:
    """What was tried with the line that refused it, and what is true of the code."""
    refusals = figures["refusals"]
    lines = [
        f"{len(refusals)} files, made to run code when they are read, to fill the memory, or to"
        " lead out of their folder, were given to every reader of the package. Each was refused"
        f" in one line, none ran anything, and all took {figures['megabytes']:,} MB of memory at"
        " most. The tests also show that the same files do run code in `pickle`, in NumPy with"
        " `allow_pickle`.",
        "",
        "| what they are | files | for example | which is refused as |",
        "|---|---|---|---|",
        *(
            _row(kind, [case for case in cases if case in refusals], refusals)
            for kind, cases in KINDS.items()
        ),
        "",
        "- No line of `bsconv/` calls `eval`, `exec`, a shell or another program, unpickles, or"
        " loads with `torch.load` or `numpy.load` in a way that could;"
        " `tests/files/test_hostile_files.py` reads the syntax trees to say so. No file is"
        " unpacked onto the disk, and no YAML is read.",
        "- CIFAR is fetched through torchvision, which compares its checksum before it unpacks and"
        " unpickles. Processes of one run that torchrun has started send one another pickles over"
        " the network that they share.",
        "- What continuous integration installs is pinned in `requirements.lock`. `pip-audit` was"
        " tried on it: the service that it asks for known vulnerabilities could not be reached, so"
        " nothing is claimed about them; `pip-audit --requirement requirements.lock` asks it.",
    ]
    return "\n".join(lines)


def _row(kind: str, cases: Sequence[str], refusals: Mapping[str, str]) -> str:
    """The last of each kind stands for it."""
    return f"| {kind} | {len(cases)} | {cases[-1]} | {_cell(refusals[cases[-1]])} |"


def _cell(line: str) -> str:
    """A line as a cell of a table: short, and nothing in it is markup."""
    short = line if len(line) <= LONGEST else line[:LONGEST].rsplit(" ", 1)[0] + " ..."
    return "`" + short.replace("|", "/").replace("`", "'") + "`"
