"""Write requirements.lock: the exact versions of all that `make env` has installed, and no more.

usage: .venv/bin/python .ci/lock.py

They are what bsconv with the extras lab and dev needs, directly or not, on the Python and the
system that this runs on.
"""

from __future__ import annotations

import platform
import sys
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
EXTRAS = ("lab", "dev")


def main() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"]]
    wanted += [one for extra in EXTRAS for one in project["optional-dependencies"][extra]]
    versions = installed(wanted)
    python = ".".join(platform.python_version_tuple()[:2])
    about = f"# What CI installs: Python {python} on {platform.system()}, written by .ci/lock.py.\n"
    lines = [f"{name}=={versions[name]}\n" for name in sorted(versions)]
    (ROOT / "requirements.lock").write_text(about + "".join(lines), encoding="utf-8")
    print(f"requirements.lock: {len(lines)} packages")


def installed(wanted: list[str]) -> dict[str, str]:
    """The version of each package that is wanted, or needed by one of them."""
    versions: dict[str, str] = {}
    done = set()
    waiting = [(Requirement(text), "") for text in wanted]
    while waiting:
        requirement, asked = waiting.pop()
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": asked}):
            continue
        name = canonicalize_name(requirement.name)
        for extra in ("", *requirement.extras):
            if (name, extra) not in done:
                done.add((name, extra))
                found = metadata.distribution(name)
                versions[name] = found.version.split("+")[0]
                waiting += [(Requirement(text), extra) for text in found.requires or ()]
    return versions


if __name__ == "__main__":
    main()
