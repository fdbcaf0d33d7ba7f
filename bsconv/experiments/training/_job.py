"""What the steps of a run need, made or read from its folder."""

from __future__ import annotations

import torch

from ._inputs import check_fit, check_model, find_dataset, load_start, make_model, read_start
from ._optimizers import make_optimizer
from ._run_folder import Run
from ._steps import Job, choose_execution

__all__ = ["Job", "prepare"]


def prepare(run: Run) -> Job:
    """All parts of ``run`` as they are before its next step, and its folder begun.

    ValueError or OSError with one line where they cannot be had or do not fit together.
    """
    config, processes = run.config, run.processes
    device = torch.device(config.device)
    with processes.agreeing():
        check_model(config)
    weights = processes.from_first(lambda: read_start(config) if run.state is None else None)
    dataset = processes.in_turns(lambda: find_dataset(config))
    checksum = processes.from_first(lambda: dataset.checksum)
    with processes.agreeing():
        run.check_data(dataset, checksum)
        dataset = dataset.to(device)
        torch.manual_seed(config.seed)
        model = make_model(config, dataset.num_classes)
        if weights is not None:
            load_start(model, weights, config)
        model = model.to(device).to(memory_format=torch.channels_last)
        check_fit(model, dataset, config)
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
        job = Job(model, trained, optimizer, dataset, generator, execution)
        run.begin(job)
    return job
