"""The networks of a run, student and teacher, with the weights that they start from."""

import contextlib
import dataclasses
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...pytorch import apply_plan, project_pretrained
from ...pytorch.modules import BLUEPRINT_LAYERS
from ..config import TrainConfig
from ..data import ImageDataset
from ..files import checkpoints
from ..files.checkpoints import Start, TrainedModel, fitting, load_weights, read_trained
from ..model_sources import build_model, foreign_images, pretrained_model
from ..normalization import Normalization
from ..own_code import check_remembered, is_code
from ..rules import DATASETS, IMAGENET_CLASSES
from ._inputs import check_answers, check_classes, model_input
from ._new_head import head_names, with_new_head

PROJECTION_IMAGES = 500


def check_model(config: TrainConfig) -> nn.Module | None:
    """ValueError for a model that cannot be made, before any data is fetched for it; it has no
    weights, and is None where it needs some to be made."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they come again when the model is made
        # the code of a user may compute with weights
        device = "cpu" if is_code(config.model) else "meta"
        with contextlib.suppress(RuntimeError, NotImplementedError), torch.device(device):
            return make_model(config, num_classes=10)
    return None


def make_model(
    config: TrainConfig, num_classes: int, plan: Mapping[str, str] | None = None
) -> nn.Module:
    """The model of ``config``; ``plan`` says which of its layers have a form of their own."""
    replacement: Any = {name: getattr(config, name) for name in ("bsconv", "p", "with_bn", "init")}
    model = apply_plan(build_model(config.model, num_classes, **replacement), plan or {})
    return with_new_head(model, num_classes, config) if config.new_head else model


def trained_model(trained: TrainedModel, path: Path) -> nn.Module:
    """The model that ``trained``, read from ``path``, has the weights of; with them."""
    check_remembered(trained.config.model)
    model = make_model(trained.config, trained.num_classes, trained.plan)
    load_weights(model, trained.state, path)
    return model


def read_start(config: TrainConfig) -> Start | None:
    """What a run starts from, in a file or in a run's folder; None for fresh weights."""
    if config.pretrained is None:
        return None if config.weights is None else checkpoints.read_start(Path(config.weights))
    if config.weights is not None:
        got = f"got {config.pretrained!r} with weights={config.weights!r}"
        raise ValueError(f"pretrained needs to stand without weights, {got}")
    model = pretrained_model(config.model, config.pretrained)
    return Start(model.state_dict(), {}, TrainConfig(**foreign_images(config.model, model)))


def load_start(model: nn.Module, start: Start, config: TrainConfig) -> nn.Module:
    """The model of ``config`` with the layers and weights of ``start``; a warning where nothing
    says which images they are for."""
    try:
        model = apply_plan(model, start.plan)
    except ValueError as error:
        raise ValueError(f"{config.weights} does not fit {config.network}: {error}") from error
    path, own = Path(str(config.weights or config.pretrained)), model.state_dict()
    state = fitting(start.state, own, path)
    if config.new_head:
        fresh = head_names(model, config)
        kept = {key: own[key] for key in own if key.startswith(fresh)}
        state = {key: state[key] for key in state if not key.startswith(fresh)} | kept
    try:
        load_weights(model, state, path, config.network)
    except ValueError as error:
        if state.keys() != own.keys() or other_classes(state, own) is None:
            raise
        hint = "bsconv train --new-head takes weights of other classes"
        raise ValueError(f"{error}; {hint}") from error
    if start.config is None and config.normalize is None and config.mean is None:
        unsaid = f"{config.weights} does not say how its images were normalised"
        taken = "as they are, in 0 ... 1; --normalize or --mean and --std say otherwise"
        warnings.warn(f"{unsaid}, so it gets them {taken}", stacklevel=2)
    return model


