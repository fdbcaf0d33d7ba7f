"""Prints the names of all mutants of the files and folders that it is given, one a line."""

from __future__ import annotations

import sys
from pathlib import Path

from mutmut.mutation.file_mutation import mutate_file_contents
from mutmut.utils.format_utils import get_mutant_name

if __name__ == "__main__":
    for place in map(Path, sys.argv[1:]):
        for path in [place] if place.suffix else sorted(place.rglob("*.py")):
            made = mutate_file_contents(str(path), path.read_text(encoding="utf-8"))
            for name in made.mutant_names:
                print(get_mutant_name(path, name))
