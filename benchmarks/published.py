"""The published package, bsconv 0.4.0, installed apart from ours."""

from __future__ import annotations

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PEER = Path(os.environ.get("BSCONV_PEER") or ROOT / ".peer").absolute()
SCRIPT = "bin/bsconv_pytorch_train.py"  # its training script, within its folder
ADVICE = "the published package is not there: pip install --no-deps --target .peer bsconv==0.4.0"


def is_installed() -> bool:
    return (PEER / "bsconv" / "pytorch").is_dir() and (PEER / SCRIPT).is_file()


def become_published() -> None:
    """Makes ``import bsconv`` mean the published package in this process, for good.

    The path entry and the finder of an editable install would answer for ours.
    """
    finders = [each for each in sys.meta_path if "__editable__" not in _module_of(each)]
    sys.meta_path[:] = finders
    others = [entry for entry in sys.path if Path(entry or ".").resolve() != ROOT]
    sys.path[:] = [str(PEER), *others]
    import bsconv

    if list(bsconv.__path__) != [str(PEER / "bsconv")]:
        raise RuntimeError(f"not the published package: {list(bsconv.__path__)}")


def _module_of(finder: object) -> str:
    return str(getattr(finder, "__module__", ""))
