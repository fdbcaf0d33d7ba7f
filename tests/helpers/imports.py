"""Which modules of the package import which, read from their syntax trees."""

import ast
import functools
from pathlib import Path

from helpers.paths import ROOT

PACKAGE = ROOT / "bsconv"


def imported(source: str, module: str, is_package: bool = False) -> set[str]:
    """What ``source``, the file of ``module``, imports anywhere, as absolute dotted names.

    ``from .a import b`` gives ``package.a.b``, which may be a module or a name in ``package.a``.
    """
    package = module if is_package else module.rpartition(".")[0]
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1]
            base = ".".join([*(above if node.level else []), *filter(None, [node.module])])
            names |= {f"{base}.{alias.name}" for alias in node.names}
    return names


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@functools.cache
def imports() -> dict[str, set[str]]:
    """For each module of the package the modules that it imports, others by their full names."""
    read = {
        module_name(path): imported(path.read_text(), module_name(path), path.stem == "__init__")
        for path in sorted(PACKAGE.rglob("*.py"))
    }

    def module_of(name: str) -> str:
        parent = name.rpartition(".")[0]
        return parent if name not in read and parent in read else name

    return {module: {module_of(name) for name in names} for module, names in read.items()}
