"""Files that want to run code, fill the memory or lead elsewhere.

``CASES`` maps what a file is, which begins with its name unless it is in a folder of images, to
what writes it.
"""

import io
import json
import os
import pickle
import struct
import subprocess
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from PIL import Image
from safetensors.torch import save_file

from bsconv.experiments.data._archives import ARRAYS
from bsconv.experiments.files.checkpoints import CHECKPOINT, CONFIG, FORMAT, METRICS, MODEL

Make = Callable[[Path], object]  # writes the file at this path
SPRUNG = "sprung"  # the folder that a trap makes
DEEP = 200_000
LARGE = 2**30 + 2**24  # bytes, of zeros: what CIFAR may have, and a little more
FILES = (
    CHECKPOINT, MODEL, "weights.pt", "weights.pth", "weights.safetensors", "cifar10.npz", CONFIG,
    METRICS, "record.json", "spectra.json", "network.onnx",
)  # fmt: skip


# --- pickles that call a function -----------------------------------------------------------------


class Trap:
    """An object whose unpickling calls a function."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


class WithState:
    """Unpickling it calls a method with the state."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def __setstate__(self, state: dict[str, Any]) -> None:
        os.mkdir(state["folder"])


TRAPS: dict[str, Callable[[str], Any]] = {
    "os.mkdir": lambda folder: Trap(os.mkdir, folder),
    "os.system": lambda folder: Trap(os.system, f"mkdir {folder}"),
    "subprocess": lambda folder: Trap(subprocess.check_call, ["mkdir", folder]),
    "eval": lambda folder: Trap(eval, f"__import__('os').mkdir({folder!r})"),
    "exec": lambda folder: Trap(exec, f"__import__('os').mkdir({folder!r})"),
    "pickle.loads": lambda folder: Trap(pickle.loads, pickle.dumps(Trap(os.mkdir, folder))),
    "an object array": lambda folder: np.array([Trap(os.mkdir, folder)], dtype=object),
    "__setstate__": WithState,
}


def trap(path: Path, call: str = "os.mkdir") -> Any:
    return TRAPS[call](str(path.parent / SPRUNG))


def saved(call: str, **settings: Any) -> Make:
    """Where a checkpoint of ours has its model."""
    return lambda path: torch.save({"format": FORMAT, "model": trap(path, call)}, path, **settings)


def pickled(protocol: int = 2) -> Make:
    return lambda path: path.write_bytes(pickle.dumps(trap(path), protocol))


def by_opcode(path: Path) -> None:
    """INST calls without a REDUCE."""
    path.write_bytes(b"(S'" + str(path.parent / SPRUNG).encode() + b"'\nios\nmkdir\n.")


def of_objects(path: Path) -> None:
    parts: dict[str, Any] = dict.fromkeys(ARRAYS, np.array([trap(path)] * 10, dtype=object))
    np.savez(path, **parts)


# --- small files that claim to be large, values nested without end --------------------------------


def billion_lists() -> list[Any]:
    """Each list names the one before ten times."""
    value: list[Any] = []
    for _ in range(12):
        value = [value] * 10
    return value


def nested(path: Path) -> None:
    """Lists in lists, written by hand as no pickler goes so deep."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02" + b"]" * DEEP + b"a" * (DEEP - 1) + b".")
        archive.writestr("archive/version", b"3\n")


def deflated(member: str) -> Make:
    """Zeros, a thousandth of their size."""

    def make(path: Path) -> None:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            with archive.open(member, "w", force_zip64=True) as file:
                for _ in range(LARGE // 2**24):
                    file.write(bytes(2**24))
            archive.writestr("archive/version", b"3\n")

    return make


def overlapping(path: Path) -> None:
    """A thousand names for the same part of the file."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", bytes(100_000))
        (part,) = archive.infolist()
        archive.filelist += [part] * 999
        archive.NameToInfo.update({str(number): part for number in range(999)})


def endless_arrays(path: Path) -> None:
    """Arrays whose headers claim a shape that is not there."""
    header = io.BytesIO()
    about = {"descr": "|u1", "fortran_order": False, "shape": (10**12, 32, 32, 3)}
    np.lib.format.write_array_header_1_0(header, about)
    with zipfile.ZipFile(path, "w") as archive:
        for name in ARRAYS:
            archive.writestr(f"{name}.npy", header.getvalue())


def content(data: bytes) -> Make:
    return lambda path: path.write_bytes(data)


def with_header(header: bytes) -> Make:
    return content(struct.pack("<Q", len(header)) + header)


def with_metadata(text: str) -> Make:
    return lambda path: save_file({"weight": torch.zeros(1)}, path, {"bsconv": text})


# --- folders and archives that lead elsewhere -----------------------------------------------------


def pets(add: Callable[[Path], object]) -> Make:
    """A folder of two classes with three images each, and what is added to it."""

    def make(path: Path) -> None:
        (path.parent / "outside").mkdir()
        Image.new("RGB", (8, 8)).save(path.parent / "outside" / "private.png")
        for name in ("cats", "dogs"):
            (path / name).mkdir(parents=True)
            for number in range(3):
                Image.new("RGB", (8, 8)).save(path / name / f"{number}.png")
        add(path)

    return make


def link(name: str, target: str) -> Make:
    return pets(lambda path: (path / name).symlink_to(target.format(path.parent)))


