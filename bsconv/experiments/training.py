"""Training for image classification: the recipe from top to bottom.

``train(TrainConfig(...))`` is the published CIFAR recipe: SGD, rate 0.1 with tenfold drops,
momentum 0.9, weight decay 1e-4 on everything, batch 128, 200 epochs, random crops and flips, no
normalisation (the models start with a BatchNorm on the input).
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from bsconv.pytorch import reg_loss

from ._runs import Run, open_run
from ._setup import (
    check_fit,
    check_model,
    find_dataset,
    find_device,
    load_start,
    logits_of,
    make_model,
    model_input,
    read_start,
    reproducible,
)
from .checkpoints import CHECKPOINT, load_weights
from .config import RECIPES, Recipe, TrainConfig
from .data import ImageDataset, augment
from .execution import Execution, choose_execution
from .history import EpochMetrics, History
from .optimizers import Optimizers, make_optimizer

__all__ = ["RECIPES", "EpochMetrics", "History", "Recipe", "TrainConfig", "evaluate", "train"]


def train(
    config: TrainConfig,
    *,
    resume: bool = False,
    progress: bool = True,
    after_epoch: Callable[[EpochMetrics, nn.Module], object] | None = None,
) -> History:
    """Train a model from its start to the last epoch; returns what was measured.

    The start is the initialisation that ``config.seed`` draws, or the weights in the file
    ``config.weights``; a run that is resumed does not read that file again.

    The loss is cross-entropy plus ``config.alpha`` times the orthonormality penalty of the BSConv-S
    layers; accuracies are measured on the whole test set after every epoch. With ``config.out``
    the latest state is kept there after every epoch, and ``resume=True`` goes on from it: on the
    same machine with as many threads, the result is the same to the last bit as without the break.
    The trained model is ``History.model``. The global random state is left as it was.

    ``after_epoch`` is called with what was measured and the model as it is then, once the epoch is
    saved: to look at weights while they are learnt, or to stop by raising an exception.
    """
    device = find_device(config.device)
    config = dataclasses.replace(config.resolved(), device=str(device))
    with reproducible(device), open_run(config, resume) as run:
        if run.finished:
            return _finished(run, progress)
        check_model(config)
        weights = read_start(config) if run.state is None else None
        dataset = find_dataset(config).to(device)
        torch.manual_seed(config.seed)
        model = make_model(config, dataset.num_classes)
        if weights is not None:
            load_start(model, weights, config)
        model = model.to(device).to(memory_format=torch.channels_last)
        check_fit(model, dataset, config)
        execution = run.execution or choose_execution(model, dataset.train_images, config)
        execution.set_plans(model)
        optimizer = make_optimizer(model, config)
        # shuffling and augmentation draw from here, dropout from the global state
        generator = torch.Generator(device).manual_seed(config.seed)
        history = run.begin(model, optimizer, generator)
        trained = execution.compiled(model, device)
        if progress:
            print(_introduction(model, dataset, config, execution, history), flush=True)

        for epoch in range(len(history) + 1, config.epochs + 1):
            start = time.perf_counter()
            loss = _train_epoch(
                trained, optimizer, dataset, generator, config, execution, epoch, progress
            )
            if not math.isfinite(loss):
                raise FloatingPointError(
                    f"the training loss became {loss} in epoch {epoch} of {config.epochs}; "
                    f"try a learning rate below {config.learning_rate}"
                )
            top1 = evaluate(
                model,
                dataset.test_images,
                dataset.test_labels,
                batch_size=config.batch_size,
                image_size=config.image_size,
            )
            rate = optimizer.learning_rate
            seconds = round(time.perf_counter() - start, 3)
            history.append(EpochMetrics(epoch, loss, top1, rate, seconds))
            run.save(history, model, optimizer, generator, dataset.num_classes, execution)
            if progress:
                print(history.last, flush=True)
            if after_epoch is not None:
                after_epoch(history.last, model)
        run.finish(model, dataset.num_classes, execution)
    history.model = model
    return history


def _train_epoch(
    model: nn.Module,
    optimizer: Optimizers,
    dataset: ImageDataset,
    generator: torch.Generator,
    config: TrainConfig,
    execution: Execution,
    epoch: int,
    progress: bool,
) -> float:
    """One pass over the training images in a new order; the mean loss, penalty included."""
    model.train()
    images, labels = dataset.train_images, dataset.train_labels
    order = torch.randperm(len(images), generator=generator, device=images.device)
    batches = _batches(order, config.batch_size)
    total, count = torch.zeros((), device=images.device), 0
    title = f"epoch {epoch}/{config.epochs}"
    # disable=None: no bar where stderr is no terminal, a line per epoch is printed anyway
    bar = tqdm(batches, title, leave=False, unit="batch", disable=None if progress else True)
    for number, batch in enumerate(bar):
        step = (epoch - 1) * len(batches) + number
        optimizer.learning_rate = config.learning_rate_at(step, len(batches))
        augmented = augment(
            images[batch],
            generator,
            crop_padding=config.crop_padding,
            flip=config.flip,
            cutout=config.cutout,
        )
        with execution.autocast(images.device):
            logits = logits_of(model(model_input(augmented, config.image_size))).float()
        loss = F.cross_entropy(logits, labels[batch]) + reg_loss(model, config.alpha)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        total += loss.detach() * len(batch)
        count += len(batch)
    return float(total) / count


def evaluate(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    batch_size: int = 256,
    image_size: int | None = None,
) -> float:
    """Top-1 accuracy in percent, on the device of the model, which is left as it was.

    ``images``: uint8 or float in [0, 1], shape (N, 3, H, W); ``labels``: int64, shape (N,).
    """
    if len(images) != len(labels) or not len(labels):
        raise ValueError(f"evaluate needs a label per image, got {len(images)} and {len(labels)}")
    if batch_size < 1:
        raise ValueError(f"batch_size must be a whole number >= 1, got {batch_size!r}")
    device = next((tensor.device for tensor in model.parameters()), images.device)
    correct = torch.zeros((), dtype=torch.int64, device=device)
    with _evaluating(model):
        for start in range(0, len(labels), batch_size):
            batch = slice(start, start + batch_size)
            logits = logits_of(model(model_input(images[batch].to(device), image_size)))
            correct += (logits.argmax(dim=1) == labels[batch].to(device)).sum()
    return 100 * int(correct) / len(labels)


def _batches(order: Tensor, batch_size: int) -> list[Tensor]:
    """All images; only a last batch of a single one is left out, BatchNorm can't learn from it."""
    batches = list(torch.split(order, batch_size))
    if len(batches) > 1 and len(batches[-1]) == 1 < batch_size:
        batches.pop()
    return batches


@contextlib.contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def _introduction(
    model: nn.Module,
    dataset: ImageDataset,
    config: TrainConfig,
    execution: Execution,
    history: History,
) -> str:
    action = f"resuming after epoch {len(history)}:" if history else "training"
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return (
        f"{action} {config.model} ({parameters:,} parameters) on {len(dataset.train_images):,} "
        f"images of {dataset.name}, {config.epochs} epochs on {config.device}\n"
        f"steps in {execution}{_threads_text(config.device)}"
    )


def _threads_text(device: str) -> str:
    threads = torch.get_num_threads()
    return f", {threads} thread{'s' * (threads > 1)}" if device == "cpu" else ""


def _finished(run: Run, progress: bool) -> History:
    """The history of a run that needs no more training; nothing is changed."""
    assert run.state is not None
    assert run.folder is not None
    history = History.from_dicts(run.state["history"])
    history.model = make_model(run.config, run.state["num_classes"]).to(run.config.device)
    load_weights(history.model, run.state["model"], run.folder / CHECKPOINT)
    if progress:
        print(f"{run.folder} is finished already, nothing to do: {history.last}")
    return history
