"""Parts of our one-line messages: other people's errors, and what a name may have meant."""

import difflib
from collections.abc import Iterable

EXTRAS = {
    "lab": "numpy torchvision pytorchcv PIL matplotlib safetensors tqdm ipywidgets",
    "onnx": "onnx onnxscript onnxruntime",
    "timm": "timm",
}  # what brings a package that may be missing; all others come by their own names


def one_line(error: object, limit: int | None = 160) -> str:
    """What ``error`` says, in ``limit`` characters on one line; its type if it says nothing."""
    return " ".join(str(error).split())[:limit] or type(error).__name__


def meant(name: str, known: Iterable[str], otherwise: str = "") -> str:
    """``, did you mean A or B?``, those first that begin alike; ``otherwise`` if none is near."""
    near = difflib.get_close_matches(name, list(known), n=20, cutoff=0.7)
    near.sort(key=lambda one: [a == b for a, b in zip(name, one, strict=False)], reverse=True)
    return f", did you mean {' or '.join(near[:3])}?" if near else otherwise


def needs(what: str, error: ImportError) -> str:
    """Which package ``what`` lacked, and how it is installed."""
    package = str(error.name).partition(".")[0]
    extras = [f"'bsconv[{name}]'" for name, known in EXTRAS.items() if package in known.split()]
    return f"{what} needs the package {package}: pip install {(*extras, package)[0]}"


def described(error: BaseException) -> str:
    """Its type and the first line of what it says."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {one_line(lines[0], 200)}"
