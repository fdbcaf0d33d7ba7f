"""How far a projection says that it is, and what it says is left."""

import contextlib
import sys
from collections import Counter
from importlib.machinery import ModuleSpec
from itertools import accumulate
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from bsconv.pytorch import project_pretrained
from bsconv.pytorch._forms.form import DENSE
from bsconv.pytorch._forms.patches import Sampler
from bsconv.pytorch.pretrained import _study
from bsconv.pytorch.pretrained._budget import candidates
from bsconv.pytorch.pretrained._inputs import Inputs
from bsconv.pytorch.pretrained._study import Layer, Study


@pytest.mark.parametrize("options", [{}, {"budget": 0.8}])
@pytest.mark.parametrize("progress", [True, False])
def test_progress_is_shown_in_parts_of_the_work(options, progress, monkeypatch):
    left: Counter[str] = Counter()

    def tqdm(total: float, desc: str, **_: Any) -> Any:
        left[desc] += total
        return contextlib.nullcontext(SimpleNamespace(update=lambda n: left.subtract({desc: n})))

    module = SimpleNamespace(tqdm=tqdm, __spec__=ModuleSpec("tqdm", None))
    monkeypatch.setitem(sys.modules, "tqdm", module)
    model, images = nn.Sequential(*(nn.Conv2d(n, 16, 3) for n in (4, 16))), torch.rand(60, 4, 8, 8)
    project_pretrained(model.eval(), images, progress=progress, **options)
    assert left == pytest.approx({"looking": 0, "fitting": 0} if progress else {}, abs=1e-3)
    monkeypatch.setitem(sys.modules, "tqdm", None)
    assert project_pretrained(model, images, **options)[1].layers


# at 25 %, on a core without matrix units: inputs, outputs, sides of kernel and output, stride,
# seconds of look and fit, number of such layers
RESNET20 = """3 16 3 32 1 .08 .17 1; 16 16 3 32 1 .28 .36 6; 16 32 3 16 2 .26 .40 1
32 32 3 16 1 .69 .67 5; 32 64 3 8 2 .60 .71 1; 64 64 3 8 1 2.03 1.57 5"""
VGG = """3 32 3 32 1 .11 .14 1; 32 64 3 32 1 .95 1.0 1; 64 64 3 16 1 2.3 2.0 1
64 128 3 16 1 3.2 2.4 1; 128 128 3 8 1 3.4 2.5 1; 128 256 3 8 1 5.4 3.7 1"""
RESNET18 = """3 64 7 112 2 .31 .51 1; 64 64 3 56 1 1.9 2.2 4; 64 128 3 28 2 1.8 1.5 1
128 128 3 28 1 3.8 2.3 1; 64 128 1 28 2 .08 .32 1; 128 128 3 28 1 3.9 3.9 2
128 256 3 14 2 2.9 2.8 1; 256 256 3 14 1 7.3 2.2 1; 128 256 1 14 2 .06 .17 1
256 256 3 14 1 7.2 4.1 2; 256 512 3 7 2 6.6 4.0 1; 512 512 3 7 1 49.3 9.9 1
256 512 1 7 2 .32 .15 1; 512 512 3 7 1 50.4 17 2"""


@pytest.mark.parametrize(
    ("images", "first", "table"), [(500, 2.4, RESNET20), (200, 2.0, VGG), (30, 5.5, RESNET18)]
)
def test_the_time_left_is_right_within_a_third_after_the_first_layers(images, first, table):
    study = Study(nn.Identity(), Inputs((torch.zeros(1).expand(images),)), Sampler(50))
    looking, fitting, macs = [], [], 0
    for line in table.replace("\n", ";").split(";"):
        inputs, outputs, kernel, side, stride, look, fit, count = map(float, line.split())
        conv = nn.Conv2d(*map(int, (inputs, outputs, kernel, stride)), device="meta")
        shapes = (int(inputs), *[int(side * stride)] * 2), (int(outputs), *[int(side)] * 2)
        consumer: Any = SimpleNamespace(shapes=shapes)
        layer = study.layers[""] = Layer(conv, consumer, conv.weight.flatten(1), conv.weight, None)
        looking += [(study.work("", candidates(layer, 8, "macs")), look)] * int(count)
        fitting += [(study.work("", [DENSE]), fit)] * int(count)
        macs += side * side * layer.kernel.numel() * count
    for parts in ([(_study.PASSES * macs * images, first), *looking], fitting):
        *shown, (total, end) = zip(*map(accumulate, zip(*parts, strict=True)), strict=True)
        for work, elapsed in shown:
            if elapsed > 0.2 * end:
                left = elapsed * (total - work) / work  # as tqdm says without smoothing
                assert 2 / 3 < left / (end - elapsed) < 4 / 3
