"""Whatever is wrong with what is typed is said in one line, before anything is computed."""

import re
import shlex
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
from safetensors.torch import save_file

from bsconv.__main__ import make_parser
from bsconv.experiments.config import TrainConfig
from bsconv.experiments.files.checkpoints import write_trained
from bsconv.experiments.inference_benchmark import _run
from bsconv.experiments.model_sources import build_model
from bsconv.experiments.training import _inputs
from helpers.records import record
from results.record import write_record

# by how the command line starts, how it goes on and what is said
WRONG = {
    "": {
        "trian": "there is no command 'trian', did you mean train",
        "models nothing*": r"no architecture matches 'nothing\*'",
        "data cifar10 --split 7": "split needs a number > 0 and < 1",
        "data cifar10 --data empty": "no cifar10.npz in .*empty, and BSCONV_OFFLINE is set",
        "data ~no.one/x": "the folder ~no.one/x does not exist",
    },
    "train": {
        "": "--model is missing: an architecture of `bsconv models`; torchvision:NAME",
        "--nonsense": r"^bsconv train: unrecognized arguments: --nonsense \(see bsconv train",
        "--datset=x": "unrecognized arguments: --datset=x, did you mean --dataset or --data",
        "--model resnet_18": "did you mean",
        "--model cifar_resnet20_bsconvu --bsconv u": "is a BSConv network al",
        "--resume": "--resume needs --out",
        "--resume --out none": "none holds no run to resume; --model starts one",
        "--resume --out none --model cifar_resnet20 --p 1/2": "--p goes with --bsconv s, got 0.5",
        "--model cifar_wrn16_1_bsconvu --pretrained cifar10 --dataset synthetic --init matched": (
            "init needs fresh BSConv layers, got init='matched'"
        ),
        "--model torchvision:alexnet --train-limit 10 --dataset synthetic": (
            "torchvision:alexnet cannot take images of 2 x 3 x 32 x 32 .*--image-size 224"
        ),
        # no data is fetched for a model that does not exist
        "--data empty --model cifar_resnet20x": "cifar_resnet20x",
    },
    "train --model cifar_resnet20": {
        "--dataset cifar11": "did you mean cifar10",
        "--epochs -1": "epochs needs a whole number",
        "--epochs x": "invalid int value: 'x'",
        "--device gpu": "auto .*cpu.*, got 'gpu'",
        "--p 1/0": "expected a share as 1/4 or 0.25",
        "--p 1/2": "--p goes with --bsconv s, got 0.5$",
        "--bsconv u --p 0": "--p goes with --bsconv s, got 0.0",
        "--p 1e400": "expected a share as 1/4 or 0.25, got '1e400'",
        "--with-bn": "--with-bn goes with --bsconv$",
        "--image-size 100000": "a whole number >= 1 and <= 4096",
        "--mean 0.5 0.5": "argument --mean: expected 3 arguments",
        "--weights no.pt": "no.pt: No such file",
        "--data empty": "empty",
        "--data broken": r"broken/cifar10\.npz",
        "--resume --out begun": r"begun/checkpoint\.pt is damaged",
        "--out begun": r"begun already holds a run \(checkpoint\.pt\)",
        "--recipe finetune": "recipe needs weights to start from, got recipe='finetune'",
        "--new-head": "new_head needs weights to start from",
        "--freeze": "freeze needs weights to start from",
        "--label-weight 0.5": "label_weight needs a teacher, got label_weight=0.5",
        "--alpha 0.2 --data empty": "alpha needs BSConv-S layers, got alpha=0.2",
        "--dataset synthetic --plan merged": "plan needs BSConv layers, got plan='merged'",
        "--dataset synthetic --init matched": "init needs fresh BSConv layers, got",
        "--label-weight 2": "label_weight needs a number",
        "--dataset synthetic --teacher w.safetensors": "teacher_model says which",
        "--dataset synthetic --teacher-model torchvision:resnet18": "resnet18' needs a teacher, a",
    },
    "evaluate": {
        "": "one of the arguments --checkpoint --model is required",
        "--checkpoint none": "none: No such file or directory",
        "--checkpoint .": "neither model.safetensors nor checkpoint.pt",
        "--checkpoint begun": r"begun/checkpoint\.pt is damaged",
        "--checkpoint . --model m": "not allowed with argument",
        "--checkpoint . --pretrained x": r"with --model alone \(\. says so itself\), got x",
        "--checkpoint . --weights x": "--weights goes with --model",
        "--checkpoint run.safetensors --dataset synthetic": "knows 3 classes, synthetic has 10",
        "--model cifar_resnet20": "--pretrained or --weights is missing",
        "--model cifar_resnet20 --weights no.pt": "no.pt: No such file",
        "--model cifar_resnet20 --pretrained x --dataset synthetic": "pretrained='x'",
        "--model torchvision:resnet18 --pretrained x": "got 'x' with torchvision:resnet18",
        "--model nets.py:small --pretrained DEFAULT": "needs DEFAULT with the model of a library",
    },
    "plan": {
        "": "the following arguments are required: MODEL",
        "nothing": "nothing",
        "cifar_resnet20 --num-classes 99999999999": "num_classes needs 1 to 10,000,000",
        "cifar_resnet20 --num-classes 0": "--num-classes: expected a whole number of",
        "cifar_resnet20 --exclude x": "exclude names no layer of this model",
        "cifar_resnet20 --bsconv s --p 2": "0 <= p <= 1",
        "cifar_resnet20 --bsconv u --target-macs 1/4": "--bsconv does not go with a target",
        "cifar_resnet20 --input-size 32": "--input-size goes with --target-parameters or",
    },
    "profile": {
        "cifar_resnet20 --input-size 3x32": r"input_size=\(1, 3, 32\)",
        "cifar_resnet20 --input-size 1x32x32": r"input_size=\(1, 1, 32, 32\)",
        "torchvision:alexnet --input-size 32": "what AlexNet takes, got input",
        "cifar_resnet20 --csv no/x.csv": "cannot write no/x.csv: No such file",
    },
    "spectra": {
        "none.safetensors": "none.safetensors: No such file or directory",
        "cifar_resnet20 --weights none.pth": "none.pth: No such file or directory",
        "none.pth --weights other.pth": "--weights goes with a model by its name, none.pt",
        "none.pth --num-classes 3": "--num-classes goes with a model by its name",
        "cifar_resnet20 --weights DEFAULT --num-classes 3": "goes with --weights FILE, or w",
        "cifar_resnet56 --weights DEFAULT": "pretrained='cifar10'.*it has none",
        "torchvision:resnet19 --weights DEFAULT": "did you mean torchvision:resnet1",
        "torchvision:vgg19 --weights DEFAULT": "BSCONV_OFFLINE is set, .*--weights FILE",
        # that there is no such model would be said if it were looked for
        "none.pth --out figure.jpg": "needs to end in .png, .pdf, .svg, got figure.jpg",
        "none.pth --out none/figure.png": "cannot write none/figure.png: No such file or directory",
        "none.pth --out folder.png": "cannot write folder.png: Is a directory",
        "none.pth --csv none/table.csv": "cannot write none/table.csv",
        "pointwise.safetensors --out f.png": "nothing to draw in f.png: 0 of 1 convolutions",
        "damaged.pt": "damaged.pt is damaged or ",
        "cifar_resnet56 --weights run.safetensors": r"do not fit cifar_resnet56: it lacks \S+ and",
        "cifar_resnet20 --weights run.safetensors --num-classes 100": (
            r"do not fit cifar_resnet20: \S+ needs shape \(100,\), got \(3,\)"
        ),
        "cifar_resnet20 --weights more.safetensors": r"cifar_resnet20: it has no more\.weight\n",
    },
    "results": {
        "": "no record of a run in .*results; --results DIR",
        "--results damaged.pt": "there is no record of a run in damaged.pt; --results DIR",
        "--results empty": "there is no record of a run in empty; --results DIR",
        "--results broken": "bad.json holds no record of a run",
        "--results apart --dataset mnist": "--dataset mnist has no recorded run, cifar10 has",
        "--results apart --out f.png": "nothing to draw in f.png: no run is",
        "--out none/fig.png": "cannot write",
        "--runs x --dataset y": "--dataset goes with the recorded runs, not with --runs, got y",
        "--markdown --json": "argument --json: not allowed with argument --markdown",
    },
    "evaluate --checkpoint bad.onnx": {"": "bad.onnx is an ONNX file, which bsconv predict"},
    "predict": {
        "nowhere empty": "empty holds no image",
        "nowhere content.pt": "nowhere: No such file",
        "run.safetensors nothing.png": "nothing.png is not there",
        "content.pt content.pt": "content.pt holds no state dict",
        "w.safetensors content.pt": "w.safetensors holds weights that do not say which model",
        "bad.onnx content.pt": "bad.onnx holds no network for images",
        "bad.pt2 content.pt": "bad.pt2 is an exported program: take the run or the ONNX file",
        "run.safetensors content.pt --top 0": "expected a whole number of at least 1",
    },
    "project cifar_resnet20 --weights w.safetensors": {
        "": "project needs --bsconv or --budget, or --curve without --out",
        "--bsconv u": "project needs --out, a .safetensors file for the new network",
    },
    "project --weights w.safetensors --out o.safetensors --bsconv u": {
        "nothing": "nothing",
        "cifar_resnet20_bsconvu": "is a BSConv network already",
    },
    "project cifar_resnet20 --weights w.safetensors --out o.safetensors": {
        "--curve c.png": "project needs --bsconv or --budget, or --curve without --out",
        "--budget 0": "--budget: expected more than 0% and at most 100%, got '0'",
        "--budget 101%": "--budget: expected more than 0% and at most 100%, got '101%'",
        "--budget %": "--budget: expected a share",
        "--budget 1/4 --p 1/2": "--p goes with --bsconv s, got 0.5",
        "--budget 1/4 --method weights": "--method goes with --bsconv, got weights",
        "--bsconv u --out out.pt": r"--out needs to be a \.safetensors file, got out\.pt",
        "--bsconv u --out w.safetensors": "--out needs a file other than that of --weights, got",
        "--bsconv u --out run/model.safetensors --weights run": "a file other than that of --w",
        "--bsconv u --out no/o.safetensors": r"cannot write no/o\.safetensors: No such file",
        "--bsconv u --pretrained cifar10": "not allowed with argument --weights",
        "--bsconv u --budget 25%": "argument --budget: not allowed with argument --bsconv",
        "--bsconv u --of macs": "--of goes with --budget or --curve, got macs",
        "--bsconv u --curve fig.txt": r"needs to end in \.png, \.pdf, \.svg, got fig\.txt",
    },
    "export --format onnx --out m.onnx": {
        "": "MODEL or --checkpoint is missing",
        "nothing": "nothing",
        "cifar_resnet20 --out m.pt": r"format onnx ends in \.onnx, got m\.pt",
        "cifar_resnet20 --format exported-program": r"exported-program ends in \.pt2, got m\.onnx",
        "cifar_resnet20 --out no/m.onnx": "cannot write no/m.onnx: No such file",
        "cifar_resnet20 --input-size 3x0": "expected a size as 3x224x224 or 224",
        "torchvision:squeezenet1_1 --input-size 1x32x32 --weights w.safetensors --normalize none": (
            r"w\.safetensors do not fit torchvision:squeezenet1_1: it lacks"
        ),
        "--checkpoint c --weights b": "not allowed with argument",
        "--checkpoint c --bsconv u": r"--bsconv goes with MODEL alone \(c says so itself\), got u",
        "--checkpoint c --num-classes 3": "--num-classes goes with MODEL alone",
        "--checkpoint run.safetensors cifar_resnet56": (
            r"run\.safetensors is a checkpoint of cifar_resnet20, not of cifar_resnet56"
        ),
    },
    "export --format onnx --out m.onnx cifar_resnet20 --pretrained cifar10": {
        "--input-size 1x32x32": r"cannot take images of 1 x 1 x 32 x 32 \(.*\); try another",
        "--bsconv u": "--pretrained has no weights of a model changed by --bsconv",
    },
    "benchmark": {
        "cifar_resnet21": "did you mean cifar_resnet20",
        "torchvision:alexnet --variants dense --input-size 32": (
            r"what AlexNet takes, got input_size=\(1, 3, 32, 32\)"
        ),
    },
    "benchmark cifar_wrn16_1": {
        "--variants u,x": "expected some of dense,u,s,cp, got 'u,x'",
        "--variants ''": "expected some of dense,u,s,cp, got ''",
        "--engines eager --no-compile": "--no-compile: not allowed with argument --engines",
        "--engines tensorrt": "some of eager,compiled,onnxruntime,openvino, got 'tensorrt'",
        "--batch-size 1,x": "--batch-size: expected a whole number of at least 1, got 'x'",
        "--batch-size 0": "--batch-size: expected a whole number of at least 1, got '0'",
        "--device gpu": "device needs one that is here, auto",
        "--out f.png --batch-size 1,2,3,4,5": "--out draws 4 sizes of batches at most, got 5 in",
        "--out none/f.png": "cannot write",
        "--csv none/t.csv": "cannot write none/t.csv",
    },
}
LINES = {f"{start} {rest}": WRONG[start][rest] for start in WRONG for rest in WRONG[start]}
PATHS = [  # all options and arguments that take a path or a name
    (f"{name} {' '.join(one.option_strings)} ''", command, one)
    for name, command in make_parser()._subparsers._group_actions[0].choices.items()
    for one in command._actions
    if one.nargs != 0 and not one.choices and one.type in (None, Path)
]
LINES |= {line: "expected a value, got ''" for line, _, _ in PATHS}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of files that are not what they should be, and of the trained run.safetensors."""
    folder = tmp_path_factory.mktemp("place")
    for name in ("empty", "broken", "begun", "folder.png"):
        (folder / name).mkdir()
    damaged = "damaged.pt damaged.safetensors bad.onnx begun/checkpoint.pt broken/cifar10.npz"
    for name in damaged.split():
        (folder / name).write_bytes(b"nonsense")
    (folder / "begun" / ".lock").touch()
    (folder / "broken" / "bad.json").write_text("{}")
    write_record(record(1.0, train_limit=5), folder / "apart")
    save_file({"x": torch.zeros(1)}, folder / "w.safetensors")
    save_file({"weight": torch.zeros(4, 3, 1, 1)}, folder / "pointwise.safetensors")
    torch.save({"epoch": 3}, folder / "content.pt")
    config = TrainConfig("cifar_resnet20", "synthetic")
    model = build_model("cifar_resnet20", 3)
    write_trained(folder / "run.safetensors", model, config, 3)
    save_file({**model.state_dict(), "more.weight": torch.ones(3)}, folder / "more.safetensors")
    return folder


def test_a_tilde_is_the_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/ann")  # which shells do not put into --out=~/x
    assert {str(command._get_value(one, "~/x")) for _, command, one in PATHS} == {"/ann/x"}


@pytest.mark.parametrize("line", LINES)
def test_bad_input_is_one_line(line: str, place, monkeypatch, failure) -> None:
    too_soon = Mock(side_effect=AssertionError("computed before the input was checked"))
    monkeypatch.chdir(place)
    monkeypatch.setenv("BSCONV_OFFLINE", "1")
    monkeypatch.setattr(_run, "in_turns", too_soon)
    if line.startswith("project"):
        monkeypatch.setattr(_inputs, "load_dataset", too_soon)
    before = sorted(place.rglob("*"))
    printed = failure(*shlex.split(line))
    assert re.search(LINES[line], printed), printed
    assert sorted(place.rglob("*")) == before  # nothing is written for it