def other_classes(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> int | None:
    """How many classes the weights ``state`` have, where nothing else keeps them from ``own``."""
    shapes = [(state[key].shape, own[key].shape) for key in state.keys() & own.keys()]
    rows = {(found[:1], wanted[:1]) for found, wanted in shapes if found != wanted}
    fit = all(found[1:] == wanted[1:] for found, wanted in shapes)
    return rows.pop()[0].numel() if fit and len(rows) == 1 else None


def model_by_name(config: TrainConfig, num_classes: int | None, start: Start | None) -> nn.Module:
    """The model of ``config`` with ``start``, or with random weights, the same each time; by
    default with as many classes as the weights have, else 1000."""
    if config.pretrained is not None and config.bsconv is not None:
        raise ValueError("--pretrained has no weights of a model changed by --bsconv")
    torch.manual_seed(0)
    model = make_model(config, num_classes or IMAGENET_CLASSES)
    if start is None:
        return model
    if num_classes is None and (found := other_classes(start.state, model.state_dict())):
        model = make_model(config, found)
    return load_start(model, start, config)


def projected(start: Start, model: nn.Module, config: TrainConfig, dataset: ImageDataset) -> Start:
    """``start``, or weights of the dense network as ``model``, its BSConv form, computes them."""
    layers = (name for name, each in model.named_modules() if isinstance(each, BLUEPRINT_LAYERS))
    kernel = f"{next(layers, None)}.weight"
    if config.bsconv is None or not any(key.endswith(kernel) for key in start.state):
        return start
    if config.with_bn:
        what = f"the weights in {config.weights or config.pretrained} are of the dense network"
        raise ValueError(f"{what}, whose projection needs with_bn=False, got with_bn=True")
    chosen = dataset.train_images[:PROJECTION_IMAGES]
    images = model_input(chosen, config.image_size, config.normalization)
    dense = dataclasses.replace(config, bsconv=None)
    trained = load_start(make_model(dense, dataset.num_classes).to(images.device), start, dense)
    # quick, because training follows; `bsconv project` fits the layers one by one
    options: Any = {"kind": config.bsconv, "p": config.p, "method": "batch_norm"}
    student, _ = project_pretrained(trained.eval(), images, **options, progress=False)
    return Start(student.state_dict(), {}, config)


def settled(config: TrainConfig, start: Start | None) -> TrainConfig:
    """``config`` with images as the weights ``start`` want them, where it does not say itself."""
    if start is None or start.config is None:
        return config
    found = config.images_as(start.config)
    # the images of an archive have their size already
    return dataclasses.replace(found, resize=config.resize) if found.dataset in DATASETS else found


def ready_teacher(
    teacher: nn.Module | None, config: TrainConfig, dataset: ImageDataset
) -> tuple[nn.Module | None, Normalization]:
    """``teacher``, or the one that ``config`` names, if any, where the data set lies; and what its
    images are normalised by."""
    normalization = config.normalization
    if teacher is None and (config.teacher or config.teacher_model):
        teacher, normalization = _read_teacher(config, dataset)
    if teacher is not None:
        images = model_input(dataset.train_images[:1], config.image_size)
        teacher = teacher.to(config.device).to(memory_format=torch.channels_last).eval()
        check_answers(teacher, images, dataset, "the teacher")
    return teacher, normalization


def _read_teacher(config: TrainConfig, dataset: ImageDataset) -> tuple[nn.Module, Normalization]:
    """The teacher that ``config`` names, with its weights, and what its images are normalised by:
    as the student's where nothing says so."""
    name = config.teacher_model
    if config.teacher is None:
        if ":" in str(name):
            raise ValueError(f"teacher_model={name!r} needs a teacher, a file of its weights")
        return pretrained_model(str(name), config.dataset), Normalization()
    path = Path(config.teacher)
    if name is not None:
        teacher, start = build_model(name, dataset.num_classes), checkpoints.read_start(path)
        check_classes(start.classes, dataset, path)
        load_weights(teacher, start.state, path, name)
        return teacher, (start.config or config).normalization
    try:
        trained = read_trained(path)
    except ValueError as error:
        raise ValueError(f"{error}; teacher_model says which model its weights are of") from error
    check_classes(trained.classes, dataset, path)
    return trained_model(trained, path), trained.config.normalization
