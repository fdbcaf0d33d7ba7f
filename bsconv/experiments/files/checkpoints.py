"""Files of a run: written whole or not at all, read without running code from them."""

import contextlib
import dataclasses
import errno
import io
import os
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...basics.errors import one_line
from ...basics.files import written_whole
from ..config import TrainConfig
from .habits import part_for, plain_names, some
from .json_files import holding, read_json
from .torch_files import read_torch_file
from .weights import CLASSES, FORMAT, PLAN, packed, read_weights

CONFIG, METRICS = "config.json", "metrics.jsonl"
CHECKPOINT = "checkpoint.pt"  # the latest whole state of a run
MODEL = "model.safetensors"  # the trained weights, and what is needed to build their model


def write_atomically(path: str | os.PathLike[str], content: bytes | memoryview) -> None:
    """Write a file whole or not at all; OSError with one line where that fails."""
    with written_whole(path) as temporary:
        temporary.write_bytes(content)


def check_writable(path: str | os.PathLike[str]) -> None:
    """OSError with one line where ``write_atomically`` could not write; leaves nothing there."""
    target = Path(os.path.realpath(path))
    try:
        if target.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if target.is_file() or not target.exists():  # no pipe or device, such as /dev/stdout
            tempfile.TemporaryFile(dir=target.parent).close()
    except OSError as error:
        raise OSError(f"cannot write {path}: {error.strerror or error}") from error


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder for one process; the system releases it when that process ends or is killed."""
    try:
        import fcntl
    except ImportError:  # Windows: no such lock, two runs in one folder are not noticed
        yield
        return
    path = folder / ".lock"
    with open(path, "ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # its last holder may have removed it together with the folder
            if not os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
                raise BlockingIOError
        except (BlockingIOError, FileNotFoundError):
            ways = "wait for it or choose another out folder"
            raise ValueError(f"another process is training in {folder}, {ways}") from None
        yield


def write_checkpoint(path: Path, state: dict[str, Any]) -> None:
    # through memory: torch.save into a file on a full disk fails with more than an OSError
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, **state}, buffer)
    write_atomically(path, buffer.getbuffer())


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The state that ``write_checkpoint`` wrote, on the CPU; ValueError if it is anything else."""
    state = read_torch_file(path, "not a checkpoint of bsconv train")
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise ValueError(f"{path} is not a checkpoint of bsconv train ({FORMAT!r})")
    return state


def read_config(path: Path) -> TrainConfig:
    """The settings in a ``config.json``."""
    with holding("settings of bsconv train", path):
        return TrainConfig.from_dict(read_json(path))


def load_weights(
    model: nn.Module, state: dict[str, Tensor], path: Path, name: str = "its model"
) -> None:
    """``model.load_state_dict``; ValueError where the file ``path`` does not fit ``name``.

    Weights that are not finite are refused where the model has none.
    """
    misfit = f"the weights in {path} do not fit {name}"
    own = model.state_dict()
    state = fitting(state, own, path)
    for key, tensor in state.items():
        if key in own and tensor.shape != own[key].shape:
            found, wanted = tuple(tensor.shape), tuple(own[key].shape)
            raise ValueError(f"{misfit}: {key} needs shape {wanted}, got {found}")
        if key in own and own[key].is_floating_point() and not tensor.is_floating_point():
            raise ValueError(f"{misfit}: {key} needs floats, got {tensor.dtype}")
    infinite = {key for key, tensor in _tensors(own) if not tensor.isfinite().all()}
    try:
        missing, unexpected = model.load_state_dict(state, strict=False)
    except (RuntimeError, TypeError, AttributeError) as error:
        raise ValueError(f"{misfit}: {one_line(error)}") from error
    if missing:
        instead = f", but has {some(unexpected)}" if unexpected else ""
        raise ValueError(f"{misfit}: it lacks {some(missing, 1)}{instead}")
    if unexpected:
        raise ValueError(f"{misfit}: it has no {some(unexpected, 1)}")
    for key, tensor in _tensors(model.state_dict()):
        if key not in infinite and not tensor.isfinite().all():
            what = "NaN" if tensor.isnan().any() else "infinite ones"
            raise ValueError(f"the weights in {path} are not all numbers: {key} has {what}")


