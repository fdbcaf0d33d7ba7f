"""Nothing executes: files are read as data, and no line of the package could run what is in one."""

import ast
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from helpers.paths import ROOT
from nightly import hostile
from nightly.hostile import bombs, pickles
from nightly.hostile.traps import SPRUNG

LONG = ("a billion lists", "unpacks to 2 GiB", "more than 64 MiB")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if name.endswith(LONG) else ())
        for name in hostile.CASES
    ],
)
def test_refused_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(bombs, "LARGE", 2**30 + 2**24)  # what CIFAR may have, and a little more
    folder = tmp_path / "folder"
    folder.mkdir()
    assert hostile.refusal(name, folder)


# --- the traps do spring --------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("call", pickles.CALLS)
def test_unpickling_runs_them(tmp_path: Path, call: str) -> None:
    pickle.loads(pickle.dumps(pickles.CALLS[call](tmp_path)))
    assert (tmp_path / SPRUNG).is_dir()


def test_numpy_runs_them_where_it_may(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Object arrays cannot be loaded"):
        hostile.CASES["cifar10.npz of objects"](tmp_path)
    with np.load(tmp_path / "cifar10.npz", allow_pickle=True) as archive:
        assert archive["classes"] is not None
    assert (tmp_path / SPRUNG).is_dir()


def test_a_case_that_is_read_or_runs_code_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def springs(folder: Path) -> None:
        (folder / SPRUNG).mkdir()
        raise ValueError("refused, but too late")

    def says_too_much(folder: Path) -> None:
        raise ValueError("Traceback\nand more")

    for case, message in (
        (lambda folder: None, "was read"),
        (springs, "has run code"),
        (says_too_much, "other than one line"),
    ):
        monkeypatch.setitem(hostile.CASES, "case", case)
        with pytest.raises(AssertionError, match=message):
            hostile.refusal("case", tmp_path)
        if (tmp_path / SPRUNG).exists():
            (tmp_path / SPRUNG).rmdir()


# --- what is read as it is ------------------------------------------------------------------------


def test_an_archive_of_torch_without_checksums_is_read(tmp_path: Path) -> None:
    """An option of torch.save leaves them out."""
    from torch.utils.serialization import config

    from bsconv.experiments.files.weights import read_weights

    with config.patch({"save.compute_crc32": False}):
        torch.save({"weight": torch.ones(3)}, tmp_path / "weights.pt")
    with zipfile.ZipFile(tmp_path / "weights.pt") as archive:
        assert not any(member.CRC for member in archive.infolist())
    torch.testing.assert_close(read_weights(tmp_path / "weights.pt"), {"weight": torch.ones(3)})


def test_tensors_that_repeat_a_number_are_read(tmp_path: Path) -> None:
    from bsconv.experiments.files.weights import read_weights

    torch.save({"table": torch.arange(4.0).expand(1000, 4)}, tmp_path / "weights.pt")
    assert read_weights(tmp_path / "weights.pt")["table"].shape == (1000, 4)


# --- the package's own code -----------------------------------------------------------------------

FORBIDDEN = {
    "eval",
    "exec",
    "__import__",
    "os.system",
    "os.popen",
    "pickle.load",
    "pickle.loads",
    "pickle.Unpickler",
    "marshal.load",
    "marshal.loads",
    "yaml.load",
    "yaml.unsafe_load",
    "joblib.load",
    "dill.load",
    "shelve.open",
    "torch.jit.load",
    "torch.hub.load",
    "torch.package.PackageImporter",
    "sympify",
}
ONLY_HERE = {"torch.export.load": "bsconv/experiments/export/_run.py"}


def calls_that_run(source: str, where: str = "") -> list[str]:
    """What in ``source`` runs text, commands or the content of files, by line."""
    found, names = [], dict[str, str]()
    tree = ast.parse(source)
    for node in ast.walk(tree):  # what the file calls things
        if isinstance(node, ast.Import):
            names |= {each.asname or each.name: each.name for each in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {each.asname or each.name: f"{node.module}.{each.name}" for each in node.names}
    for node in ast.walk(tree):
        if not isinstance(node, (ast.Name, ast.Attribute, ast.Call)):
            continue
        if isinstance(node, ast.Call):
            given = {each.arg: ast.unparse(each.value) for each in node.keywords}
            called = _full_name(node.func, names)
            if called == "compile":  # as a name alone, it is also an argument's
                found.append(f"{node.lineno}: compile")
            if given.get("shell", "False") != "False":
                found.append(f"{node.lineno}: shell=")
            if called == "torch.load" and given.get("weights_only") != "True":
                found.append(f"{node.lineno}: torch.load without weights_only=True")
            if called == "numpy.load" and given.get("allow_pickle") != "False":
                found.append(f"{node.lineno}: numpy.load without allow_pickle=False")
        else:
            name = _full_name(node, names)
            if name in FORBIDDEN or ONLY_HERE.get(name, where) != where:
                found.append(f"{node.lineno}: {name}")
    return found


def _full_name(node: ast.expr, names: dict[str, str]) -> str:
    """``np.load`` as ``numpy.load``; "" for what has no name."""
    if isinstance(node, ast.Attribute):
        inner = _full_name(node.value, names)
        return f"{inner}.{node.attr}" if inner else ""
    return names.get(node.id, node.id) if isinstance(node, ast.Name) else ""


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("eval('1')", "1: eval"),
        ("run = exec", "1: exec"),
        ("compile('1', '', 'eval')", "1: compile"),
        ("import os\nos.system('ls')", "2: os.system"),
        ("from os import system as run\nrun('ls')", "2: os.system"),
        ("import subprocess\nsubprocess.run('ls', shell=True)", "2: shell="),
        ("import pickle as p\np.loads(b'')", "2: pickle.loads"),
        ("import torch\ntorch.load(f)", "2: torch.load without weights_only=True"),
        ("import torch\ntorch.load(f, weights_only=False)", "2: torch.load without"),
        ("from torch import load\nload(f)", "2: torch.load without"),
        ("import numpy as np\nnp.load(f)", "2: numpy.load without allow_pickle=False"),
        ("import torch\ntorch.export.load(f)", "2: torch.export.load"),
        ("import yaml\nyaml.load(f)", "2: yaml.load"),
    ],
)
def test_calls_that_run_are_found(source: str, expected: str) -> None:
    (found,) = calls_that_run(source)
    assert found.startswith(expected)


def test_calls_that_do_not_run_are_left() -> None:
    source = """
import numpy as np, torch
model.eval()
torch.load(f, weights_only=True)
np.load(f, allow_pickle=False)
torch.compile(model)
train(compile=True)
"""
    assert calls_that_run(source) == []


@pytest.mark.parametrize(
    "path",
    [path.relative_to(ROOT).as_posix() for path in sorted((ROOT / "bsconv").rglob("*.py"))],
)
def test_no_module_runs_what_it_reads(path: str) -> None:
    assert calls_that_run((ROOT / path).read_text(), path) == []


def test_no_module_starts_a_shell_or_another_program() -> None:
    imported = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "bsconv").rglob("*.py")
        if {"subprocess", "pty", "runpy", "code", "pickle", "marshal"} & _modules(path)
    }
    assert imported == set()


def _modules(path: Path) -> set[str]:
    nodes = list(ast.walk(ast.parse(path.read_text())))
    plain = {name.name for node in nodes if isinstance(node, ast.Import) for name in node.names}
    return plain | {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}
