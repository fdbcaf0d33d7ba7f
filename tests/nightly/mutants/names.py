"""Prints the names of all mutants of the project in the working directory, one a line."""

from __future__ import annotations

from pathlib import Path

from mutmut.mutation.file_mutation import mutate_file_contents
from mutmut.utils.format_utils import get_mutant_name

from . import MUTATED

if __name__ == "__main__":
    for path in sorted(Path(MUTATED).rglob("*.py")):
        made = mutate_file_contents(str(path), path.read_text(encoding="utf-8"))
        for name in made.mutant_names:
            print(get_mutant_name(path, name))
