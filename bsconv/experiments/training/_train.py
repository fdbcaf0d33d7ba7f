"""Training for image classification: the recipe from top to bottom."""

import math
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm
from tqdm import tqdm

from ...pytorch import reg_loss
from ...pytorch._tools.model_tree import evaluating
from ..config import TrainConfig
from ..data import ImageFiles, augment, batches_of
from ..files.checkpoints import CHECKPOINT, load_weights, trained_by
from ._inputs import logits_of, model_input, on_device_of
from ._job import introduction, prepare
from ._models import trained_model
from ._processes import SINGLE, Processes
from ._run_folder import EpochMetrics, History, Run, open_run
from ._steps import Job

TEMPERATURE = 4.0  # softens the answers, so that small differences between wrong classes count
LOOKS = 20  # at the loss in an epoch; each waits for the device, and for the other processes


def train(
    config: TrainConfig,
    *,
    model: nn.Module | None = None,
    teacher: nn.Module | None = None,
    resume: bool = False,
    progress: bool = True,
    after_epoch: Callable[[EpochMetrics, nn.Module], object] | None = None,
) -> History:
    """Train a model from its start to the last epoch; what was measured, with the trained model.

    The start is the initialisation that ``config.seed`` draws, or the weights that ``config``
    names. The loss is cross-entropy, or a teacher's with ``config.label_weight`` of it, and
    ``config.alpha`` times the penalty of BSConv-S. The global random state is left as it was.

    ``model``, which is trained in place, and ``teacher`` are networks of your own in place of those
    that ``config`` names. ``resume=True`` goes on from what ``config.out`` keeps of every epoch: on
    the same machine with as many threads, to the same bits as without the break. ``after_epoch`` is
    called once an epoch is saved, and may stop the run by raising an exception.

    Several processes that torchrun has started train together what one would train alone, with
    ``config.batch_size`` images in a step of all; the first prints and keeps the folder.
    """
    with open_run(config, resume) as run:
        progress = progress and run.processes.first
        if run.finished:
            return _finished(run, model, progress)
        job = prepare(run, model, teacher)
        if progress:
            name = run.config.model if model is None else type(model).__name__
            print(introduction(run, job, name), flush=True)
        tests = job.dataset.test_images, job.dataset.test_labels
        for epoch in run.epochs_left:
            start = time.perf_counter()
            loss, penalty = train_epoch(run, job, epoch, progress)
            top1 = evaluate(job.model, *tests, run.config, run.processes)
            seconds = round(time.perf_counter() - start, 3)
            metrics = EpochMetrics(epoch, loss, top1, job.optimizer.learning_rate, seconds, penalty)
            with run.processes.agreeing():
                _check_numbers(run, job, metrics)
                run.record(metrics, job)
            if progress:
                print(metrics, flush=True)
            if after_epoch is not None and run.processes.first:
                after_epoch(metrics, job.model)
        with run.processes.agreeing():
            run.finish(job)
    return run.history


