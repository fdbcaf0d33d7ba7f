"""Files of ``torch.save``, read so that no code in them runs and no damage gets through."""

import os
import re
import zipfile
from argparse import Namespace
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from ...basics.errors import one_line

MOST_ITEMS = 3_000_000
DEEPEST = 64
DIRECTORY = 0x10  # an attribute of a part of a ZIP file
SCRIPT = "TorchScript, a program, which bsconv does not run: save a state dict"
LARGEST = 100  # tensors may claim as many times the size of their file, and a MiB


def read_torch_file(path: Path, otherwise: str) -> Any:
    """Tensors and plain values as ``torch.save`` wrote them to ``path``, on the CPU.

    ValueError where a bit has changed since, which ``torch.load`` does not check, or the content
    claims to be far larger than the file; of others, ``otherwise`` says what they may be instead.
    """
    with open(path, "rb") as file:
        try:
            if zipfile.is_zipfile(file):
                check_archive(file)
            file.seek(0)
            with torch.serialization.safe_globals([Namespace]):  # the options of a program: no code
                content = torch.load(file, map_location="cpu", weights_only=True)
            _check_content(content, file.seek(0, os.SEEK_END))
        except MemoryError:
            raise
        except ValueError as error:
            what = "is" if str(error) == SCRIPT else "is damaged:"
            raise ValueError(f"{path} {what} {one_line(error)}") from error
        except Exception as error:  # a damaged file may raise anything at all
            other = re.search(r"Unsupported global: GLOBAL (\S+)", str(error))
            found = f"; it has {other[1]}" if other else ""
            raise ValueError(f"{path} is damaged or {otherwise}{found}") from error
    return content


def check_archive(file: BinaryIO) -> None:
    """ValueError where a bit of a ZIP file has changed, or where it would unpack to more."""
    size = file.seek(0, os.SEEK_END)
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        if any(member.filename.endswith("/constants.pkl") for member in members):
            raise ValueError(SCRIPT)
        packed = [member for member in members if member.compress_type != zipfile.ZIP_STORED]
        if packed or sum(member.file_size for member in members) > size:
            raise ValueError("its parts are larger than the whole")
        if any(member.external_attr & DIRECTORY for member in members):
            raise ValueError("a part of it is marked as a directory")  # torch would read nothing
        if not any(member.CRC for member in members):
            return  # written without checksums, an option of torch.save
        if (damaged := archive.testzip()) is not None:
            raise ValueError(f"the checksum of {damaged} in it is wrong")


def _check_content(content: object, size: int) -> None:
    """In a few bytes, a pickle can name one list a billion times, or a tensor without end."""
    waiting = [(content, 0)]
    items = claimed = 0
    while waiting:
        value, depth = waiting.pop()
        inner: Iterable[object] = ()
        if isinstance(value, Tensor):
            claimed += value.numel() * value.element_size()
        elif isinstance(value, Mapping):
            inner = (*value, *value.values())
        elif isinstance(value, (list, tuple, set, frozenset)):
            inner = value
        waiting += [(each, depth + 1) for each in inner]
        items += 1
        if items + len(waiting) > MOST_ITEMS or depth > DEEPEST:
            raise ValueError("it is nested without end")
        if claimed > LARGEST * size + 2**20:
            raise ValueError("it claims tensors far larger than itself")
