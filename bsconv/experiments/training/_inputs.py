"""What a run needs before its first step: data and a model that fit together."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...pytorch import apply_plan, project_pretrained
from ...pytorch.modules import BLUEPRINT_LAYERS
from ..config import TrainConfig
from ..data import DATASETS, ImageDataset, load_dataset, to_float
from ..files import checkpoints
from ..files.checkpoints import Start, TrainedModel, fitting, load_weights
from ..model_sources import build_model, foreign_images, pretrained_model
from ..normalization import Normalization
from ..own_code import check_remembered, is_code
from ._new_head import LARGER, answers, head_names, with_new_head

PROJECTION_IMAGES = 500


def find_dataset(config: TrainConfig) -> ImageDataset:
    """The data set of a run on the CPU, with as many images as the run takes."""
    # a folder has its own sizes: resize once, from the full resolution
    size = None if config.dataset in DATASETS else config.image_size
    dataset = load_dataset(
        config.dataset, config.data, image_size=size, resize=config.resize, split=config.split
    )
    return dataset.limited(train=config.train_limit, test=config.test_limit)


def check_model(config: TrainConfig) -> None:
    """ValueError for a model that cannot be made, before any data is fetched for it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they come again when the model is made
        # the code of a user may compute with weights
        device = "cpu" if is_code(config.model) else "meta"
        with contextlib.suppress(RuntimeError, NotImplementedError), torch.device(device):
            make_model(config, num_classes=10)


def make_model(
    config: TrainConfig, num_classes: int, plan: Mapping[str, str] | None = None
) -> nn.Module:
    """The model of ``config``; ``plan`` says which of its layers have a form of their own."""
    model = build_model(
        config.model,
        num_classes,
        bsconv=config.bsconv,
        p=config.p,
        with_bn=config.with_bn,
        init=config.init,
    )
    model = apply_plan(model, plan or {})
    return with_new_head(model, num_classes, config) if config.new_head else model


def trained_model(trained: TrainedModel, path: Path) -> nn.Module:
    """The model that ``trained``, read from ``path``, has the weights of; with them."""
    check_remembered(trained.config.model)
    model = make_model(trained.config, trained.num_classes, trained.plan)
    load_weights(model, trained.state, path)
    return model


def read_start(config: TrainConfig) -> Start | None:
    """What a run starts from, in a file or in a run's folder; None for fresh weights.

    OSError for a file that is not there, ValueError with one line for one that holds no weights.
    """
    if config.pretrained is not None:
        if config.weights is not None:
            raise ValueError(
                f"pretrained needs to stand without weights, got {config.pretrained!r} with "
                f"weights={config.weights!r}"
            )
        model = pretrained_model(config.model, config.pretrained)
        theirs: dict[str, Any] = foreign_images(config.model)
        return Start(model.state_dict(), {}, TrainConfig(**theirs))
    return None if config.weights is None else checkpoints.read_start(Path(config.weights))


def load_start(model: nn.Module, start: Start, config: TrainConfig) -> nn.Module:
    """The model of ``config`` with the layers and weights of ``start``.

    ValueError with one line where they do not fit. A warning says what is assumed where nothing
    says which images the weights are for.
    """
    name = config.model
    if config.bsconv is not None:
        name += " as BSConv-U" if config.bsconv == "u" else f" as BSConv-S with p={config.p:g}"
    try:
        model = apply_plan(model, start.plan)
    except ValueError as error:
        raise ValueError(f"{config.weights} does not fit {name}: {error}") from error
    path, own = Path(str(config.weights or config.pretrained)), model.state_dict()
    state = fitting(start.state, own, path)
    if config.new_head:
        fresh = head_names(model, config)
        kept = {key: own[key] for key in own if key.startswith(fresh)}
        state = {key: state[key] for key in state if not key.startswith(fresh)} | kept
    try:
        load_weights(model, state, path, name)
    except ValueError as error:
        shared = ((tensor.shape, own[key].shape) for key, tensor in state.items() if key in own)
        differing = [(found, wanted) for found, wanted in shared if found != wanted]
        rows = {(found[:1], wanted[:1]) for found, wanted in differing}
        if len(rows) != 1 or any(found[1:] != wanted[1:] for found, wanted in differing):
            raise
        hint = "bsconv train --new-head takes weights of other classes"
        raise ValueError(f"{error}; {hint}") from error
    if start.config is None and not config.says_normalization:
        warnings.warn(
            f"{config.weights} does not say how its images were normalised, so it gets them as "
            "they are, in 0 ... 1; --normalize or --mean and --std say otherwise",
            stacklevel=2,
        )
    return model


