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
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bsconv.pytorch import reg_loss

from ..config import RECIPES, Recipe, TrainConfig
from ..data import ImageDataset, augment
from ..files.checkpoints import CHECKPOINT, load_weights, trained_by
from ._device import reproducible
from ._history import EpochMetrics, History
from ._inputs import (
    check_fit,
    check_model,
    find_dataset,
    load_start,
    logits_of,
    make_model,
    model_input,
    read_start,
)
from ._memory import keep_freed_memory
from ._optimizers import Optimizers, make_optimizer
from ._processes import SINGLE, Processes, join_processes, process_device
from ._progress import EpochWatch
from ._run_folder import Run, open_run
from ._steps import Execution, choose_execution

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

    Several processes that torchrun has started train together what one would train alone, with
    ``config.batch_size`` images in a step of all of them; the first keeps the folder, prints and
    calls ``after_epoch``.
    """
    device = process_device(config.device)
    config = dataclasses.replace(config.resolved(), device=str(device))
    if device.type == "cpu":
        keep_freed_memory()
    with (
        join_processes(device) as processes,
        reproducible(device),
        open_run(config, resume, processes) as run,
    ):
        progress = progress and processes.first
        if run.finished:
            return _finished(run, progress)
        processes.together(check_model, config)
        weights = processes.from_first(read_start, config) if run.state is None else None
        dataset = processes.in_turns(find_dataset, config)
        checksum = dataset.checksum
        first = processes.from_first(lambda: checksum)
        processes.together(run.check_data, dataset.name, checksum, first)
        dataset = dataset.to(device)
        torch.manual_seed(config.seed)
        model = make_model(config, dataset.num_classes)
        if weights is not None:
            processes.together(load_start, model, weights, config)
        model = model.to(device).to(memory_format=torch.channels_last)
        processes.together(check_fit, model, dataset, config)
        execution = processes.from_first(
            lambda: run.execution or choose_execution(model, dataset.train_images, config)
        )
        processes.together(execution.set_plans, model)
        optimizer = make_optimizer(model, config)
        # shuffling and augmentation draw from here, dropout from the global state
        generator = torch.Generator(device).manual_seed(config.seed)
        if processes.count == 1:
            trained = execution.compiled(model, device)
        else:
            trained = processes.together(processes.shared, model)
        history = processes.together(run.begin, model, optimizer, generator)
        if progress:
            text = _introduction(model, dataset, config, execution, history, processes)
            print(text, flush=True)

        for epoch in range(len(history) + 1, config.epochs + 1):
            start = time.perf_counter()
            processes.own_randomness(config.seed, epoch)
            how = config, execution, epoch, processes, progress
            loss = _train_epoch(trained, optimizer, dataset, generator, *how)
            processes.together(_check_numbers, loss, model, epoch, run)
            top1 = evaluate(
                model,
                dataset.test_images,
                dataset.test_labels,
                batch_size=config.batch_size,
                image_size=config.image_size,
                processes=processes,
            )
            rate = optimizer.learning_rate
            seconds = round(time.perf_counter() - start, 3)
            history.append(EpochMetrics(epoch, loss, top1, rate, seconds))
            state = history, model, optimizer, generator, dataset.num_classes, execution
            processes.together(run.save, *state)
            if progress:
                print(history.last, flush=True)
            if after_epoch is not None and processes.first:
                after_epoch(history.last, model)
        processes.together(run.finish, model, dataset.num_classes, execution)
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
    processes: Processes,
    progress: bool,
) -> float:
    """One pass over the training images in a new order; the mean loss, penalty included.

    It ends early where the loss is no finite number any more.
    """
    model.train()
    images, labels = dataset.train_images, dataset.train_labels
    order = torch.randperm(len(images), generator=generator, device=images.device)
    batches = _batches(order, config.batch_size)
    with EpochWatch(f"epoch {epoch}/{config.epochs}", batches, processes, progress) as watch:
        for number, batch in enumerate(watch):
            step = (epoch - 1) * len(batches) + number
            optimizer.learning_rate = config.learning_rate_at(step, len(batches))
            augmented = augment(
                images[batch],
                generator,
                crop_padding=config.crop_padding,
                flip=config.flip,
                cutout=config.cutout,
            )
            # every process draws for the whole batch, so that all draw the same
            part, weight = processes.part(len(batch))
            execution.begin_step(images.device)
            with execution.autocast(images.device):
                logits = logits_of(model(model_input(augmented[part], config.image_size))).float()
            loss = weight * F.cross_entropy(logits, labels[batch[part]])
            loss = loss + reg_loss(model, config.alpha)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            watch.add(loss, len(batch))
    return watch.mean_loss()


def _check_numbers(loss: float, model: nn.Module, epoch: int, run: Run) -> None:
    """The loss, and what the last step made of the weights: nothing else is worth keeping."""
    what = None
    if not math.isfinite(loss):
        what = f"training loss became {loss}"
    elif not all(bool(parameter.isfinite().all()) for parameter in model.parameters()):
        what = "weights became infinite or no numbers"
    if what is not None:
        kept = run.folder is not None and epoch > 1
        raise FloatingPointError(
            f"the {what} in epoch {epoch} of {run.config.epochs}; "
            f"try a learning rate below {run.config.learning_rate}"
            + (f" ({run.folder} keeps the checkpoint of epoch {epoch - 1})" if kept else "")
        )


def evaluate(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    batch_size: int = 256,
    image_size: int | None = None,
    processes: Processes = SINGLE,
) -> float:
    """Top-1 accuracy in percent, on the device of the model, which is left as it was.

    ``images``: uint8 or float in [0, 1], shape (N, 3, H, W); ``labels``: int64, shape (N,). Several
    ``processes`` share the batches out, and all get the same number.
    """
    if len(images) != len(labels) or not len(labels):
        raise ValueError(f"evaluate needs a label per image, got {len(images)} and {len(labels)}")
    if batch_size < 1:
        raise ValueError(f"batch_size must be a whole number >= 1, got {batch_size!r}")
    if images.is_floating_point() and images.isnan().any():
        raise ValueError("images must be numbers, got NaN")
    device = next((tensor.device for tensor in model.parameters()), images.device)
    correct = torch.zeros((), dtype=torch.int64, device=device)
    with _evaluating(model):
        for start in range(0, len(labels), batch_size)[processes.rank :: processes.count]:
            batch = slice(start, start + batch_size)
            logits = logits_of(model(model_input(images[batch].to(device), image_size)))
            right = logits.argmax(dim=1) == labels[batch].to(device)
            correct += (right & ~logits.isnan().any(dim=1)).sum()  # NaN is no answer
    return 100 * int(processes.sum(correct)) / len(labels)


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
    processes: Processes,
) -> str:
    action = f"resuming after epoch {len(history)}:" if history else "training"
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return (
        f"{action} {config.model} ({parameters:,} parameters) on {len(dataset.train_images):,} "
        f"images of {dataset.name}, {config.epochs} epochs on {config.device}\n"
        f"{_steps_text(execution, processes)}{_threads_text(config.device)}"
    )


def _steps_text(execution: Execution, processes: Processes) -> str:
    if processes.count == 1:
        return f"steps in {execution}"
    eager = " (torch.compile takes one process)" if execution.compile else ""
    execution = dataclasses.replace(execution, compile=False)
    return f"{processes.count} processes, steps in {execution}{eager}"


def _threads_text(device: str) -> str:
    threads = torch.get_num_threads()
    return f", {threads} thread{'s' * (threads > 1)}" if device == "cpu" else ""


def _finished(run: Run, progress: bool) -> History:
    """The history of a run that needs no more training; nothing is changed."""
    assert run.state is not None
    folder = Path(str(run.config.out))
    trained = trained_by(run.state, folder / CHECKPOINT)
    history = run.history
    history.model = make_model(run.config, trained.num_classes).to(run.config.device)
    load_weights(history.model, trained.state, folder / CHECKPOINT)
    if progress:
        print(f"{folder} is finished already, nothing to do: {history.last}")
    return history
