"""All that needs a GPU: CUDA tests, benchmarks, records of trainings, notebooks in full mode.

``make gpu`` works through a list of steps for ten minutes, and goes on where it stopped when called
again; two calls do all of them on a fast GPU. The folder gpu/ (``--out``) then holds a log of each
step, the figures in benchmarks/, records for results/ in records/, the executed notebooks, and
progress.json. Steps that failed are tried again after all others. ``--device cpu`` tries the list
with tiny work. Where ``make env`` can't run, ``python3 -m benchmarks.gpu`` takes the packages that
are there: what they do not suffice for fails alone.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .arguments import positive
from .published import ROOT
from .records import current_commit, machine_class

PYTHON = sys.executable
CUDA_TESTS = (
    "tests/project/test_cuda.py",
    "tests/data/test_augmentation.py",
    "tests/inference_benchmark/test_inference_benchmark.py",
    "tests/spectra/test_spectra.py",
)
TRAINED = "cifar_resnet20_bsconvu", "cifar_resnet20_bsconvs_p1d4", "cifar_wrn16_4_bsconvu"
SHARED = "benchmarks.networks:resnet20_bsconvcp"
SEEDS = 0, 1, 2
EPOCHS_OF_RECORDS = {
    "cifar_resnet20": 20,
    "cifar_resnet20_bsconvu": 20,
    "cifar_resnet20_bsconvs_p1d4": 20,
    "cifar_resnet20_bsconvs_p1d2": 20,
    SHARED: 20,
    "cifar_wrn16_1_bsconvs_p1d4": 40,
    "cifar_mobilenetv1_w1d4": 20,
    "cifar_mobilenetv1_w1d4_bsconvu": 20,
    "cifar_mobilenetv2_w1d4": 20,
    "cifar_mobilenetv2_w1d4_bsconvs_p1d6": 20,
}
Command = list[str]
Run = Callable[[list[Command], Path, float], bool]


@dataclass(frozen=True)
class Step:
    """Commands that run side by side, then one that needs what they made."""

    name: str
    commands: list[Command]
    then: Command | None = None


def steps(out: Path, device: str) -> list[Step]:
    """The whole list, the most telling first; small where the device is a CPU."""
    small = device == "cpu"
    tests = [PYTHON, "-m", "pytest", "-q", "-rs", "-k", "gpu or cuda", *CUDA_TESTS]
    made = [Step("tests", [tests])]
    figures = ["--device", device, "--out", str(out / "benchmarks")]
    size = ["--dataset", "synthetic", "--images", "64", "--rounds", "1"] if small else ["--whole"]
    for models in (TRAINED[:1] if small else TRAINED, (SHARED,)):
        dense = ["--dense", "cifar_resnet20"] if models == (SHARED,) else []
        command = _benchmark("training", "--models", *models, *dense, *size, *figures)
        made.append(Step(f"training-{'cp' if dense else 'u-s'}", [command]))
    size = ["--rounds", "9"]
    if small:
        size = ["--size", "32", "--batch-size", "2", "--rounds", "1", "--dtypes", "float32"]
    variants = ["--models", "resnet18", "--variants", "U", "S", "CP"]
    made.append(Step("inference", [_benchmark("inference", *variants, *size, *figures)]))
    for model, epochs in EPOCHS_OF_RECORDS.items():
        made.append(_record(model, 1 if small else epochs, out, device))
    for path in sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb")):
        execute = ["--to", "notebook", "--execute", "--output-dir", str(out / "notebooks")]
        made.append(Step(path.stem, [[PYTHON, "-m", "nbconvert", *execute, str(path)]]))
    return made


def _benchmark(*arguments: str) -> Command:
    return [PYTHON, "-m", "benchmarks", *arguments]


def _record(model: str, epochs: int, out: Path, device: str) -> Step:
    """Trainings of all seeds, which go on where they were stopped, and their records."""
    name = model.rpartition(":")[2]
    size = ["--dataset", "synthetic", "--train-limit", "256"] if device == "cpu" else []
    recipe = ["--model", model, "--recipe", "fast", "--epochs", str(epochs), "--device", device]
    runs = {seed: out / "runs" / f"{name}-{seed}" for seed in SEEDS}
    trainings = []
    for seed, run in runs.items():
        begun = (run / "checkpoint.pt").exists()
        how = ["--resume"] if begun else [*recipe, *size, "--seed", str(seed)]
        trainings.append([PYTHON, "-m", "bsconv", "train", "--out", str(run), *how])
    commit = current_commit() or ""
    about = ["--machine", machine_class(), *(["--commit", commit] if commit else [])]
    record = [PYTHON, "results/record.py", *map(str, runs.values()), *about]
    return Step(f"train-{name}", trainings, [*record, "--out", str(out / "records")])


def run_commands(commands: list[Command], log: Path, seconds: float) -> bool:
    """Whether all ended well; TimeoutExpired, with none of them left, after so many seconds."""
    end = time.monotonic() + seconds
    with log.open("a") as printed:
        running = [
            subprocess.Popen(command, cwd=ROOT, stdout=printed, stderr=subprocess.STDOUT)
            for command in commands
        ]
        try:
            codes = [one.wait(max(0.0, end - time.monotonic())) for one in running]
            return not any(codes)
        finally:
            for one in running:
                one.terminate()
            for one in running:
                one.wait()


def main(argv: Sequence[str] | None = None, run: Run = run_commands) -> int:
    """0 where all that ran ended well, 1 where a step failed, 2 for bad input."""
    parser = argparse.ArgumentParser("benchmarks.gpu", description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "gpu", help="default gpu")
    parser.add_argument("--minutes", type=positive, default=10, help="of this call (default 10)")
    parser.add_argument("--device", default="cuda", help="cuda, or cpu for tiny work")
    parser.add_argument("--steps", nargs="+", metavar="STEP", help="these alone")
    given = parser.parse_args(argv)
    import torch

    if given.device != "cpu" and not torch.cuda.is_available():
        print("benchmarks.gpu: there is no GPU here; --device cpu tries it small", file=sys.stderr)
        return 2
    out = given.out.absolute()
    all_steps = {step.name: step for step in steps(out, given.device)}
    if unknown := set(given.steps or ()) - set(all_steps):
        known = ", ".join(all_steps)
        print(f"benchmarks.gpu: no step {sorted(unknown)[0]}; there are {known}", file=sys.stderr)
        return 2
    chosen = {name: step for name, step in all_steps.items() if name in (given.steps or all_steps)}
    os.environ.setdefault("BSCONV_MODE", "fast" if given.device == "cpu" else "full")
    return _work(chosen, out, time.monotonic() + 60 * given.minutes, run)


def _note(out: Path, progress: dict[str, Any], name: str, passed: bool, start: float) -> None:
    progress["steps"].pop(name, None)  # the latest comes last
    progress["steps"][name] = {"passed": passed, "seconds": round(time.monotonic() - start, 1)}
    (out / "progress.json").write_text(json.dumps(progress, indent=1) + "\n")


def _work(all_steps: dict[str, Step], out: Path, end: float, run: Run) -> int:
    """Steps in their order until the time is over; those that failed before come last."""
    out.mkdir(parents=True, exist_ok=True)
    progress = _progress(out)
    known = progress["steps"]
    left = [name for name in all_steps if name not in known]
    left += [name for name in known if name in all_steps and not known[name]["passed"]]
    failed, begun = [], len(left)
    while left and time.monotonic() < end:
        name, start = left[0], time.monotonic()
        print(f"gpu: {name} ...", flush=True)
        step, log = all_steps[name], out / f"{name}.log"
        try:
            passed = run(step.commands, log, end - start)
            if passed and step.then is not None:
                passed = run([step.then], log, 60)
        except subprocess.TimeoutExpired:
            if len(left) == begun:  # it had all the time: next time, the others come first
                _note(out, progress, name, passed=False, start=start)
            break
        _note(out, progress, name, passed, start)
        print(f"gpu: {name} {'passed' if passed else f'FAILED, see {log}'}")
        failed += [] if passed else [name]
        left.remove(name)
    if left:
        print(f"gpu: {len(left)} steps are left ({', '.join(left)}); go on with: make gpu")
    else:
        print(f"gpu: all done, see {out}")
    return 1 if failed else 0


def _progress(out: Path) -> dict[str, Any]:
    """What earlier calls did, or nothing yet on this machine."""
    import torch

    try:
        read: dict[str, Any] = json.loads((out / "progress.json").read_text())
    except FileNotFoundError:
        versions = {"python": platform.python_version(), "torch": torch.__version__}
        about = {"machine": machine_class(), "commit": current_commit(), "versions": versions}
        return {**about, "steps": {}}
    return read


if __name__ == "__main__":
    sys.exit(main())
