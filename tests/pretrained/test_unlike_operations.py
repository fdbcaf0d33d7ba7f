"""Projection where operations differ with the number of images, or weights are computed or tied."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import prune

from bsconv.pytorch import load_projected, project_pretrained

IMAGES, OTHERS = torch.randn(80, 3, 9, 9, generator=torch.Generator().manual_seed(0)).split(
    [60, 20]
)
RULE = "model needs the same operations for any number of images, got others at"
grids: dict[torch.Size, Tensor] = {}


class Net(nn.Module):
    def __init__(self, forward: Callable[["Net", Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.first, self.second = nn.Conv2d(3, 12, 3, padding=1), nn.Conv2d(12, 12, 3)
        self.norm, self.head, self.written = nn.BatchNorm2d(12), nn.Linear(12, 5), forward
        self.norm.running_var.fill_(0.3)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.written(self, x)

    def answer(self, maps: Tensor) -> Tensor:
        return self.head(F.relu(self.second(F.relu(self.norm(maps)))).mean((2, 3)))


def plain(net: Net, x: Tensor) -> Tensor:
    return net.answer(net.first(x))


def with_a_grid(net: Net, x: Tensor) -> Tensor:
    if x.shape not in grids:  # as a warp does, once for each shape
        grids[x.shape] = torch.linspace(-1, 1, 9).repeat(len(x), 12, 9, 1) * 0
    return net.answer(net.first(x) + grids[x.shape])


def one_more(net: Net, x: Tensor) -> Tensor:
    maps = F.relu(net.norm(net.first(x)))
    return net.head(F.relu(net.second(maps * 1.0 if len(x) > 4 else maps)).mean((2, 3)))


def normed_for_few(net: Net, x: Tensor) -> Tensor:
    maps = net.first(x)
    return net.head(F.relu(net.norm(maps) if len(x) <= 4 else maps).mean((2, 3)))


def sum_for_few(net: Net, x: Tensor) -> Tensor:
    maps = net.second(net.first(x))
    return maps + x.mean() if len(x) <= 4 else maps


def shifted_sum(net: Net, x: Tensor) -> Tensor:
    maps, added = net.first(x), x[:, :1]
    added = added * 1.0 if len(x) > 4 else added
    return net.head(F.relu(maps + added).mean((2, 3)))


def layer_for_few(net: Net, x: Tensor) -> Tensor:
    maps = net.first(x)
    return net.head(F.relu(net.second(maps) if len(x) <= 4 else maps).mean((2, 3)))


def error(model: nn.Module, **options: Any) -> float:
    """Of the projected network on other images, relative."""
    student, _ = project_pretrained(model, IMAGES, progress=False, **options)
    with torch.no_grad():
        expected = model(OTHERS)
        return float((student(OTHERS) - expected).square().sum() / expected.square().sum())


@pytest.mark.parametrize(
    "forward",
    [
        lambda net, x: plain(net, (x * 1.0) * 1.0 if len(x) > 4 else x),
        lambda net, x: plain(net, torch.stack([image * 1.0 for image in x])),
        lambda net, x: plain(net, x + 0 if any(image.requires_grad for image in x) else x),
        one_more,
        with_a_grid,
    ],
)
@pytest.mark.parametrize("options", [{"kind": "u"}, {"budget": 0.5}])
def test_more_operations_for_more_images_change_nothing(
    forward: Callable[[Net, Tensor], Tensor], options: dict[str, Any]
) -> None:
    grids.clear()
    assert error(Net(forward), **options) == pytest.approx(error(Net(plain), **options), rel=0.3)


@pytest.mark.parametrize(
    ("forward", "place"),
    [
        (lambda net, x: torch.cat([plain(net, part) for part in x.split(8)]), "first"),
        (normed_for_few, "first"),
        (sum_for_few, "second"),
        (shifted_sum, "first"),
        (layer_for_few, "second"),
    ],
)
@pytest.mark.parametrize("options", [{"kind": "u"}, {"budget": 0.7}])
def test_layers_that_depend_on_the_number_are_refused(
    forward: Callable[[Net, Tensor], Tensor], place: str, options: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match=f"^{RULE} '{place}'$"):
        project_pretrained(Net(forward), IMAGES, progress=False, **options)


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
@pytest.mark.parametrize(
    "change",
    [
        nn.utils.spectral_norm,
        nn.utils.weight_norm,
        lambda head: prune.l1_unstructured(head, "weight", 0.3),
    ],
)
def test_a_head_whose_weights_are_computed_stays(change: Callable[[nn.Module], Any]) -> None:
    model = Net(plain)
    change(model.head)
    with torch.no_grad():
        model.eval()(OTHERS)
    assert error(model) < 0.2 * error(model, method="weights")


def test_tied_layers_are_not_fitted_to_two_places() -> None:
    model = nn.Sequential(*(nn.Conv2d(12, 12, 3, padding=1) for _ in range(4)))
    model = nn.Sequential(nn.Conv2d(3, 12, 3), nn.ReLU(), *model)
    model[5].weight = model[2].weight
    assert error(model, kind="u") < error(model, kind="u", method="weights")
    assert error(model, kind="cp") < 0.5
    student, report = project_pretrained(model, IMAGES, budget=0.8, progress=False)
    assert report.kept == ("2", "5")
    assert student[2].weight is student[5].weight
    again = load_projected(model, (report.plan, student.state_dict()))
    assert torch.equal(again(OTHERS), student(OTHERS))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_activations_with_weights_of_16_bits(dtype: torch.dtype) -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.PReLU(), nn.Conv2d(8, 8, 3))
    errors = [
        [layer.output_error for layer in project_pretrained(*one, progress=False)[1].layers]
        for one in ((model, IMAGES), (copy.deepcopy(model).to(dtype), IMAGES.to(dtype)))
    ]
    assert errors[1] == pytest.approx(errors[0], rel=0.05)
