"""Say which class images show, by a trained network: a run, a file of weights, or ONNX.

Files that cannot be read are named and left out, and the exit code is 1 then.
"""

import argparse
import contextlib
import os
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from ._arguments import count
from ._output import add_csv, add_json, check_files, print_json

HELP = "say which class images show"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    text = "the --out of `bsconv train` or `bsconv project`, or an ONNX file of `bsconv export`"
    parser.add_argument("model", type=Path, metavar="RUN|FILE", help=text)
    text = "with all folders in it"
    parser.add_argument("images", type=Path, nargs="+", metavar="IMAGE|FOLDER", help=text)
    parser.add_argument("--top", type=count, default=3, metavar="N", help="classes (default 3)")
    add_json(parser, "model, classes, images, unreadable")
    add_csv(parser)


def run(arguments: argparse.Namespace) -> int:
    check_files(None, arguments.csv)
    files = _files(arguments.images)

    from tqdm import tqdm

    from ..basics.files import write_csv
    from ..experiments.classifier import load_classifier

    classifier = load_classifier(arguments.model)
    images, unreadable = list[dict[str, Any]](), list[dict[str, str]]()
    ends = () if arguments.csv is None else (BrokenPipeError,)  # by `| head`: the file is whole
    with tqdm(total=len(files), unit=" images", disable=None, leave=False, delay=1) as bar:
        for file, said in classifier.predictions(files, arguments.top, skip=True):
            bar.update()
            if isinstance(said, str):
                unreadable.append({"file": str(file), "reason": said})
                bar.write(f"bsconv predict: {said}", file=sys.stderr)
                continue
            top = [{"class": name, "probability": share} for name, share in said.top]
            images.append({"file": said.file, "top": top})
            if not arguments.json:
                with contextlib.suppress(*ends):
                    bar.write(str(said), file=sys.stdout)
    if arguments.json:
        about = {"model": str(arguments.model), "classes": classifier.classes}
        with contextlib.suppress(*ends):
            print_json(**about, images=images, unreadable=unreadable)
    if arguments.csv is not None:
        ranks = range(1, min(arguments.top, len(classifier.classes)) + 1)
        names = [f"{what}_{rank}" for rank in ranks for what in ("class", "probability")]
        rows = [[one["file"], *(v for top in one["top"] for v in top.values())] for one in images]
        write_csv(arguments.csv, ["file", *names], rows)
    return 1 if unreadable else 0


def _files(paths: list[Path]) -> list[Path]:
    """The files named, and the images in the folders named; ValueError where there is none."""
    from ..experiments.data import image_files

    files, left_out = dict[str, Path](), Counter[str]()  # each path once
    for path in paths:
        if not path.exists():
            raise ValueError(f"{path} is not there: predict needs images, or folders of them")
        for file in image_files(path, left_out) if path.is_dir() else [path]:
            files.setdefault(os.path.abspath(file), file)
    if left_out:
        kinds = ", ".join(f"{n} {kind}{'s' * (n > 1)}" for kind, n in sorted(left_out.items()))
        print(f"bsconv predict: left out, not images that Pillow reads: {kinds}", file=sys.stderr)
    if not files:
        raise ValueError(f"{paths[0]} holds no image that Pillow reads")
    return list(files.values())
