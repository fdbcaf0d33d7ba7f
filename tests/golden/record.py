"""Ask the published package 0.4.0 and write down its answers.

usage: python tests/golden/record.py [FOLDER]

Needs that package in .peer, where `make .peer` puts it, or in the folder $BSCONV_PEER.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PEER = Path(os.environ.get("BSCONV_PEER") or ROOT / ".peer").absolute()
NAMES = ("foreign", "networks", "counts", "first_weights", "questions")

# Runs in a Python whose bsconv is the published one and nothing else: the path entry or the finder
# of an editable install would answer for every module that the published one lacks.
ASK = """
import sys
peer, project, here = sys.argv[1:4]
sys.meta_path[:] = [f for f in sys.meta_path if "__editable__" not in getattr(f, "__module__", "")]
sys.path[:] = [peer, here, *(entry for entry in sys.path if entry != project)]
import bsconv, bsconv.pytorch
assert bsconv.__path__ == [peer + "/bsconv"], f"not the published package: {bsconv.__path__}"
import json, warnings
import torch
from torch import nn
import measures, questions
warnings.simplefilter("ignore")  # 0.4.0 warns of types that it has no FLOPs for

def counted(names):
    # its profiler makes its input, and runs BatchNorm and ReLU, in ways that the meta device
    # refuses or takes milliseconds for; shapes are all that it looks at
    for name in vars(nn.init):
        if name.endswith("_") and not name.startswith("_"):
            setattr(nn.init, name, lambda tensor, *_, **__: tensor)
    for layer in (nn.BatchNorm2d, nn.ReLU, nn.ReLU6):
        layer.forward = lambda self, input: input
    profiler = bsconv.pytorch.ModelProfiler
    profiler.get_input = lambda self, size, device: torch.empty(size, device="meta")
    return measures.counts(names)

answers = {name: getattr(measures, name)() for name in ("foreign", "networks", "first_weights")}
answers["questions"] = questions.questions()
answers["counts"] = counted(json.load(sys.stdin))
json.dump(answers, open("answers.json", "w"))
"""


def record(folder: Path) -> None:
    """Write what 0.4.0 answers into ``folder``, a file for each of NAMES."""
    from bsconv.pytorch import list_models

    with tempfile.TemporaryDirectory() as work:
        # -I: no PYTHONPATH and no working directory on the path
        command = [sys.executable, "-I", "-c", ASK, str(PEER), str(ROOT), str(HERE)]
        names = json.dumps(list_models())
        subprocess.run(command, cwd=work, input=names, text=True, check=True, timeout=900)
        answers = json.loads(Path(work, "answers.json").read_text(encoding="utf-8"))
    for name in NAMES:
        (folder / f"{name}.json").write_text(as_lines(answers[name]), encoding="utf-8")


def as_lines(answers: object) -> str:
    """JSON with a line for each entry."""
    opening, closing = ("{", "}") if isinstance(answers, dict) else ("[", "]")
    entries = (
        [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in answers.items()]
        if isinstance(answers, dict)
        else [json.dumps(value) for value in answers]  # type: ignore[attr-defined]
    )
    return opening + "\n " + ",\n ".join(entries) + "\n" + closing + "\n"


if __name__ == "__main__":
    record(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE)
