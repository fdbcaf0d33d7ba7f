"""Have every hostile file read, in a process of its own; prints what came of it as JSON."""

import json
import resource
import tempfile
import warnings
from pathlib import Path

from . import CASES, refusal


def main() -> None:
    warnings.simplefilter("ignore")
    refusals = {}
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with tempfile.TemporaryDirectory(prefix="hostile-") as name:
        for number, case in enumerate(CASES):
            folder = Path(name) / str(number) / "folder"
            folder.mkdir(parents=True)
            line = refusal(case, folder)
            refusals[case] = line.replace(f"{folder}/", "").replace(str(folder), ".")
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"refusals": refusals, "megabytes": round((after - before) / 1024)}))


if __name__ == "__main__":
    main()
