"""What others may rely on is written down in api_snapshot.txt; a change of it is made on purpose.

``python tests/project/test_api_snapshot.py`` accepts what there is now. What may change
between versions, and how, is said in docs/stability.md.
"""

import argparse
import ast
import dataclasses
import difflib
import functools
import inspect
import pkgutil
import re
import textwrap
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

import bsconv.pytorch
from bsconv.__main__ import make_parser
from bsconv.experiments.config import TrainConfig
from bsconv.experiments.files import checkpoints
from bsconv.experiments.results import _record, training_spectra
from bsconv.pytorch import BSConvS, BSConvU

SNAPSHOT = Path(__file__).with_name("api_snapshot.txt")
ACCEPT = "python tests/project/test_api_snapshot.py"
MODULES = ["bsconv.pytorch"] + [
    f"bsconv.pytorch.{found.name}"
    for found in pkgutil.iter_modules(bsconv.pytorch.__path__)
    if not found.name.startswith("_")
]


def snapshot() -> list[str]:
    """All that is public, a line each."""
    return [
        *(line for module in MODULES for line in module_lines(import_module(module))),
        *(line for path, parser in parsers() for line in option_lines(path, parser)),
        *layer_lines(),
        *format_lines(),
    ]


# names, signatures and fields


def module_lines(module: ModuleType) -> Iterator[str]:
    for name in public_names(module):
        value, path = getattr(module, name), f"{module.__name__}.{name}"
        home = homes().get(id(value), path)
        if home != path:
            yield f"{path} = {home}"
        elif inspect.isclass(value) and not is_own(value):
            yield f"{path} = {value.__module__}.{value.__qualname__}"
        elif inspect.isclass(value):
            yield from class_lines(path, value)
        elif callable(value):
            yield f"def {path}{signature(value)}"
        else:
            yield f"{path}: {type(value).__name__}"


@functools.cache
def homes() -> dict[int, str]:
    """Where classes and functions are described: in the smallest public module that has them."""
    found: dict[int, str] = {}
    for module in map(import_module, [*MODULES[1:], MODULES[0]]):
        for name in public_names(module):
            value = getattr(module, name)
            if callable(value) and getattr(value, "__module__", "").startswith("bsconv."):
                found.setdefault(id(value), f"{module.__name__}.{name}")
    return found


def public_names(module: ModuleType) -> list[str]:
    """What ``__all__`` lists, else the functions and classes that are defined there."""
    if hasattr(module, "__all__"):
        return sorted(module.__all__)
    return sorted(
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and callable(value)
        if getattr(value, "__module__", "") == module.__name__
    )


def class_lines(path: str, cls: type) -> Iterator[str]:
    """Public bases, fields, constructor, methods and properties, also those of private bases."""
    bases = [
        base.__name__
        for base in cls.__mro__[1:-1]
        if not base.__name__.startswith("_") and (not is_own(base) or id(base) in homes())
    ]
    yield f"class {path}({', '.join(bases)})"
    yield from (f"{path}.{line}" for line in field_lines(cls))
    yield from (f"attribute {path}.{name}" for name in attributes(cls))
    members: dict[str, Any] = {}
    for base in own_bases(cls):
        members |= vars(base)
    for name, value in sorted(members.items()):
        if (name == "__init__" and has_source(value)) or not name.startswith("_"):
            yield from member_lines(f"{path}.{name}", value)


def own_bases(cls: type) -> list[type]:
    """The class and what it inherits here, the first one first."""
    return [base for base in reversed(cls.__mro__) if is_own(base)]


def is_own(cls: type) -> bool:
    return cls.__module__.startswith(("bsconv.", __name__))


def field_lines(cls: type) -> Iterator[str]:
    if dataclasses.is_dataclass(cls):
        for field in dataclasses.fields(cls):
            default = "" if field.default is dataclasses.MISSING else f" = {field.default!r}"
            factory = field.default_factory
            if factory is not dataclasses.MISSING:
                default = f" = {getattr(factory, '__name__', factory)}()"
            yield f"{field.name}: {type_text(field.type)}{default}"
    elif issubclass(cls, tuple) and hasattr(cls, "_fields"):
        for name in cls._fields:
            default = f" = {cls._field_defaults[name]!r}" if name in cls._field_defaults else ""
            yield f"{name}: {type_text(cls.__annotations__[name])}{default}"


