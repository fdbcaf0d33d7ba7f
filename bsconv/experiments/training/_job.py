"""What the steps of a run need, made or read from its folder, and what is said of it."""

import dataclasses

import torch
from torch import nn

from ...pytorch import apply_plan
from ...pytorch._tools.model_tree import parameter_count
from ..config import TrainConfig
from ..data import ImageDataset
from ..files.checkpoints import Start
from ..files.habits import some
from ..optimizers import make_optimizer
from ._inputs import check_fit, find_dataset
from ._models import (
    check_model,
    load_start,
    make_model,
    projected,
    read_start,
    ready_teacher,
    settled,
)
from ._new_head import head_names
from ._processes import Processes
from ._run_folder import Run
from ._steps import Execution, Job, choose_execution


def prepare(run: Run, model: nn.Module | None, teacher: nn.Module | None) -> Job:
    """All parts of ``run`` as they are before its next step, and its folder begun; ``model`` and
    ``teacher`` stand in for those that its settings name."""
    processes = run.processes
    start = processes.from_first(lambda: None if run.state else read_start(run.config))
    config = run.config = settled(run.config, start)
    with processes.agreeing():
        check_model(config)  # with images as its weights want them
    if run.state is None and start is None and model is None:
        _check_needs_no_start(config)
    if config.label_weight and not (teacher or config.teacher or config.teacher_model):
        raise ValueError(f"label_weight={config.label_weight:g} needs a teacher, got teacher=None")
    device = torch.device(config.device)
    dataset = processes.in_turns(lambda: find_dataset(config))
    checksum = processes.from_first(lambda: dataset.checksum)
    with processes.agreeing():
        _check_data(run, dataset, checksum)
        dataset = dataset.to(device)
        torch.manual_seed(config.seed)
        model = make_model(config, dataset.num_classes) if model is None else model
        model = _started(run, model, start, dataset)
        teacher, normalization = ready_teacher(teacher, config, dataset)
    execution = processes.from_first(
        lambda: run.execution or choose_execution(model, dataset.train_images, config)
    )
    with processes.agreeing():
        execution.set_plans(model)
        optimizer = make_optimizer(model, config)
        generator = torch.Generator(device).manual_seed(config.seed)
        alone = processes.count == 1
        trained = execution.compiled(model, device) if alone else processes.shared(model)
        job = Job(model, trained, teacher, normalization, optimizer, dataset, generator, execution)
        run.begin(job)
    return job


def _started(run: Run, model: nn.Module, start: Start | None, dataset: ImageDataset) -> nn.Module:
    """``model`` on its device, with the layers and weights of ``start``, or the run's layers."""
    config = run.config
    if start is not None:
        start = projected(start, model, config, dataset)
        model, run.plan = load_start(model, start, config), start.plan
    else:
        model = apply_plan(model, run.plan)
    model = model.to(config.device).to(memory_format=torch.channels_last)
    check_fit(model, dataset, config)
    if config.freeze:
        head = head_names(model, config)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name.startswith(head))
    return model


def _check_needs_no_start(config: TrainConfig) -> None:
    needing = [name for name in ("new_head", "freeze") if getattr(config, name)]
    if config.settings.fixed_batch_norm:
        needing.insert(0, f"recipe={config.recipe!r}")
    if needing:
        raise ValueError(f"{needing[0]} needs weights to start from, got weights=None")


def _check_data(run: Run, dataset: ImageDataset, first: int) -> None:
    """ValueError where images differ from the first process's, or from those before a break."""
    run.data = dataset.checksum
    if run.data != first:
        raise ValueError(f"{dataset.name} differs between the processes of the run")
    if run.state is not None and run.state.get("data") not in (None, run.data):
        out = run.config.out
        ways = f"restore it, or begin another run with --weights {out}"
        raise ValueError(f"{dataset.name} is not what the run in {out} began with; {ways}")


def introduction(run: Run, job: Job, name: str) -> str:
    """Two lines: what is trained on what, and how its steps are computed."""
    config, data, done = run.config, job.dataset, len(run.history)
    action = f"resuming after epoch {done}:" if done else "training"
    before = config.epochs if run.state is None else run.state["config"]["epochs"]
    if before < config.epochs:
        cycle = config.settings.milestones is None
        rate = "cycle is stretched over all" if cycle else "rate drops after the same epochs"
        longer = f"for {config.epochs} epochs and not {before}"
        action = f"resuming after epoch {done}, {longer}; its {rate}:"
    about = f" ({data.about}; classes: {some(data.classes, 5)})" if data.about else ""
    threads = torch.get_num_threads()
    on_threads = f", {threads} thread{'s' * (threads > 1)}" if config.device == "cpu" else ""
    epochs = f"{config.epochs} epoch{'s' * (config.epochs > 1)}"
    return (
        f"{action} {name} ({parameter_count(job.model):,} parameters) on "
        f"{len(data.train_images):,} images of {data.name}{about}, {epochs} on {config.device}\n"
        f"{steps_text(job.execution, run.processes)}{on_threads}"
    )


def steps_text(execution: Execution, processes: Processes) -> str:
    if processes.count == 1:
        return f"steps in {execution}"
    eager = " (torch.compile takes one process)" if execution.compile else ""
    execution = dataclasses.replace(execution, compile=False)
    return f"{processes.count} processes, steps in {execution}{eager}"
