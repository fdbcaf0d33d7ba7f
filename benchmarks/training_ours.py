"""A process in which our trainer runs, an epoch at a turn, with its own choice of execution."""

from __future__ import annotations

import contextlib
import io
import statistics
from typing import TYPE_CHECKING, Any

from .turns import Turns, given_arguments

if TYPE_CHECKING:
    from torch import nn

    from bsconv.experiments.training import EpochMetrics

# long enough for the trainer to measure and compile; no one waits for the last of them
EPOCHS = 1000
UNTUNED: dict[str, Any] = {"compile": False, "plan": "factored", "precision": "float32"}
PENALTIES = 30


def main() -> None:
    given = given_arguments()
    turns = Turns()
    turns.wait()
    from bsconv.experiments.training import TrainConfig, train

    printed = io.StringIO()

    def after_epoch(metrics: EpochMetrics, model: nn.Module) -> None:
        steps = [line for line in printed.getvalue().splitlines() if line.startswith("steps in")]
        figures: dict[str, float | str] = {"startup": 0.0, "seconds": metrics.seconds}
        figures["how"] = steps[0] if steps else ""
        if given.get("penalty"):
            figures["penalty"] = penalty_seconds(model)
        turns.report(**figures)
        turns.wait()

    config = TrainConfig(
        model=given["model"],
        dataset=given["dataset"],
        data=given["data"],
        recipe=given["recipe"],
        batch_size=given["batch_size"],
        device=given["device"],
        train_limit=given["images"],
        test_limit=1,  # what is measured is training
        epochs=EPOCHS,
        **(UNTUNED if given["untuned"] else {}),
    )
    with contextlib.redirect_stdout(printed):
        train(config, after_epoch=after_epoch)


def penalty_seconds(model: nn.Module) -> float:
    """Median of the penalty's forward and backward pass, gradients added up as in a step."""
    from bsconv.basics.timing import in_turns
    from bsconv.pytorch import reg_loss

    def step() -> None:
        reg_loss(model, 0.1).backward()  # type: ignore[no-untyped-call]

    device = next(model.parameters()).device
    return statistics.median(in_turns({"step": step}, device, rounds=PENALTIES)["step"])


if __name__ == "__main__":
    main()
