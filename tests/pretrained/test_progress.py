"""How far a projection says that it is, and what it says is left."""

import contextlib
import sys
from collections import defaultdict
from importlib.machinery import ModuleSpec
from itertools import accumulate, chain, repeat
from types import SimpleNamespace
from typing import Any, NamedTuple

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
    left: dict[str, float] = defaultdict(float)

    class Bar:
        __spec__ = ModuleSpec("tqdm", None)

        @classmethod
        def tqdm(cls, total: float, desc: str, **_: Any) -> Any:
            left[desc] += total
            return contextlib.nullcontext(SimpleNamespace(update=lambda part: update(desc, part)))

    def update(desc: str, part: float) -> None:
        left[desc] -= part

    monkeypatch.setitem(sys.modules, "tqdm", Bar)
    model = nn.Sequential(*(nn.Conv2d(4, 16, 3), nn.Conv2d(16, 16, 3))).eval()
    images = torch.rand(60, 4, 8, 8)
    project_pretrained(model, images, progress=progress, **options)
    assert left == pytest.approx({"looking": 0, "fitting": 0} if progress else {}, abs=1e-3)
    monkeypatch.setitem(sys.modules, "tqdm", None)
    assert project_pretrained(model, images, **options)[1].layers


class Timed(NamedTuple):
    """CPU seconds of a layer, at a budget of 25 %, on a core without matrix units."""

    inputs: int
    outputs: int
    kernel: int
    side: int  # of its outputs
    stride: int
    look: float
    fit: float
    count: int = 1


RESNET20 = [
    *(Timed(3, 16, 3, 32, 1, 0.08, 0.17), Timed(16, 16, 3, 32, 1, 0.28, 0.36, 6)),
    *(Timed(16, 32, 3, 16, 2, 0.26, 0.40), Timed(32, 32, 3, 16, 1, 0.69, 0.67, 5)),
    *(Timed(32, 64, 3, 8, 2, 0.60, 0.71), Timed(64, 64, 3, 8, 1, 2.03, 1.57, 5)),
]
VGG = [
    *(Timed(3, 32, 3, 32, 1, 0.11, 0.14), Timed(32, 64, 3, 32, 1, 0.95, 1.00)),
    *(Timed(64, 64, 3, 16, 1, 2.28, 1.97), Timed(64, 128, 3, 16, 1, 3.17, 2.35)),
    *(Timed(128, 128, 3, 8, 1, 3.44, 2.46), Timed(128, 256, 3, 8, 1, 5.44, 3.73)),
]
RESNET18 = [
    *(Timed(3, 64, 7, 112, 2, 0.31, 0.51), Timed(64, 64, 3, 56, 1, 1.9, 2.2, 4)),
    *(Timed(64, 128, 3, 28, 2, 1.75, 1.5), Timed(128, 128, 3, 28, 1, 3.75, 2.31)),
    *(Timed(64, 128, 1, 28, 2, 0.08, 0.32), Timed(128, 128, 3, 28, 1, 3.94, 3.93, 2)),
    *(Timed(128, 256, 3, 14, 2, 2.9, 2.79), Timed(256, 256, 3, 14, 1, 7.3, 2.2)),
    *(Timed(128, 256, 1, 14, 2, 0.06, 0.17), Timed(256, 256, 3, 14, 1, 7.2, 4.1, 2)),
    *(Timed(256, 512, 3, 7, 2, 6.6, 4.0), Timed(512, 512, 3, 7, 1, 49.3, 9.9)),
    *(Timed(256, 512, 1, 7, 2, 0.32, 0.15), Timed(512, 512, 3, 7, 1, 50.4, 17.0, 2)),
]


@pytest.mark.parametrize(
    ("images", "sensitivities", "network"),
    [(500, 2.4, RESNET20), (200, 2.0, VGG), (30, 5.5, RESNET18)],
)
def test_the_time_left_is_right_within_a_third_after_the_first_layers(
    images: int, sensitivities: float, network: list[Timed]
) -> None:
    study = Study(nn.Identity(), Inputs((torch.zeros(1).expand(images),)), Sampler(50))
    looking, fitting, macs = [], [], 0
    for timed in chain.from_iterable(repeat(one, one.count) for one in network):
        conv = nn.Conv2d(timed.inputs, timed.outputs, timed.kernel, timed.stride, device="meta")
        sides = timed.side * timed.stride, timed.side
        shapes = [(n, s, s) for n, s in zip((timed.inputs, timed.outputs), sides, strict=True)]
        consumer: Any = SimpleNamespace(shapes=shapes)
        layer = study.layers["x"] = Layer(conv, consumer, conv.weight.flatten(1), conv.weight, None)
        looking.append((study.work("x", candidates(layer, 8, "macs")), timed.look))
        fitting.append((study.work("x", [DENSE]), timed.fit))
        macs += layer.places * layer.kernel.numel()
    looking.insert(0, (_study.PASSES * macs * images, sensitivities))
    for parts in (looking, fitting):
        done, seconds = (list(accumulate(part)) for part in zip(*parts, strict=True))
        for work, elapsed in list(zip(done, seconds, strict=True))[:-1]:
            if elapsed > 0.2 * seconds[-1]:
                left = elapsed * (done[-1] - work) / work  # as tqdm says without smoothing
                assert 2 / 3 < left / (seconds[-1] - elapsed) < 4 / 3
