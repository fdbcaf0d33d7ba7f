"""What the steps of a run need, made or read from its folder."""

from __future__ import annotations

import torch
from torch import nn

from ...pytorch import apply_plan
from ..config import TrainConfig
from ..files.checkpoints import Start
from ._distillation import check_teacher, read_teacher
from ._inputs import (
    check_fit,
    check_model,
    find_dataset,
    load_start,
    make_model,
    projected,
    read_start,
    settled,
)
from ._new_head import head_names
from ._optimizers import make_optimizer
from ._run_folder import Run
from ._steps import Job, choose_execution


def prepare(run: Run, model: nn.Module | None, teacher: nn.Module | None) -> Job:
    """All parts of ``run`` as they are before its next step, and its folder begun.

    ``model`` and ``teacher`` stand in for those that its settings name. ValueError or OSError with
    one line where something is not available, or does not fit the rest.
    """
    processes = run.processes
    config = run.config
    device = torch.device(config.device)
    with processes.agreeing():
        check_model(config)
    start, config = processes.from_first(lambda: _start(run))
    run.config = config
    _check_recipe(run, start is not None or model is not None, teacher)
    dataset = processes.in_turns(lambda: find_dataset(config))
    checksum = processes.from_first(lambda: dataset.checksum)
    with processes.agreeing():
        run.check_data(dataset, checksum)
        dataset = dataset.to(device)
        torch.manual_seed(config.seed)
        model = make_model(config, dataset.num_classes) if model is None else model
        if start is not None:
            start = projected(start, model, config, dataset)
            model, run.plan = load_start(model, start, config), start.plan
        else:
            model = apply_plan(model, run.plan)
        model = model.to(device).to(memory_format=torch.channels_last)
        check_fit(model, dataset, config)
        if config.freeze:
            head = head_names(model, config)
            for name, parameter in model.named_parameters():
                parameter.requires_grad_(name.startswith(head))
        teacher_normalization = config.normalization
        if teacher is None:
            teacher, teacher_normalization = read_teacher(config, dataset)
        if teacher is not None:
            teacher = teacher.to(device).to(memory_format=torch.channels_last).eval()
            check_teacher(teacher, dataset, config)
    execution = processes.from_first(
        lambda: run.execution or choose_execution(model, dataset.train_images, config)
    )
    with processes.agreeing():
        execution.set_plans(model)
        optimizer = make_optimizer(model, config)
        generator = torch.Generator(device).manual_seed(config.seed)
        if processes.count == 1:
            trained = execution.compiled(model, device)
        else:
            trained = processes.shared(model)
        job = Job(
            model, trained, teacher, teacher_normalization, optimizer, dataset, generator, execution
        )
        run.begin(job)
    return job


def _start(run: Run) -> tuple[Start | None, TrainConfig]:
    """What a fresh run starts from, and its settings with the normalisation of that."""
    if run.state is not None:
        return None, run.config
    start = read_start(run.config)
    return start, settled(run.config, start)


def _check_recipe(run: Run, has_start: bool, teacher: nn.Module | None) -> None:
    """ValueError for settings that need a start or a teacher where there is none."""
    config = run.config
    if config.settings.fixed_batch_norm and run.state is None and not has_start:
        raise ValueError(f"recipe={config.recipe!r} needs weights to start from, got weights=None")
    for setting in ("new_head", "freeze"):
        if getattr(config, setting) and run.state is None and not has_start:
            raise ValueError(f"{setting} needs weights to start from, got weights=None")
    if config.label_weight and not (teacher or config.teacher or config.teacher_model):
        raise ValueError(f"label_weight={config.label_weight:g} needs a teacher, got teacher=None")