def attributes(cls: type) -> list[str]:
    """What ``__init__`` sets, and what the class declares: not the fields of a dataclass."""
    found: set[str] = set()
    for base in own_bases(cls):
        if dataclasses.is_dataclass(base) or hasattr(base, "_fields"):
            continue
        body: Any = ast.parse(textwrap.dedent(inspect.getsource(base))).body[0]
        made = [part for part in body.body if getattr(part, "name", "") == "__init__"]
        inside = [part for method in made for part in ast.walk(method)]
        written = [part for part in inside if isinstance(getattr(part, "ctx", None), ast.Store)]
        declared = [part.target for part in body.body if isinstance(part, ast.AnnAssign)]
        texts = map(ast.unparse, [*written, *declared])
        found |= {text.removeprefix("self.") for text in texts if text.startswith("self.")}
        found |= {ast.unparse(target) for target in declared}
    return sorted(name for name in found if not name.startswith("_"))


def member_lines(path: str, value: object) -> Iterator[str]:
    if isinstance(value, property):
        yield f"property {path}{', settable' if value.fset else ''}"
    elif isinstance(value, functools.cached_property):
        yield f"property {path}"
    elif isinstance(value, (classmethod, staticmethod)):
        yield f"{type(value).__name__} {path}{signature(value.__func__)}"
    elif inspect.isfunction(value):
        yield f"def {path}{signature(value)}"


def signature(function: Any) -> str:
    """As it stands in the source, so that it is the same with every version of Python."""
    if not has_source(function):
        return "(...)"
    node = ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(function)))).body[0]
    assert isinstance(node, ast.FunctionDef)
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    return f"({ast.unparse(node.args)}){returns}".replace("'Self'", "Self")


def has_source(function: Any) -> bool:
    """Functions that dataclasses and named tuples make have none."""
    try:
        return inspect.isfunction(inspect.unwrap(function)) and bool(inspect.getsource(function))
    except OSError:
        return False


def type_text(annotation: object) -> str:
    """Without the modules of names: they differ, and where a name comes from is said elsewhere."""
    bare = inspect.isclass(annotation) and not get_args(annotation)
    text = annotation.__name__ if bare else str(annotation)
    return re.sub(r"(?:\w+\.)+(?=\w)", "", text)


# the command line


def parsers() -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """The parser of each command; argparse has no public way to them."""
    parser = make_parser()
    yield parser.prog, parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            yield from ((f"bsconv {name}", command) for name, command in action.choices.items())


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
    for module in (checkpoints, training_spectra, _record):
        yield f"format {module.FORMAT!r}"
    yield f"files of a run: {checkpoints.CONFIG}, {checkpoints.METRICS}, " + ", ".join(
        (checkpoints.CHECKPOINT, checkpoints.MODEL)
    )
    settings = [field.name for field in dataclasses.fields(TrainConfig)]
    yield f"settings of a run: {', '.join(settings)}"


def changes(before: list[str], now: list[str]) -> list[str]:
    """What has gone (-) and what has come (+)."""
    compared = difflib.unified_diff(before, now, lineterm="", n=0)
    return [line for line in compared if line[:1] in "+-" and not line.startswith(("---", "+++"))]


def test_the_api_is_as_written_down() -> None:
    changed = changes(SNAPSHOT.read_text(encoding="utf-8").splitlines(), snapshot())
    said = "\n".join(changed)
    assert not changed, f"the API changed:\n{said}\nif that is meant: {ACCEPT}, and CHANGELOG.md"


if __name__ == "__main__":
    SNAPSHOT.write_text("\n".join(snapshot()) + "\n", encoding="utf-8")
    print(f"wrote {SNAPSHOT}")
