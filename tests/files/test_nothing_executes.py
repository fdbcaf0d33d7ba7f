"""No line of the package could run what is in a file."""

import ast
from collections.abc import Iterator

import pytest

from helpers.imports import PACKAGE, imports
from helpers.paths import ROOT

MODULES = {
    "code", "dill", "joblib", "marshal", "pickle", "pty", "runpy", "shelve", "subprocess", "yaml",
}  # fmt: skip
NAMES = {
    "eval", "exec", "compile", "__import__", "system", "popen", "torch.jit.load", "torch.hub.load",
    "sympify", "PackageImporter",
}  # fmt: skip
SAFE = {"torch.load": ("weights_only", "True"), "np.load": ("allow_pickle", "False")}
TRUSTED = {"torch.export.load": "bsconv/experiments/export.py"}  # as its docstring says


def calls_that_run(source: str, where: str = "") -> Iterator[str]:
    """What in ``source`` runs text, commands or the content of files, by line."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            given = {each.arg: ast.unparse(each.value) for each in node.keywords}
            option, value = SAFE.get(called, ("", None))
            unsafe = called in NAMES or called.rpartition(".")[2] in NAMES - {"eval", "compile"}
            if unsafe or given.get(option) != value or TRUSTED.get(called, where) != where:
                yield f"{node.lineno}: {called}"


@pytest.mark.parametrize(
    "source", ["exec(x)", "os.system('ls')", "torch.load(f)", "np.load(f)", "torch.export.load(f)"]
)
def test_calls_that_run_are_found(source: str) -> None:
    assert len(list(calls_that_run(source))) == 1


@pytest.mark.parametrize(
    "path", [path.relative_to(ROOT).as_posix() for path in sorted(PACKAGE.rglob("*.py"))]
)
def test_no_module_runs_what_it_reads(path: str) -> None:
    assert list(calls_that_run((ROOT / path).read_text(), path)) == []


def test_no_module_starts_another_program_or_unpickles() -> None:
    hidden = {"torch.load", "numpy.load", "os.system", "os.popen"}  # `from torch import load`
    for module, names in imports().items():
        packages = {name.partition(".")[0] for name in names}
        assert packages & MODULES | names & hidden == set(), module