def projected(start: Start, model: nn.Module, config: TrainConfig, dataset: ImageDataset) -> Start:
    """``start``, or weights of the dense network as ``model``, its BSConv form, computes them."""
    dense = dataclasses.replace(config, bsconv=None)
    layers = (name for name, each in model.named_modules() if isinstance(each, BLUEPRINT_LAYERS))
    kernel = f"{next(layers, None)}.weight"
    if config.bsconv is None or not any(key.endswith(kernel) for key in start.state):
        return start
    if config.with_bn:
        raise ValueError(
            f"the weights in {config.weights} are of the dense network, whose projection needs "
            "with_bn=False, got with_bn=True"
        )
    images = model_input(
        dataset.train_images[:PROJECTION_IMAGES], config.image_size, config.normalization
    )
    trained = load_start(make_model(dense, dataset.num_classes).to(images.device), start, dense)
    kind: Any = config.bsconv
    # quick, because training follows; `bsconv project` fits the layers one by one
    options: dict[str, Any] = {"p": config.p, "method": "batch_norm", "progress": False}
    student, _ = project_pretrained(trained.eval(), images, kind, **options)
    return Start(student.state_dict(), {}, config)


def settled(config: TrainConfig, start: Start | None) -> TrainConfig:
    """``config`` with images as the weights ``start`` want them, where it does not say itself."""
    if start is None or start.config is None:
        return config
    resize = config.resize
    config = config.images_as(start.config)
    # the images of an archive have their size already
    return dataclasses.replace(config, resize=resize) if config.dataset in DATASETS else config


def check_classes(classes: Sequence[str], dataset: ImageDataset, whose: object) -> None:
    """ValueError where both have names for as many classes, but others, or in another order."""
    if len(classes) == dataset.num_classes and tuple(classes) != dataset.classes:
        known, found = (", ".join(names) for names in (classes, dataset.classes))
        raise ValueError(f"{whose} needs its classes {known}, got {dataset.name} with {found}")


def model_input(
    images: Tensor, image_size: int | None = None, normalization: Normalization | None = None
) -> Tensor:
    """Float images, resized and normalised where asked, in the memory format that is fast."""
    floats = to_float(images) if images.dtype == torch.uint8 else images
    if image_size is not None and floats.shape[-2:] != (image_size, image_size):
        size = (image_size, image_size)
        floats = F.interpolate(floats, size, mode="bilinear", antialias=True)
    if normalization is not None:
        floats = normalization.apply(floats)
    return floats.contiguous(memory_format=torch.channels_last)


def check_fit(
    model: nn.Module, dataset: ImageDataset, config: TrainConfig, *, training: bool = True
) -> None:
    """One step forward of a copy: ValueError where the model cannot take images or classes."""
    for part in ("train", "test"):
        images, labels = getattr(dataset, f"{part}_images"), getattr(dataset, f"{part}_labels")
        if not 0 < len(images) == len(labels):
            raise ValueError(
                f"{part}_images of {dataset.name} need to be one or more, with a label each, "
                f"got {len(images)} and {len(labels)}"
            )
        low, high, classes = int(labels.min()), int(labels.max()), dataset.num_classes
        if low < 0 or high >= classes:
            raise ValueError(
                f"{part}_labels needs classes from 0 to {classes - 1}, got {low} to {high}"
            )
    count = min(2, config.settings.batch_size, len(dataset.train_images))
    images = model_input(dataset.train_images[:count], config.image_size, config.normalization)
    advice = LARGER
    if count == 1 and training:  # BatchNorm
        advice += ", or batches of more than one image"
    logits = answers(copy.deepcopy(model).train(training), images, config.model, advice)
    if logits.shape != (count, dataset.num_classes):
        raise ValueError(
            f"{config.model} needs {dataset.num_classes} outputs per image for {dataset.name}, "
            f"got shape {tuple(logits.shape)} for images {tuple(images.shape)}; try {advice}"
        )
