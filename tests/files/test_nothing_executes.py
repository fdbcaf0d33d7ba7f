"""No line of the package could run what is in a file."""

import ast
from pathlib import Path

import pytest

from helpers.paths import ROOT

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
        ("run = exec", "1: exec"),
        ("from os import system as run\nrun('ls')", "2: os.system"),
        ("import subprocess\nsubprocess.run('ls', shell=True)", "2: shell="),
        ("import pickle as p\np.loads(b'')", "2: pickle.loads"),
        ("from torch import load\nload(f)", "2: torch.load without"),
        ("import numpy as np\nnp.load(f)", "2: numpy.load without allow_pickle=False"),
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
