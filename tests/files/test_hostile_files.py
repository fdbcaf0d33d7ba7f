"""Files that want to run code, fill the memory or lead elsewhere: all refused in one line."""

import contextlib
import io
import pickle
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from bsconv.__main__ import main
from bsconv.experiments.config import TrainConfig
from bsconv.experiments.export import load_exported
from bsconv.experiments.files.checkpoints import CHECKPOINT, CONFIG, METRICS, MODEL
from bsconv.experiments.files.weights import read_weights
from bsconv.experiments.results.spectra import TrainingSpectra
from helpers.hostile_files import CALLING, CASES, CLAIMING, LEADING, SPRUNG, TRAPS, trap
from helpers.reliability import Section
from results.record import make_record

LONG = ("a billion lists", "unpacks to 1 GiB", "more than 64 MiB")
MOST = 1200  # MiB that reading one file may take
NET = ("--model", "cifar_resnet20")


def command(*arguments: object) -> Callable[[Path], object]:
    """A command with the path of a file, or of its folder; ValueError with what stderr says."""

    def read(path: Path) -> None:
        places = {"FILE": path, "FOLDER": path.parent}
        said = io.StringIO()
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
            code = main([str(places.get(str(given), given)) for given in arguments])
        if code != 0:
            raise ValueError(said.getvalue().removesuffix("\n"))

    return read


OF_RUNS = command("evaluate", "--checkpoint", "FILE", "--dataset", "synthetic")
WEIGHTS = command("evaluate", *NET, "--weights", "FILE", "--dataset", "synthetic")
READERS: dict[str, Callable[[Path], object]] = {
    **dict.fromkeys((CHECKPOINT, MODEL), OF_RUNS),
    **dict.fromkeys(("weights.pt", "weights.pth", "weights.safetensors"), WEIGHTS),
    "cifar10.npz": command("data", "cifar10", "--data", "FOLDER"),
    CONFIG: command("train", *NET, "--out", "FOLDER", "--resume"),
    METRICS: lambda path: make_record(path.parent, machine="a machine"),
    "record.json": command("results", "--results", "FOLDER"),
    "spectra.json": TrainingSpectra.read,
    "pets": command("train", *NET, "--dataset", "FILE", "--epochs", 1),
    "network.onnx": load_exported,
}


def read(case: str, folder: Path) -> None:
    """Have the file made in ``folder``, which may be in a run, and read."""
    first = case.split(" ")[0].rstrip(":")
    name = first if first in READERS else "pets"
    if name == METRICS:
        (folder / CONFIG).write_text(TrainConfig().to_json())
    CASES[case](folder / name)
    READERS[name](folder / name)


def refusal(case: str, folder: Path) -> str:
    """With what line the file is refused; AssertionError where it is not, or where code ran."""
    folder = folder / "folder"
    folder.mkdir()
    with pytest.raises((ValueError, OSError), match=r"^.+$") as refused:
        read(case, folder)
    assert not (folder / SPRUNG).exists(), "it has run code"
    assert {path.name for path in folder.parent.iterdir()} <= {"folder", "private"}
    assert "\n" not in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize(
    "case",
    [pytest.param(case, marks=pytest.mark.slow if case.endswith(LONG) else ()) for case in CASES],
)
def test_refused_in_one_line(tmp_path: Path, case: str) -> None:
    assert refusal(case, tmp_path)


@pytest.mark.nightly
def test_all_of_them_take_little_memory(tmp_path: Path, section: Section) -> None:
    memory = Path("/proc/self/status")
    lines, most = {}, 0
    for number, case in enumerate(CASES):
        Path("/proc/self/clear_refs").write_text("5")  # the most so far is what there is now
        before = int(re.findall(r"VmRSS:\s*(\d+) kB", memory.read_text())[0])
        (tmp_path / str(number)).mkdir()
        lines[case] = refusal(case, tmp_path / str(number))
        taken = int(re.findall(r"VmHWM:\s*(\d+) kB", memory.read_text())[0]) - before
        most = max(most, taken // 1024)
    assert most < MOST
    kinds = {
        "pickles that call a function, as or in any file": CALLING,
        "small files that claim to be large, values nested without end": CLAIMING,
        "links and paths out of the folder, networks in other files": LEADING,
    }
    section(
        "Nothing executes",
        "\n".join(f"- {kind}: {len(cases)} files" for kind, cases in kinds.items())
        + f"\n- None took more than {most:,} MiB of memory.",
    )


# --- the traps do spring --------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("call", TRAPS)
def test_unpickling_runs_them(tmp_path: Path, call: str) -> None:
    pickle.loads(pickle.dumps(trap(tmp_path / "file", call)))
    assert (tmp_path / SPRUNG).is_dir()


def test_numpy_runs_them_where_it_may(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Object arrays cannot be loaded"):
        read("cifar10.npz of objects", tmp_path)
    with np.load(tmp_path / "cifar10.npz", allow_pickle=True) as archive:
        assert archive["classes"] is not None
    assert (tmp_path / SPRUNG).is_dir()


# --- what is read as it is ------------------------------------------------------------------------


def test_an_archive_of_torch_without_checksums_is_read(tmp_path: Path) -> None:
    """An option of torch.save leaves them out."""
    from torch.utils.serialization import config

    with config.patch({"save.compute_crc32": False}):
        torch.save({"weight": torch.ones(3)}, tmp_path / "weights.pt")
    with zipfile.ZipFile(tmp_path / "weights.pt") as archive:
        assert not any(member.CRC for member in archive.infolist())
    torch.testing.assert_close(read_weights(tmp_path / "weights.pt")[0], {"weight": torch.ones(3)})


def test_tensors_that_repeat_a_number_are_read(tmp_path: Path) -> None:
    torch.save({"table": torch.arange(4.0).expand(1000, 4)}, tmp_path / "weights.pt")
    assert read_weights(tmp_path / "weights.pt")[0]["table"].shape == (1000, 4)
