"""What the steps of a run need, made or read from its folder, and what is said of it."""

import dataclasses

import torch
from torch import nn

from ...pytorch import apply_plan
from ...pytorch._tools.model_tree import parameter_count
from ...pytorch.modules import BLUEPRINT_LAYERS
from ...pytorch.regularization import OrthonormalBasis
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
    begun = run.state or start
    given = begun or model is not None
    with processes.agreeing():
        made = check_model(config)  # settled: where its head is may depend on the size of images
        if made is not None and not given:
            _check_layers(config, made, drawn=True)  # before any data is fetched
        free = given or not config.settings.fixed_batch_norm
        _check_used(config, "weights to start from", new_head=begun, freeze=given, recipe=free)
        taught = teacher is not None or config.teacher or config.teacher_model
        _check_used(config, "a teacher", label_weight=taught)
    device = torch.device(config.device)
    dataset = processes.in_turns(lambda: find_dataset(config))
    run.data = processes.in_turns(lambda: dataset.checksum)
    first = processes.from_first(lambda: run.data)
    with processes.agreeing():
        _check_data(run, dataset.name, first)
        dataset = dataset.to(device)
        torch.manual_seed(config.seed)
        model = make_model(config, dataset.num_classes) if model is None else model
        model = _started(run, model, start, dataset)
        if run.state is None:  # those of earlier versions go on
            _check_layers(config, model, drawn=not given)
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
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ValueError(f"model needs weights to train, got {type(model).__name__} without any")
    return model


def _check_used(config: TrainConfig, what: str, **there: object) -> None:
    """ValueError for a setting that changes nothing, because ``what`` it needs is not ``there``."""
    for name, found in there.items():
        value = getattr(config, name)
        if not found and value not in (getattr(TrainConfig, name), 0, "factored"):
            raise ValueError(f"{name} needs {what}, got {name}={value!r}")


def _check_layers(config: TrainConfig, model: nn.Module, drawn: bool) -> None:
    """The same of settings for certain layers; ``drawn``: whether the run draws their weights."""
    layers = [each for each in model.modules() if isinstance(each, BLUEPRINT_LAYERS)]
    bases = [each for each in model.modules() if isinstance(each, OrthonormalBasis)]
    _check_used(config, "BSConv-S layers", alpha=bases)
    _check_used(config, "BSConv layers", plan=layers)
    _check_used(config, "fresh BSConv layers", init=layers and drawn)


def _check_data(run: Run, name: str, first: int | None) -> None:
    """ValueError where images differ from the first process's, or from those before a break."""
    if run.data != first:
        raise ValueError(f"{name} differs between the processes of the run")
    if run.state is not None and run.state.get("data") not in (None, run.data):
        out = run.config.out
        ways = f"restore it, or begin another run with --weights {out}"
        raise ValueError(f"{name} is not what the run in {out} began with; {ways}")


def introduction(run: Run, job: Job, name: str) -> str:
    """What is trained on what, how its steps are computed, and whether nothing is kept."""
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
    kept = "" if config.out else "\nnothing is written to disk: there is no out folder"
    epochs = f"{config.epochs} epoch{'s' * (config.epochs > 1)}"
    return (
        f"{action} {name} ({parameter_count(job.model):,} parameters) on "
        f"{len(data.train_images):,} images of {data.name}{about}, {epochs} on {config.device}\n"
        f"{steps_text(job.execution, run.processes)}{on_threads}{kept}"
    )


def steps_text(execution: Execution, processes: Processes) -> str:
    if processes.count == 1:
        return f"steps in {execution}"
    eager = " (torch.compile takes one process)" if execution.compile else ""
    execution = dataclasses.replace(execution, compile=False)
    return f"{processes.count} processes, steps in {execution}{eager}"
