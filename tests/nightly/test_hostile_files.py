"""Files that want to run code, fill the memory or lead elsewhere: all refused in one line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence

import pytest

from helpers.paths import ROOT
from helpers.reliability import Section
from nightly.hostile import bombs, links, pickles

pytestmark = pytest.mark.nightly

MOST_MEGABYTES = 2500  # more than before, for the largest of the bombs
KINDS: dict[str, Mapping[str, object]] = {
    "pickles that call a function, as or in any file": pickles.CASES,
    "small files that claim to be large, values nested without end": bombs.CASES,
    "links and paths out of the folder, networks in other files": links.CASES,
}
LONGEST = 140  # characters of a line in the table


def test_every_file_is_refused_in_one_line_and_takes_little_memory(section: Section) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "nightly.hostile"],
        cwd=ROOT / "tests",
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=900,
        check=True,
    )
    found = json.loads(ended.stdout.splitlines()[-1])
    assert found["megabytes"] < MOST_MEGABYTES
    section("Nothing executes", text(found["refusals"], found["megabytes"]))


def text(refusals: Mapping[str, str], megabytes: int) -> str:
    """What was tried with the line that refused it, and what is true of the code."""
    lines = [
        f"{len(refusals)} files, made to run code when they are read, to fill the memory, or to"
        " lead out of their folder, were given to every reader of the package. Each was refused"
        f" in one line, none ran anything, and all took {megabytes:,} MB of memory at most. The"
        " tests also show that the same files do run code in `pickle` and in NumPy with"
        " `allow_pickle`. Exported programs (`.pt2`) are not among them: open only those that"
        " you trust.",
        "",
        "| what they are | files | for example | which is refused as |",
        "|---|---|---|---|",
        *(
            row(kind, [name for name in cases if name in refusals], refusals)
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
        "- What continuous integration installs is pinned in `requirements.lock`. Nothing is"
        " claimed about known vulnerabilities; `pip-audit --requirement requirements.lock` asks"
        " for them.",
    ]
    return "\n".join(lines)


def row(kind: str, cases: Sequence[str], refusals: Mapping[str, str]) -> str:
    """The last of each kind stands for it; nothing in the line is markup."""
    line = refusals[cases[-1]]
    short = line if len(line) <= LONGEST else line[:LONGEST].rsplit(" ", 1)[0] + " ..."
    cell = "`" + short.replace("|", "/").replace("`", "'") + "`"
    return f"| {kind} | {len(cases)} | {cases[-1]} | {cell} |"
