"""Exported programs of torch, read with suspicion.

``torch.export.load`` evaluates shapes as Python, builds Python from names, calls whatever function
a step names, and unpickles what is pickled. Here a file is let through to it only with shapes that
compute, names that are names, operators of ATen, and nothing pickled but tensors.
"""

from __future__ import annotations

import io
import re
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch

from ..files.json_files import parse_json
from ..files.torch_files import read_torch_file

__all__ = ["load_exported_program"]

MEMBER = re.compile(
    r"data/(weights/(weight_\d+|model_weights_config\.json)"
    r"|constants/(tensor_\d+|model_constants_config\.json)|sample_inputs/model\.pt)"
    r"|models/model\.json|archive_format|archive_version|byteorder|(\.data/)?version"
    r"|\.data/serialization_id"
)
CONFIGS = ("data/weights/model_weights_config.json", "data/constants/model_constants_config.json")
PLAIN = re.compile(r"[\w.+-]*")  # a name or a version: no parenthesis, so it calls nothing
OPERATOR = re.compile(
    r"torch\.ops\.aten\.(?!from_file\b)\w+\.\w+|torch\.sym_\w+"
    r"|_operator\.(getitem|add|sub|mul|floordiv|truediv|mod|neg|eq|ne|lt|le|gt|ge)"
)
SYMBOL = r"Symbol\('s\d+', positive=True, integer=True\)"
SHAPE = re.compile(rf"({SYMBOL}|s\d+|\d+|[-+*/(), ])*")  # arithmetic, whose only call is SYMBOL
TREE = re.compile(r'([\d\[\]{}:, ]|null|"(type|context|children_spec|null|\[\]|builtins\.\w+)")*')
RULES = {
    "target": OPERATOR,
    "expr_str": SHAPE,
    "in_spec": TREE,
    "out_spec": TREE,
    "metadata": re.compile(r"[^\n\r]*"),  # remarks on steps, at most a comment each
}


def load_exported_program(path: Path) -> torch.export.ExportedProgram:
    """The program in ``path``, as :func:`export_model` writes it.

    ValueError with one line for a file that is damaged, and for one that asks for more than tensors
    and operators on them.
    """
    with open(path, "rb") as file:
        try:
            members = _members(file.read())
            for config in CONFIGS:
                for payload in parse_json(members[config].decode())["config"].values():
                    if payload["use_pickle"] is not False:
                        raise ValueError("it has a pickle")
            _check(parse_json(members["models/model.json"].decode()), "")
            read_torch_file(io.BytesIO(members["data/sample_inputs/model.pt"]))
            with warnings.catch_warnings():  # of torch, about how it reads
                warnings.simplefilter("ignore")
                return torch.export.load(_archive(members))
        except MemoryError:
            raise
        except Exception as error:  # a damaged file may raise anything at all
            reason = " ".join(str(error).split())[:160] or type(error).__name__
            raise ValueError(
                f"{path} is damaged, or no exported program of bsconv export: {reason}"
            ) from error


def _members(content: bytes) -> dict[str, bytes]:
    """All parts by their names, checked against their checksums."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        parts = archive.infolist()
        if sum(part.file_size for part in parts) > len(content):
            raise ValueError("its parts are larger than the whole")
        members = {part.filename.partition("/")[2]: archive.read(part) for part in parts}
    for name in members:
        if not MEMBER.fullmatch(name):
            raise ValueError(f"it has a part {name!r}")
    return members


def _archive(members: dict[str, bytes]) -> io.BytesIO:
    """An archive of what was checked and no more, however the file itself may be read."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, part in members.items():
            archive.writestr(f"archive/{name}", part)
    content.seek(0)
    return content


def _check(value: Any, key: str) -> None:
    """Every string below ``key`` in the description of the program."""
    if isinstance(value, dict):
        for name, inner in value.items():
            _check(name, "")
            _check(inner, "metadata" if key == "metadata" else name)
    elif isinstance(value, list):
        if key == "guards_code" and value:
            raise ValueError("it has code")
        for inner in value:
            _check(inner, key)
    elif isinstance(value, str) and not RULES.get(key, PLAIN).fullmatch(value):
        raise ValueError(f"it has {key or 'a name'} {value[:80]!r}")
