"""Figures of the notebooks' prose that follow from printed ones, or stand elsewhere.

By notebook: words of its prose, and the formula for the last figure in them. The formula's numbers
are printed by the notebook or stand in its code. A share in words, as "a fifth", holds to a tenth.
"""

import functools
import math
import re

import torch
import torchvision

from bsconv.experiments.results import published_results
from bsconv.pytorch import BSConvU_Replacer, ModelProfiler


def published(column: str, data: str, name: str) -> float:
    return getattr(published_results()[data, name], column)


@functools.cache
def kept(what: str, name: str, side: int = 224) -> float:
    """What BSConv-U leaves of the "mac" or "parameter" count of a network, in percent."""
    with torch.device("meta"):
        dense, blueprint = (torchvision.models.get_model(name) for _ in range(2))
    models = BSConvU_Replacer().apply(blueprint), dense
    counts = [getattr(ModelProfiler(m, (1, 3, side, side)), f"total_{what}_count") for m in models]
    return 100 * counts[0] / counts[1]


KNOWN = {
    "IMAGENET": 9.5,  # the largest gains that the paper reports, in percentage points
    "FINE_GRAINED": 13.7,
    "top1": functools.partial(published, "top1"),
    "flops": functools.partial(published, "million_flops"),
    "kept": kept,
    "sqrt": math.sqrt,
}

DERIVED: dict[str, dict[str, str]] = {
    "00": {
        "8 + 9 = 17": "8 + 3 * 3",
        "an eighth of its parameters": "1_451_338 / 11_181_642",
        "at 68.6": "top1('cifar100', 'cifar_resnet20')",
        "and 64.4": "top1('cifar100', 'cifar_resnet20_bsconvu')",
    },
    "01": {
        "takes 1.6 times": "2.83 / 1.81",
        "does 98 %": "98.4",
        "keeps 44 %": "100 * (1 / 9 + 1 / 3)",
        "a sixth. pytorchcv": "46_570 / 278_330",
        "goes from 11.7": "11_689_512 / 1e6",
        "to 1.3": "1_327_400 / 1e6",
        "(42": "flops('cifar100', 'cifar_resnet110_bsconvu')",
        "71.2": "top1('cifar100', 'cifar_resnet110_bsconvu')",
        "against 68.6": "top1('cifar100', 'cifar_resnet20')",
        "and 41": "flops('cifar100', 'cifar_resnet20')",
    },
    "02": {"gives 7": "12 * 7 / 12"},
    "03": {
        "A seventh": "40_720 / 272_480",
        "a tenth in S": "27_255 / 272_480",
        "places times 2 make 162": "9 * 9 * 2",
        "68.6": "top1('cifar100', 'cifar_resnet20')",
        "to 64.4": "top1('cifar100', 'cifar_resnet20_bsconvu')",
        "and 62.0": "top1('cifar100', 'cifar_resnet20_bsconvs_p1d4')",
        "from the 10 %": "100 / 10",
        "better, by 0.2": "93.56 - 93.40",
        "gain of 0.2": "93.56 - 93.40",
        "to 2.6": "71.16 - 68.59",
        "a fifth of the FLOPs": "7.9 / 41.4",
    },
    "04": {
        "half of the dense filter's": "3 * (16 + 3 * 3) / (16 * 3 * 3)",
        "two thirds of the energy": "66.0 / 100",
        "for a sixth": "(16 + 3 * 3) / (16 * 3 * 3)",
    },
    "05": {
        "131,072": "256 * 512",
        "keeps 44 %": "100 * (1 / 9 + 1 / 3)",
        "stay as they are: 3 %": "100 * (2 * (16 + 32 + 32 + 64) + 64 * 10 + 10) / 33_626",
        "a quarter of the BSConv": "(2 * (16 + 32 + 32 + 64) + 64 * 10 + 10) / 3_754",
    },
    "06": {
        "0.8 is two thirds": "0.81 ** 2",
        "93.57": "top1('cifar10', 'cifar_mobilenetv1_w1')",
        "and 94.48": "top1('cifar10', 'cifar_mobilenetv1_w1_bsconvu')",
        "a sixth of that distance": "36 / 221",
        "parameters (0.1 %": "100 * (215_648 - 215_400) / 215_648",
        "takes 17.7": "flops('cifar10', 'cifar_mobilenetv1_w1d4_bsconvu')",
        "of 13.0": "flops('cifar10', 'cifar_mobilenetv1_w1d4')",
        "91.17": "top1('cifar10', 'cifar_mobilenetv1_w1d4')",
        "and 92.13": "top1('cifar10', 'cifar_mobilenetv1_w1d4_bsconvu')",
        "89.93": "top1('cifar10', 'cifar_mobilenetv2_w1d4')",
        "and 90.60": "top1('cifar10', 'cifar_mobilenetv2_w1d4_bsconvs_p1d6')",
    },
    "07": {
        "about 2.2 points": "sqrt(60 * (100 - 60) / 500)",
        "two fifths": "1 - 0.57",
    },
    "08": {
        "BSConv-U (17 %": "kept('parameter', 'resnet18')",
        "21 % of the MACs). Which": "kept('mac', 'resnet18', 112)",
        "takes 21": "kept('mac', 'resnet18', 112)",
        "should be 4.6": "100 / kept('mac', 'resnet18')",
    },
    "09": {
        "up to 9.5": "IMAGENET",
        "up to 13.7": "FINE_GRAINED",
        "is about 5": "sqrt(67 * (100 - 67) / 96)",
    },
}
# words whose last figure the notebook prints elsewhere, or has in its code
ELSEWHERE = {
    "00": "(170",
    "01": "from about 64 / for 200",
    "02": "7/12 of 12 / stride 1, 13 % / At stride 2, BSConv-U takes 46 %",
    "03": (
        "cross-entropy: 19 / directions in 64 / so the 16 channels carry less than 16 / "
        "network: 16 / after 200 epochs / The 1.01 / runs of 200"
    ),
    "04": (
        "within 0.05 / up and down, 0.24 / against 0.22 / size (16 / "
        "to 64 channels, images / images of 32"
    ),
    "05": "from 0 to 1 / floor of 4 / below 0.01 / has 16 entries",
    "06": "the two, 200 / with 8 channels / with 256 / must be 100 / share is 100 / After 200",
    "07": "from 0 to 255",
    "08": "included, 16",
}
# epochs of each published network, the largest byte, megabytes of CIFAR-10
CONSTANTS = {200, 255, 170}
for notebook, listed in ELSEWHERE.items():
    for words in listed.split(" / "):
        DERIVED[notebook][words] = re.findall(r"\d[\d.]*", words)[-1]
