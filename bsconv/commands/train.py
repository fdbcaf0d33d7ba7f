"""Train a model and measure it after every epoch. The defaults are the published CIFAR recipe."""

import argparse
import dataclasses
import os
import shlex
import sys
from pathlib import Path

from ..experiments.config import TrainConfig
from ._arguments import MODEL_HELP, add_replacement, add_settings, given_settings

HELP = "train a model"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    # what is not given stays unset: with --resume it comes from the folder of the run
    parser.argument_default = argparse.SUPPRESS
    parser.add_argument("--model", metavar="MODEL", help=MODEL_HELP)
    add_replacement(parser)
    add_settings(parser)
    text = "go on with the run in --out"
    parser.add_argument("--resume", action="store_true", default=False, help=text)


def run(arguments: argparse.Namespace) -> int:
    try:
        config = _config(arguments)
    except ValueError:
        if int(os.environ.get("LOCAL_RANK", 0)) > 0:  # the first process here says the same
            return 2
        raise
    import torch

    from ..experiments.training import PeerFailed, Terminated, terminable, train

    try:
        with terminable():
            train(config, resume=arguments.resume)
    except torch.OutOfMemoryError as error:
        raise ValueError(f"{config.device} is out of memory, try a smaller --batch-size") from error
    except PeerFailed:
        return 2
    except ConnectionError as error:
        raise ConnectionError(f"{error}; {_how_to_go_on(config)}") from error
    except KeyboardInterrupt as stop:
        if int(os.environ.get("RANK", 0)) == 0:
            print(f"bsconv train: interrupted; {_how_to_go_on(config)}", file=sys.stderr)
        return 143 if isinstance(stop, Terminated) else 130
    return 0


def _config(arguments: argparse.Namespace) -> TrainConfig:
    if arguments.resume:
        if "out" not in arguments:
            raise ValueError("--resume needs --out, the folder of the run to go on with")
        saved = Path(arguments.out) / "config.json"
        if saved.exists():
            from ..experiments.files.checkpoints import read_config
            from ..experiments.own_code import check_remembered

            given, config = given_settings(arguments, saved=True), read_config(saved)
            for name in ("model", "teacher_model"):
                if name not in given:
                    check_remembered(getattr(config, name) or "")
            if given.get("recipe", config.recipe) != config.recipe:
                given = {"milestones": None, **given}  # so that the recipe is what is refused
            return dataclasses.replace(config, **given)
        if "model" not in arguments:
            raise ValueError(f"{arguments.out} holds no run to resume; --model starts one there")
    if "model" not in arguments:
        raise ValueError(f"--model is missing: {MODEL_HELP}")
    return TrainConfig(**given_settings(arguments))


def _how_to_go_on(config: TrainConfig) -> str:
    if config.out is None:
        return "nothing was kept, there was no --out"
    if not (Path(config.out) / "config.json").exists():
        return "nothing was written yet"
    several = int(os.environ.get("WORLD_SIZE", 1)) > 1
    here = os.environ.get("LOCAL_WORLD_SIZE", "1")
    launcher = f"torchrun --nproc-per-node {here} -m " if several else ""
    return f"go on with: {launcher}bsconv train --out {shlex.quote(config.out)} --resume"
