"""Small files that claim to be large, and values nested without end."""

from __future__ import annotations

import json
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from bsconv.experiments.config import TrainConfig
from bsconv.experiments.data._archives import ARRAYS
from bsconv.experiments.files.checkpoints import CHECKPOINT, CONFIG, FORMAT, METRICS, MODEL
from bsconv.experiments.results import make_record
from bsconv.experiments.results.training_spectra import TrainingSpectra

from .links import pets, read
from .pickles import evaluate, resume, weights
from .traps import bsconv

Case = Callable[[Path], object]
DEEP = 200_000
LARGE = 2**31  # bytes, of zeros


def _content(make: Callable[[], Any]) -> Case:
    """A checkpoint of ours with such a part."""

    def case(folder: Path) -> None:
        torch.save({"format": FORMAT, "model": make()}, folder / CHECKPOINT)
        evaluate(folder / CHECKPOINT)

    return case


def laughs() -> list[Any]:
    """A billion and more, as each list names the one before ten times."""
    value: list[Any] = []
    for _ in range(12):
        value = [value] * 10
    return value


def _nested(folder: Path) -> None:
    """Lists in lists, written by hand as no pickler goes so deep."""
    with zipfile.ZipFile(folder / CHECKPOINT, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02" + b"]" * DEEP + b"a" * (DEEP - 1) + b".")
        archive.writestr("archive/version", b"3\n")
    evaluate(folder / CHECKPOINT)


def _deflated(path: Path, member: str) -> None:
    """Zeros, a thousandth of their size."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        with archive.open(member, "w", force_zip64=True) as file:
            for _ in range(LARGE // 2**24):
                file.write(bytes(2**24))
        archive.writestr("archive/version", b"3\n")


def _checkpoint_of_zeros(folder: Path) -> None:
    _deflated(folder / CHECKPOINT, "archive/data.pkl")
    evaluate(folder / CHECKPOINT)


def _archive_of_zeros(folder: Path) -> None:
    _deflated(folder / "cifar10.npz", "train_images.npy")
    bsconv("data", "cifar10", "--data", folder)


def _overlapping(folder: Path) -> None:
    """A thousand names for the same part of the file."""
    path = folder / "weights.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", bytes(100_000))
        (part,) = archive.infolist()
        archive.filelist += [part] * 999
        archive.NameToInfo.update({str(number): part for number in range(999)})
    weights(path)


def _endless_array(folder: Path) -> None:
    """An array whose header claims a shape that is not there."""
    header = b"{'descr': '|u1', 'fortran_order': False, 'shape': (%d, 32, 32, 3), }" % 10**12
    header += b" " * (63 - (len(header) + 10) % 64) + b"\n"
    content = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header
    with zipfile.ZipFile(folder / "cifar10.npz", "w") as archive:
        for name in ARRAYS:
            archive.writestr(f"{name}.npy", content)
    bsconv("data", "cifar10", "--data", folder)


def _safetensors(header: bytes, size: int | None = None) -> Case:
    def case(folder: Path) -> None:
        length = struct.pack("<Q", len(header) if size is None else size)
        (folder / MODEL).write_bytes(length + header)
        evaluate(folder / MODEL)

    return case


def _classes(folder: Path) -> None:
    """A file of one number, whose network would have a billion outputs."""
    from safetensors.torch import save_file

    about = {"num_classes": 10**9, "config": {}}
    save_file({"weight": torch.zeros(1)}, folder / MODEL, {"bsconv": json.dumps(about)})
    evaluate(folder / MODEL)


def _text(name: str, text: str, read: Callable[[Path], object]) -> Case:
    def case(folder: Path) -> None:
        if name == METRICS:  # a run has settings too
            (folder / CONFIG).write_text(TrainConfig().to_json())
        (folder / name).write_text(text)
        read(folder)

    return case


def _chunk(kind: bytes, content: bytes) -> bytes:
    body = kind + content
    return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))


def _image(width: int, *chunks: bytes) -> Case:
    """A PNG of that width and height with these chunks between its header and its pixels."""
    header = _chunk(b"IHDR", struct.pack(">IIBBBBB", width, width, 8, 2, 0, 0, 0))
    pixels = _chunk(b"IDAT", zlib.compress(bytes(1000)))
    content = b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + pixels + _chunk(b"IEND", b"")

    def case(folder: Path) -> None:
        dataset = pets(folder)
        (dataset / "cats" / "bomb.png").write_bytes(content)
        read(dataset)

    return case


ZEROS = zlib.compress(bytes(2**27), 9)
JSON_BOMBS = {
    "nested without end": "[" * DEEP,
    "objects without end": '{"a":' * DEEP,
    "a number without end": "1" * DEEP,
    "more than 64 MiB": " " * (2**26 + 1),
}
READERS: dict[str, Callable[[Path], object]] = {
    CONFIG: resume,
    METRICS: lambda folder: make_record(folder, machine="a machine"),
    "record.json": lambda folder: bsconv("results", "--results", folder),
    "spectra.json": lambda folder: TrainingSpectra.read(folder / "spectra.json"),
}

CASES: dict[str, Case] = {
    "checkpoint.pt with a billion lists": _content(laughs),
    "checkpoint.pt nested without end": _nested,
    "checkpoint.pt with a tensor of 4 TB": _content(lambda: torch.zeros(1).expand(10**12)),
    "checkpoint.pt that unpacks to 2 GiB": _checkpoint_of_zeros,
    "weights.pt with a part named a thousand times": _overlapping,
    "cifar10.npz that unpacks to 2 GiB": _archive_of_zeros,
    "cifar10.npz with arrays of 3 PB": _endless_array,
    "model.safetensors with a header of 1 EB": _safetensors(b"{}", 2**60),
    "model.safetensors nested without end": _safetensors(b"[" * DEEP),
    "model.safetensors with a tensor of 4 TB": _safetensors(
        json.dumps(
            {"w": {"dtype": "F32", "shape": [10**12], "data_offsets": [0, 4 * 10**12]}}
        ).encode()
    ),
    "model.safetensors with metadata nested without end": _safetensors(
        json.dumps({"__metadata__": {"bsconv": "[" * DEEP}}).encode()
    ),
    "model.safetensors for a billion classes": _classes,
    **{
        f"{name}: {kind}": _text(name, text, read_it)
        for name, read_it in READERS.items()
        for kind, text in JSON_BOMBS.items()
    },
    "an image of 10 gigapixels": _image(100_000),
    "an image with compressed text": _image(8, _chunk(b"zTXt", b"k\0\0" + ZEROS)),
    "an image with compressed international text": _image(
        8, _chunk(b"iTXt", b"k\0\1\0\0\0" + ZEROS)
    ),
    "an image with a compressed colour profile": _image(8, _chunk(b"iCCP", b"k\0\0" + ZEROS)),
}
