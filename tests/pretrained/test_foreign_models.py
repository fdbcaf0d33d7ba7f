"""Projection of models as others write them. A dense kernel of blueprints is projected exactly."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bsconv.pytorch import BSConvU, optimize_for_inference, project_pretrained

IMAGES = torch.rand(12, 3, 8, 8) - 0.5


@dataclass
class Answer:
    logits: Tensor
    boxes: Any = None


class Foreign(nn.Module):
    """A dense convolution that BSConv-U equals, BatchNorm, classifier, called by ``way``."""

    def __init__(self, way: Callable[["Foreign", Tensor], Any]) -> None:
        super().__init__()
        self.conv, self.norm = BSConvU(3, 8, 3).to_conv2d(), nn.BatchNorm2d(8)
        self.act, self.head, self.way = nn.ReLU(inplace=True), nn.Linear(288, 4), way
        self.eval()

    def forward(self, images: Tensor) -> Any:
        return self.way(self, images)

    def answer(self, maps: Tensor) -> Tensor:
        out: Tensor = self.head(self.act(self.norm(maps)).flatten(1))
        return out


def in_autocast(net: Foreign, x: Tensor) -> Tensor:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return net.answer(net.conv(x))


WAYS: dict[str, Callable[[Foreign, Tensor], Any]] = {
    "plain": lambda net, x: net.answer(net.conv(x)),
    "writes into its input": lambda net, x: net.answer(net.conv(x.sub_(0.5).relu_())),
    "autocast": in_autocast,
    "mixed": lambda net, x: net.answer(net.conv.double()(x.double()).float()),
    "keyword": lambda net, x: net.answer(net.conv(input=x)),
    "unbatched": lambda net, x: net.answer(torch.stack([net.conv(image) for image in x])),
    "one image": lambda net, x: net.answer(net.conv(x[0])[None]),
    "nothing found": lambda net, x: (y := net.answer(net.conv(x)), y[y > 1e9], y[:, :0]),
    "integers": lambda net, x: (y := net.answer(net.conv(x)), y.argmax(1), y > 0),
    "dataclass": lambda net, x: Answer(net.answer(net.conv(x))),
    "twice": lambda net, x: net.answer(net.conv(x) + net.conv(-x)),
}


def logits(output: Any) -> Tensor:
    output = output.logits if isinstance(output, Answer) else output
    return (output[0] if isinstance(output, tuple) else output).float()


@pytest.mark.parametrize("method", ["weights", "batch_norm", "outputs"])
@pytest.mark.parametrize("way", WAYS)
def test_what_can_be_exact_is_exact(way: str, method: Any) -> None:
    model, images = Foreign(WAYS[way]), IMAGES.clone()
    with torch.no_grad():  # its statistics are those of the images
        model.train()(IMAGES.clone())
        model.norm.momentum = None
        model.norm.reset_running_stats()
        model(IMAGES.clone())
    student, report = project_pretrained(model.eval(), images, method=method, progress=False)
    assert torch.equal(images, IMAGES)
    assert isinstance(student.conv, BSConvU)
    assert report.images == len(IMAGES)
    with torch.no_grad():
        expected, found = logits(model(IMAGES.clone())), logits(student(IMAGES.clone()))
    close = 0.05 if way == "autocast" else 2e-3
    variance = 1 - 1 / IMAGES[:, 0].numel()  # running ones are those of a sample
    atol = close * float(expected.std()) / variance
    torch.testing.assert_close(found, expected, rtol=close, atol=atol)


@pytest.mark.parametrize("way", sorted(WAYS.keys() - {"one image"}))
def test_they_are_optimised(way: str) -> None:
    model, images = Foreign(WAYS[way]), IMAGES.clone()
    optimised = optimize_for_inference(model, images, engines="eager")
    assert torch.equal(images, IMAGES)
    expected, found = model(images.clone()), optimised(images.clone())
    torch.testing.assert_close(logits(found), logits(expected), rtol=0.02, atol=0.02)


@pytest.mark.parametrize(
    "layers",
    [
        [nn.Conv2d(3, 9, 3, groups=3)],
        [nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 9, 3))],
        [nn.Flatten(), nn.Linear(192, 4)],
        [nn.ReLU()],
    ],
)
def test_where_nothing_can_be_fitted_there_is_a_report(layers: list[nn.Module]) -> None:
    model = nn.Sequential(*layers).eval()
    with pytest.warns(UserWarning, match="^no convolution was replaced"):
        student, report = project_pretrained(model, IMAGES, progress=False)
    assert report.layers == ()
    torch.testing.assert_close(student(IMAGES), model(IMAGES))
    with pytest.raises(ValueError, match=r"^model needs a convolution that BSConv can replace"):
        project_pretrained(model, IMAGES, budget=0.5, progress=False)


@pytest.mark.parametrize("wrap", [nn.DataParallel, lambda m: torch.compile(m, backend="eager")])
def test_wrappers_are_looked_through(wrap: Callable[[nn.Module], nn.Module]) -> None:
    model = Foreign(WAYS["plain"])
    student, _ = project_pretrained(wrap(model), IMAGES, progress=False)
    torch.testing.assert_close(student(IMAGES), model(IMAGES), rtol=1e-3, atol=1e-3)


def test_in_inference_mode_trainable_layers_are_made() -> None:
    with torch.inference_mode():
        student, _ = project_pretrained(Foreign(WAYS["plain"]), IMAGES * 1, progress=False)
    student(IMAGES).sum().backward()
