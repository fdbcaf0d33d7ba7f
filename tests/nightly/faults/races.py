"""Several processes that train in one folder at the same moment."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ..runs import Runs, check_refused, check_same


def in_one_folder(
    runs: Runs, folder: Path, straight: Path, rounds: int, at_once: int
) -> dict[str, int]:
    """Of so many at once, in a new folder each round, one trains and the others say so.

    AssertionError where another thing happens, or what was trained differs from ``straight``.
    """
    refused = 0
    for number in range(rounds):
        out = folder / f"round{number}"
        processes = [runs.start(out) for _ in range(at_once)]
        with ThreadPoolExecutor(at_once) as pool:
            said = list(pool.map(lambda process: process.communicate(timeout=600), processes))
        codes = [process.returncode for process in processes]
        for code, (_, errors) in zip(codes, said, strict=True):
            if code != 0:
                check_refused(code, errors)
                if "another process is training in" not in errors:
                    raise AssertionError(f"refused for another reason: {errors}")
                refused += 1
        if all(codes):
            raise AssertionError("none of them has trained")
        check_same(straight, out)
    return {"rounds": rounds, "processes": rounds * at_once, "refused": refused}