def _tensors(state: Mapping[str, Any]) -> list[tuple[str, Tensor]]:
    """Without what modules keep besides them."""
    return [(key, each) for key, each in state.items() if isinstance(each, Tensor)]


def fitting(state: dict[str, Tensor], own: Mapping[str, Any], path: Path) -> dict[str, Tensor]:
    """``state`` by the names of ``own``, where the two differ by habits alone."""
    if state.keys() == own.keys():
        return state
    names = plain_names(own)
    try:
        part = None if names.keys() & state.keys() else part_for(state, names)
    except ValueError as error:
        raise ValueError(f"{path} {error}") from error
    if part is not None:
        if left := len(state) - len(part):
            others = f"{left} of {len(state)} weights"
            warnings.warn(f"{others} in {path} belong to no layer of the model", stacklevel=3)
        state = part
    return {names.get(plain, plain): tensor for plain, tensor in state.items()}


@dataclass(frozen=True)
class Start:
    """Weights to start from, and what :mod:`bsconv` noted of them; nothing in files of others."""

    state: dict[str, Tensor]
    plan: dict[str, str]  # the layers that a projection has changed, see apply_plan
    config: TrainConfig | None = None
    classes: tuple[str, ...] = ()  # files of earlier versions have none


@dataclass(frozen=True, kw_only=True)
class TrainedModel(Start):
    """Weights, and all that is needed to build their model."""

    config: TrainConfig
    num_classes: int


def write_trained(
    path: Path,
    model: nn.Module,
    config: TrainConfig,
    num_classes: int,
    plan: Mapping[str, str] | None = None,
    classes: Sequence[str] = (),
) -> None:
    """Write ``model.safetensors``; ``plan`` says which layers have changed, see ``apply_plan``."""
    settings = dataclasses.asdict(config.without_folders())
    about: dict[str, Any] = {"num_classes": num_classes, "config": settings}
    about |= {CLASSES: list(classes)} if classes else {}
    about |= {} if plan is None else {PLAN: dict(plan)}
    write_atomically(path, packed(model.state_dict(), about))


def read_trained(path: Path) -> TrainedModel:
    """A ``model.safetensors``, a ``checkpoint.pt``, or a folder that holds one of them."""
    start = read_start(path)
    if not isinstance(start, TrainedModel):
        raise ValueError(f"{path} holds weights that do not say which model they are of")
    return start


def read_start(path: Path) -> Start:
    """The weights in a file of any kind, or in a run's folder; ValueError where it has none."""
    if path.is_dir():
        found = [file for file in (path / MODEL, path / CHECKPOINT) if file.exists()]
        if not found:
            raise FileNotFoundError(f"{path} holds neither {MODEL} nor {CHECKPOINT}")
        path = found[0]
    state, about = read_weights(path)
    return trained_by({**about, "model": state}, path) if about else Start(state, {})


def trained_by(content: Mapping[str, Any], path: Path) -> TrainedModel:
    """The model in the ``content`` of the file ``path``, such as the checkpoint of a run so far."""
    with holding("model trained by bsconv train", path):
        config, num_classes = TrainConfig.from_dict(content["config"]), content["num_classes"]
        state, plan, classes = content["model"], content.get(PLAN, {}), content.get(CLASSES, ())
        if not isinstance(state, dict) or not all(isinstance(t, Tensor) for t in state.values()):
            raise ValueError("its model is not a state dict")
        # before a network is made that is far larger than the file
        if all(tensor.shape[:1] != (num_classes,) for tensor in state.values()):
            raise ValueError(f"num_classes is {num_classes!r}, no tensor in it has that many rows")
        if not isinstance(plan, dict) or not all(isinstance(form, str) for form in plan.values()):
            raise ValueError(f"its {PLAN} needs a form for each layer, got {plan!r:.80}")
        named = isinstance(classes, (list, tuple)) and all(isinstance(n, str) for n in classes)
        if not named or len(classes) not in (0, num_classes):
            raise ValueError(f"classes needs {num_classes} names, got {classes!r:.80}")
    return TrainedModel(state, plan, tuple(classes), config=config, num_classes=num_classes)
