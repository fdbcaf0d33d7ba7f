"""Measure how long a model and its BSConv variants take for inference on this machine.

Weights and images are random, on which time hardly depends; --checkpoint or --weights adds one
network more, such as `bsconv project` wrote. Each is measured as PyTorch gives it, which for
BSConv-U and BSConv-S is what the published package, bsconv 0.4.0, runs, and in each engine as
optimize_for_inference sets it up there. All take turns. The table shows the median of the rounds,
the middle half of them, and the least time that the machine allows (roofline).
"""

import argparse
from pathlib import Path

from ..experiments.normalization import Normalization
from . import _arguments as shared
from ._models import add_chosen, chosen_model, usual_classes, usual_size
from ._output import ROWS, add_csv, add_figure, add_json, check_files, print_table

HELP = "measure how fast a model and its BSConv variants are here"
VARIANTS = ("dense", "u", "s", "cp")
ENGINES = ("eager", "compiled", "onnxruntime", "openvino")
CHOSEN = ("model", "checkpoint", "pretrained", "weights", "num_classes", "input_size")
MOST_DRAWN = 4  # sizes of batches in a figure


def add_list(to: argparse._ActionsContainer, name: str, known: tuple[str, ...], help: str) -> None:
    def some(text: str) -> tuple[str, ...]:
        found = tuple(dict.fromkeys(text.lower().split(",")))
        if not set(found) <= set(known):
            raise argparse.ArgumentTypeError(f"expected some of {','.join(known)}, got {text!r}")
        return found

    text = f"some of {','.join(known)}{help} (default all)"
    to.add_argument(name, type=some, default=known, metavar="LIST", help=text)


def batch_sizes(text: str) -> tuple[int, ...]:
    """``1,16``, or one number."""
    return tuple(dict.fromkeys(map(shared.count, text.split(","))))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add_chosen(parser)
    add_list(parser, "--variants", VARIANTS, ": as it is, as BSConv-U, -S, or -CP as large as U")
    shared.add_share(parser, 0.25)
    shared.add_with_bn(parser, False)
    text = "images in a batch, each measured by itself (default 1,16)"
    add("--batch-size", type=batch_sizes, default=(1, 16), metavar="LIST", help=text)
    text = "what the networks compute in, images included (default float32)"
    add("--dtype", choices=["float32", "bfloat16", "float16"], default="float32", help=text)
    add("--device", default="auto", metavar="NAME", help="cpu, cuda or auto (default)")
    shared.add_input_size(parser)
    shared.add_settings(parser, *shared.NORMALIZATION)
    shared.add_num_classes(parser)
    text = "turns of each network (default: 3 to 50, as many as half a minute holds)"
    add("--rounds", type=shared.count, metavar="N", help=text)
    some = parser.add_mutually_exclusive_group()
    add_list(some, "--engines", ENGINES, ", as far as they are installed")
    text = "all engines but torch.compile, which takes up to minutes"
    const = tuple(one for one in ENGINES if one != "compiled")
    some.add_argument("--no-compile", action="store_const", dest="engines", const=const, help=text)
    add_figure(parser, f"milliseconds per image of {MOST_DRAWN} sizes of batches at most")
    add_csv(parser)
    add_json(parser, f"model, {ROWS}")


def run(arguments: argparse.Namespace) -> None:
    if arguments.out is not None and (sizes := len(arguments.batch_size)) > MOST_DRAWN:
        most = f"{MOST_DRAWN} sizes of batches at most"
        raise ValueError(f"--out draws {most}, got {sizes} in --batch-size")
    check_files(arguments.out, arguments.csv)

    from ..experiments.inference_benchmark import benchmark_inference, build_variants

    name, size, classes = arguments.model, arguments.input_size, arguments.num_classes
    file, own = arguments.checkpoint or arguments.weights or arguments.pretrained, {}
    if file or not name:
        these = {option: getattr(arguments, option) for option in CHOSEN}
        model, config, size, names = chosen_model(argparse.Namespace(**these))
        name, own, classes = config.model, {f"from {Path(file).name}": model}, len(names) or classes
    classes = classes or usual_classes(name)
    given = arguments.normalize, arguments.mean, arguments.std
    normalization = Normalization.from_options(*given) if any(given) else None
    forms = {"p": arguments.p, "with_bn": arguments.with_bn}
    models, notes = build_variants(name, classes, arguments.variants, **forms)
    models |= own
    found = benchmark_inference(
        models,
        size or usual_size(name, next(iter(models.values()))),
        name=name, normalization=normalization, notes=notes, batch_sizes=arguments.batch_size,
        dtype=arguments.dtype, device=arguments.device, rounds=arguments.rounds,
        engines=arguments.engines,
    )  # fmt: skip
    print_table(arguments, found, found.figure, model=name)