def train_epoch(run: Run, job: Job, epoch: int, progress: bool) -> tuple[float, float]:
    """One pass over the training images in a new order, which ends early once the loss is not
    finite; the mean loss and the mean of the penalty in it."""
    config, processes, data, device = run.config, run.processes, job.dataset, job.generator.device
    order = torch.randperm(len(data.train_images), generator=job.generator, device=device)
    batches = _batches(order, config.settings.batch_size)
    look_every = max(1, len(batches) // LOOKS)
    total, seen = torch.zeros(2, device=device), 0
    job.trained.train()
    if config.settings.fixed_batch_norm or config.freeze:
        for module in job.trained.modules():  # of several processes, it is a copy of job.model
            if isinstance(module, BatchNorm):
                module.eval()
    processes.own_randomness(config.seed, epoch)
    images_of = zip(batches, batches_of(data.train_images, batches), strict=True)
    with tqdm(
        desc=f"epoch {epoch}/{config.epochs}",
        total=sum(map(len, batches)),
        unit=" images",
        unit_scale=True,
        leave=False,  # a line per epoch is printed anyway
        disable=None if progress else True,  # None: unless on a terminal
    ) as bar:
        for number, (batch, images) in enumerate(images_of, 1):
            rate = config.learning_rate_at((epoch - 1) * len(batches) + number - 1, len(batches))
            losses = train_step(run, job, images.to(device), data.train_labels[batch], rate)
            total += losses * len(batch)
            seen += len(batch)
            bar.update(len(batch))
            if number % look_every == 0 or number == len(batches):
                # the same in all processes, which stop together
                loss, penalty = (processes.sum(total) / processes.count / seen).tolist()
                bar.set_postfix_str(f"loss {loss:.3f}", refresh=False)
                if not math.isfinite(loss):
                    break
    return loss, penalty


def train_step(run: Run, job: Job, images: Tensor, labels: Tensor, learning_rate: float) -> Tensor:
    """One step on these images; the means over the processes of what it returns are their loss and
    the penalty in it."""
    config = run.config
    crop_padding, flip, cutout = config.crop_padding, config.flip, config.cutout
    # every process draws for the whole batch, so that all draw the same
    augmented = augment(images, job.generator, crop_padding=crop_padding, flip=flip, cutout=cutout)
    part, weight = run.processes.part(len(images))
    resized, labels = model_input(augmented[part], config.image_size), labels[part]
    job.execution.begin_step(images.device)
    inputs = model_input(resized, normalization=config.normalization)
    logits = job.execution.logits(job.trained, inputs)
    if job.teacher is None:
        loss = F.cross_entropy(logits, labels)
    else:
        with torch.no_grad():
            answers = job.execution.logits(job.teacher, job.teacher_normalization.apply(resized))
        loss = student_loss(logits, answers, labels, config.label_weight)
    penalty = reg_loss(job.trained, config.alpha)
    loss = weight * loss + penalty
    job.model.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    job.optimizer.step(learning_rate)
    return torch.stack([loss.detach(), penalty.detach().to(loss)])


def student_loss(logits: Tensor, answers: Tensor, labels: Tensor, label_weight: float) -> Tensor:
    """KL divergence from the teacher's softened answers (Hinton et al., 2015), with a share of
    cross-entropy; ``logits`` and ``answers`` of shape (N, classes), ``labels`` (N,)."""
    student, teacher = (F.log_softmax(each / TEMPERATURE, dim=1) for each in (logits, answers))
    taught = F.kl_div(student, teacher, log_target=True, reduction="batchmean")
    loss = (1 - label_weight) * TEMPERATURE**2 * taught
    return loss + label_weight * F.cross_entropy(logits, labels) if label_weight else loss


def evaluate(
    model: nn.Module,
    images: Tensor | ImageFiles,
    labels: Tensor,
    config: TrainConfig | None = None,
    processes: Processes = SINGLE,
) -> float:
    """Top-1 accuracy in percent, on the device of the model, which is left as it was.

    ``images``: uint8 or float in [0, 1], shape (N, 3, H, W); ``labels``: int64, shape (N,), taken
    as ``config`` says. Several ``processes`` share the batches, and all get the same number.
    """
    config = config or TrainConfig(batch_size=256)
    if len(images) != len(labels) or not len(labels):
        raise ValueError(f"evaluate needs a label per image, got {len(images)} and {len(labels)}")
    if isinstance(images, Tensor) and images.is_floating_point() and images.isnan().any():
        raise ValueError("images need numbers, got NaN")
    correct = on_device_of(model, torch.zeros((), dtype=torch.int64))
    with evaluating(model):
        size = config.settings.batch_size
        starts = range(0, len(labels), size)[processes.rank :: processes.count]
        batches = [slice(start, start + size) for start in starts]
        for batch, chosen in zip(batches, batches_of(images, batches), strict=True):
            inputs = model_input(chosen.to(correct.device), config.image_size, config.normalization)
            logits = logits_of(model(inputs))
            right = logits.argmax(dim=1) == labels[batch].to(correct.device)
            correct += (right & ~logits.isnan().any(dim=1)).sum()  # argmax takes NaN for the most
    return 100 * int(processes.sum(correct)) / len(labels)


def _batches(order: Tensor, batch_size: int) -> list[Tensor]:
    """All images; only a last batch of a single one is left out, BatchNorm can't learn from it."""
    batches = list(torch.split(order, batch_size))
    if len(batches) > 1 and len(batches[-1]) == 1 < batch_size:
        batches.pop()
    return batches


def _check_numbers(run: Run, job: Job, metrics: EpochMetrics) -> None:
    """FloatingPointError where the loss or the weights after the last step are not finite."""
    if not math.isfinite(metrics.train_loss):
        what = f"training loss became {metrics.train_loss}"
    elif not all(bool(parameter.isfinite().all()) for parameter in job.model.parameters()):
        what = "weights became infinite or NaN"
    else:
        return
    ways = f"try a learning rate below {run.config.learning_rate}"
    if run.folder is not None and metrics.epoch > 1:
        ways += f" ({run.folder} keeps the checkpoint of epoch {metrics.epoch - 1})"
    raise FloatingPointError(f"the {what} in epoch {metrics.epoch} of {run.config.epochs}; {ways}")


def _finished(run: Run, model: nn.Module | None, progress: bool) -> History:
    """The history of a run that needs no more training; nothing is changed."""
    assert run.state is not None
    path = Path(str(run.config.out)) / CHECKPOINT
    trained = trained_by(run.state, path)
    if model is None:
        model = trained_model(trained, path)
    else:
        load_weights(model, trained.state, path)
    if progress:
        print(f"{path.parent} is finished already, nothing to do: {run.history.last}")
    run.history.model = model.to(run.config.device)
    return run.history
