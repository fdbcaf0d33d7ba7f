"""What others may rely on is written down in api_snapshot.txt; a change of it is made on purpose.

``python tests/project/test_api_snapshot.py`` accepts what there is now. What may change
between versions, and how, is said in docs/stability.md.
"""

import argparse
import dataclasses
import difflib
from collections.abc import Container, Iterator
from pathlib import Path

import griffe
import pytest

from bsconv.__main__ import make_parser
from bsconv.experiments.config import TrainConfig
from bsconv.experiments.files import checkpoints
from bsconv.experiments.results import _record, spectra
from bsconv.pytorch import BSConvS, BSConvU
from helpers.paths import ROOT

SNAPSHOT = Path(__file__).with_name("api_snapshot.txt")
ACCEPT = "python tests/project/test_api_snapshot.py"


def snapshot() -> list[str]:
    """All that is public, a line each."""
    return [*library_lines(), *command_lines(), *layer_lines(), *format_lines()]


# names, signatures and fields, read from the source: the same with every version of Python


def library_lines() -> Iterator[str]:
    library = griffe.load("bsconv.pytorch", search_paths=[ROOT], resolve_aliases=True)
    modules = [module for name, module in sorted(library.modules.items()) if name[0] != "_"]
    public = [(m, f"{each.path}.{m.name}") for each in (library, *modules) for m in members(each)]
    homes = {member.canonical_path: path for member, path in public}  # in the smallest module
    for member, path in public:
        if homes[member.canonical_path] != path:
            yield f"{path} = {homes[member.canonical_path]}"
        elif member.is_class:
            yield from class_lines(path, member, homes)
        else:
            yield member_line(path, member)


def members(module: griffe.Object) -> list[griffe.Object]:
    """What ``__all__`` lists, else the functions and classes that are defined there."""
    names = module.exports or [
        name
        for name, member in module.members.items()
        if not (name.startswith("_") or member.is_alias) and (member.is_class or member.is_function)
    ]
    return [module[name] for name in sorted(map(str, names))]


def class_lines(path: str, cls: griffe.Class, homes: Container[str]) -> Iterator[str]:
    """The class with its public bases and members, inherited ones included."""
    bases = [base for each in (cls, *cls.mro()) for base in each.bases]
    shown = [str(base) for base in bases if base.canonical_path in homes or not is_own(base)]
    yield f"class {path}({', '.join(dict.fromkeys(shown))})"
    if "NamedTuple" in shown:
        yield f"fields of {path}: {', '.join(cls.attributes)}"
    for name, member in sorted(cls.all_members.items()):
        if not name.startswith("_") or name == "__init__":
            yield member_line(f"{path}.{name}", member)


def is_own(base: griffe.Expr) -> bool:
    return base.canonical_path.startswith("bsconv.")


def member_line(path: str, member: griffe.Object) -> str:
    if member.is_function:
        kind = "".join(f"{label} " for label in member.labels & {"classmethod", "staticmethod"})
        return f"{kind}def {path.rpartition('.')[0]}.{member.signature(return_type=True)}"
    value = str(member.value)
    if "property" in member.labels or value.startswith("property("):
        return f"property {path}{', settable' if 'writable' in member.labels else ''}"
    if not member.annotation:  # what it is set to may change
        return f"attribute {path}"
    default = f" = {value}" if "class-attribute" in member.labels and member.value else ""
    return f"attribute {path}: {member.annotation}{default}"


# the command line


def command_lines() -> Iterator[str]:
    """The options of each command; argparse has no public way to them."""
    parser = make_parser()
    yield from option_lines(parser.prog, parser)
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, command in action.choices.items():
                yield from option_lines(f"bsconv {name}", command)


def option_lines(path: str, parser: argparse.ArgumentParser) -> Iterator[str]:
    for action in parser._actions:
        if isinstance(action, (argparse._HelpAction, argparse._SubParsersAction)):
            continue
        details = {
            "nargs": action.nargs,
            "type": getattr(action.type, "__name__", action.type),
            "choices": None if action.choices is None else ",".join(map(str, action.choices)),
            "default": None if action.default is argparse.SUPPRESS else action.default,
            "required": action.required or None,
        }
        said = [f"{name}={value}" for name, value in details.items() if value is not None]
        yield " ".join([path, "/".join(action.option_strings) or action.dest, *said])


# what files hold


def layer_lines() -> Iterator[str]:
    """The names in the state dicts of both layers."""
    for layer_class in (BSConvU, BSConvS):
        for norm in (False, True):
            names = ", ".join(layer_class(8, 8, 3, with_bn=norm).state_dict())
            yield f"state dict of {layer_class.__name__}, with_bn={norm}: {names}"


def format_lines() -> Iterator[str]:
    """The formats of files, which their readers ask for."""
    for module in (checkpoints, spectra, _record):
        yield f"format {module.FORMAT!r}"
    files = (getattr(checkpoints, name) for name in ("CONFIG", "METRICS", "CHECKPOINT", "MODEL"))
    yield f"files of a run: {', '.join(files)}"
    settings = [field.name for field in dataclasses.fields(TrainConfig)]
    yield f"settings of a run: {', '.join(settings)}"


def test_the_api_is_as_written_down(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(griffe.GitInfo, "from_package", lambda package: None)  # starts a process
    before = SNAPSHOT.read_text(encoding="utf-8").splitlines()
    changed = [line for line in difflib.ndiff(before, snapshot()) if line[0] in "+-"]
    said = "\n".join(changed)
    assert not changed, f"the API changed:\n{said}\nif that is meant: {ACCEPT}, and CHANGELOG.md"


if __name__ == "__main__":
    SNAPSHOT.write_text("\n".join(snapshot()) + "\n", encoding="utf-8")
    print(f"wrote {SNAPSHOT}")