def chunk(kind: bytes, content: bytes) -> bytes:
    body = kind + content
    return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))


def image(width: int, *chunks: bytes) -> Make:
    """A PNG of that width and height with these chunks between its header and its pixels."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, width, 8, 2, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(bytes(1000)))
    content = b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + pixels + chunk(b"IEND", b"")
    return pets(lambda path: (path / "cats" / "bomb.png").write_bytes(content))


def weights_elsewhere(path: Path) -> None:
    """An ONNX file that takes its weights from a file outside of its folder."""
    (path.parent.parent / "private").write_bytes(bytes(16))
    weights = onnx.TensorProto(name="w", data_type=onnx.TensorProto.FLOAT, dims=[4])
    weights.data_location = onnx.TensorProto.EXTERNAL
    weights.external_data.add(key="location", value="../private")
    x, y = (onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [4]) for name in "xy")
    steps = [onnx.helper.make_node("Add", ["x", "w"], ["y"])]
    graph = onnx.helper.make_graph(steps, "network", [x], [y], [weights])
    path.write_bytes(onnx.helper.make_model(graph, ir_version=8).SerializeToString())


ZEROS = zlib.compress(bytes(2**27), 9)
BILLION = {"num_classes": 10**9, "config": {}}
TENSOR = {"dtype": "F32", "shape": [10**12], "data_offsets": [0, 4 * 10**12]}
JSON_BOMBS = {
    "nested without end": b"[" * DEEP,
    "objects without end": b'{"a":' * DEEP,
    "a number without end": b"1" * DEEP,
    "more than 64 MiB": b" " * (2**26 + 1),
}
CALLING: dict[str, Make] = {
    **{f"checkpoint.pt that calls {call}": saved(call) for call in TRAPS},
    "checkpoint.pt of old versions of torch": saved(
        "os.mkdir", _use_new_zipfile_serialization=False
    ),
    "checkpoint.pt that calls by INST": by_opcode,
    "weights.pt that are a network": lambda path: torch.save(torch.nn.Conv2d(3, 4, 3), path),
    "cifar10.npz of objects": of_objects,
    "an image that is a pickle": pets(lambda path: pickled()(path / "cats" / "0.png")),
    "checkpoint.pt that is a pickle of protocol 0": pickled(0),
    **{f"{name} that is a pickle": pickled() for name in FILES},
}
CLAIMING: dict[str, Make] = {
    "checkpoint.pt with a billion lists": lambda path: torch.save(
        {"format": FORMAT, "model": billion_lists()}, path
    ),
    "checkpoint.pt with a tensor of 4 TB": lambda path: torch.save(
        {"format": FORMAT, "model": torch.zeros(1).expand(10**12)}, path
    ),
    "checkpoint.pt nested without end": nested,
    "checkpoint.pt that unpacks to 1 GiB": deflated("archive/data.pkl"),
    "weights.pt with a part named a thousand times": overlapping,
    "cifar10.npz that unpacks to 1 GiB": deflated("train_images.npy"),
    "cifar10.npz with arrays of 3 PB": endless_arrays,
    "model.safetensors with a header of 1 EB": content(struct.pack("<Q", 2**60) + b"{}"),
    "model.safetensors nested without end": with_header(b"[" * DEEP),
    "model.safetensors with a tensor of 4 TB": with_header(json.dumps({"w": TENSOR}).encode()),
    "model.safetensors with metadata nested without end": with_metadata("[" * DEEP),
    "model.safetensors for a billion classes": with_metadata(json.dumps(BILLION)),
    **{
        f"{name}: {kind}": content(bomb)
        for name in (CONFIG, METRICS, "record.json", "spectra.json")
        for kind, bomb in JSON_BOMBS.items()
    },
    "an image of 10 gigapixels": image(100_000),
    "an image with compressed text": image(8, chunk(b"zTXt", b"k\0\0" + ZEROS)),
    "an image with compressed international text": image(8, chunk(b"iTXt", b"k\0\1\0\0\0" + ZEROS)),
    "an image with a compressed colour profile": image(8, chunk(b"iCCP", b"k\0\0" + ZEROS)),
}
LEADING: dict[str, Make] = {
    "an image that is a link out of the folder": link("cats/link.png", "../../outside/private.png"),
    "an image that is an absolute link": link("cats/link.png", "{}/outside/private.png"),
    "an image that is a link to a device": link("cats/link.png", "/dev/zero"),
    "an image that is a link to itself": link("cats/link.png", "link.png"),
    "an image that is a link to nothing": link("cats/link.png", "gone.png"),
    "an image that is a pipe": pets(lambda path: os.mkfifo(path / "cats" / "pipe.png")),
    "a class that is a link out of the folder": link("birds", "../outside"),
    "a class that is a link to the folder above": link("birds", ".."),
    "a class that is a link to itself": link("birds", "birds"),
    "a class that is a link to nothing": link("birds", "gone"),
    # nothing is ever unpacked onto the disk; what is missing is said
    "cifar10.npz with a path out of the folder": lambda path: np.savez(
        path, **{"../escaped": np.zeros(3)}
    ),
    "network.onnx with weights elsewhere": weights_elsewhere,
}
CASES = {**CALLING, **CLAIMING, **LEADING}
