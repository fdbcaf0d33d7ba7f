"""Budgets: what is chosen, what it costs, what comes out, wrong inputs."""

import copy
import itertools
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.flop_counter import FlopCounterMode

from bsconv import pytorch as bp
from bsconv.pytorch._forms.form import DENSE, Form
from bsconv.pytorch._forms.patches import Sampler
from bsconv.pytorch.pretrained import _budget, _stopwatch, _study
from bsconv.pytorch.pretrained._budget import allocate, candidates
from bsconv.pytorch.pretrained._inputs import Inputs
from bsconv.pytorch.pretrained._study import Layer, Study
from helpers.exact_errors import raises_exactly

IMAGES = torch.rand(24, 3, 12, 12, generator=torch.Generator().manual_seed(1))
QUICK: dict[str, Any] = {"positions": 16, "progress": False}


def network() -> nn.Sequential:
    """Its last convolution hardly reaches the answer."""
    torch.manual_seed(0)
    first, last = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(24, 24, 3, padding=1)
    second = nn.Conv2d(16, 24, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(24), nn.ReLU()
    head = nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 5)
    model = nn.Sequential(first, nn.ReLU(), *second, last, *head)
    with torch.no_grad():
        model[9].weight.mul_(10)
    return model.eval()


def project(model: nn.Module, budget: float | None, images: Any = IMAGES, **options: Any) -> Any:
    return bp.project_pretrained(model, images, budget=budget, **QUICK, **options)


def macs(model: nn.Module, images: Tensor = IMAGES[:1]) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(images)
    return counter.get_total_flops() // 2


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def looked_at(conv: nn.Conv2d, images: Tensor) -> Layer:
    study = Study(conv, Inputs((images,)), Sampler(8))
    study.look([""])
    return study.layers[""]


# --- costs and choices ----------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["dense", "u", "s:3", "cp:8"])
@pytest.mark.parametrize("bias", [True, False])
def test_costs_are_those_of_the_layer(text: str, bias: bool) -> None:
    form, images = Form.parse(text), torch.rand(1, 6, 9, 8)
    assert str(form) == text
    conv = nn.Conv2d(6, 10, (3, 5), stride=(2, 1), padding=2, bias=bias)
    new, layer = form.layer(conv), looked_at(conv, images)
    assert layer.cost(form, "macs") == macs(new, images)
    assert layer.cost(form, "parameters") == parameters(new)
    assert Form.of(new) == form


@pytest.mark.parametrize("text", ["", "cp", "cp:0", "s:x", "u:1", "dense:2", "cp:-1"])
def test_other_forms_are_refused(text: str) -> None:
    with raises_exactly(
        f"a form needs to be 'dense', 'u', 's:CHANNELS' or 'cp:BLUEPRINTS', got {text!r}"
    ):
        Form.parse(text)


@pytest.mark.parametrize("align", [1, 8])
@pytest.mark.parametrize("of", ["macs", "parameters"])
def test_candidates_are_on_the_grid_and_cost_less(align: int, of: Any) -> None:
    layer = looked_at(nn.Conv2d(32, 48, 3, stride=2, padding=1), torch.rand(2, 32, 8, 8))
    forms = candidates(layer, align, of)
    assert {form.kind for form in forms} >= {"s", "cp"}
    assert len(set(forms)) == len(forms)
    assert all(layer.cost(form, of) < layer.cost(DENSE, of) for form in forms)
    assert all(form.rank % align == 0 for form in forms)


@pytest.mark.parametrize("seed", range(5))
def test_choices_are_the_best_within_the_budget(seed: int) -> None:
    forms, names = [Form("cp", rank + 1) for rank in range(5)], "abcd"
    drawn = iter(torch.rand(40, generator=torch.Generator().manual_seed(seed)).tolist())
    costs, damages = ({n: {form: next(drawn) for form in forms} for n in names} for _ in range(2))

    def total(table: Any, chosen: Any) -> float:
        return sum(table[name][form] for name, form in chosen.items())

    products = itertools.product(forms, repeat=4)
    choices = [dict(zip(names, chosen, strict=True)) for chosen in products]
    for budget in (0.3, 1.0, 1.5, 2.5, 4.0):
        within = [chosen for chosen in choices if total(costs, chosen) <= budget]
        found = allocate(costs, damages, budget)
        assert (found is None) == (not within)
        if found is not None:
            assert list(found) == list(names)
            assert total(costs, found) <= budget
            best = min(total(damages, chosen) for chosen in within)
            assert total(damages, found) <= 1.001 * best + 1e-9


# --- projections ----------------------------------------------------------------------------------


@pytest.mark.parametrize("budget", [0.3, 0.6])
@pytest.mark.parametrize("of", ["macs", "parameters"])
def test_the_network_costs_no_more_than_the_budget(budget: float, of: Any) -> None:
    model = network()
    student, report = project(model, budget, of=of)
    count = macs if of == "macs" else parameters
    assert report.share == count(student) / count(model) <= budget
    saved = [0, 0]
    for layer in report.layers:
        saved[0] += layer.macs_before - layer.macs_after
        saved[1] += layer.parameters_before - layer.parameters_after
        kind = {"dense": nn.Conv2d, "u": bp.BSConvU, "s": bp.BSConvS, "cp": bp.BSConvCP}[layer.form]
        assert type(student.get_submodule(layer.name)) is kind
        assert layer.rank is None or layer.rank % 8 == 0
    assert saved == [count(model) - count(student) for count in (macs, parameters)]
    assert not any(module.training for module in student.modules())


@pytest.mark.slow
def test_larger_budgets_lose_less_and_the_curve_says_so_before() -> None:
    model = network()
    curve = bp.budget_curve(model, IMAGES, (0.01, 0.3, 0.8, 1), **QUICK)
    assert [point.budget for point in curve.points] == [0.3, 0.8, 1]
    damages = [point.damage for point in curve.points]
    assert damages == sorted(damages, reverse=True)
    losses = []
    for point in curve.points:
        student, report = project(model, point.budget)
        assert (report.damage, report.share) == (pytest.approx(point.damage), point.share)
        forms = {layer.name: str(Form(layer.form, layer.rank)) for layer in report.layers}
        assert forms == point.forms
        with torch.no_grad():
            expected, found = model(IMAGES), student(IMAGES)
        losses.append(float(F.kl_div(found.log_softmax(1), expected.softmax(1), reduction="sum")))
    assert losses == sorted(losses, reverse=True)
    assert (report.plan, report.damage) == ({}, 0)  # a budget of everything
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)
    assert "predicted damage" in str(curve)
    assert curve.summary == "3 budgets of MACs"


def test_a_curve_stands_for_the_images_that_it_has_seen() -> None:
    model = network()
    curve = bp.budget_curve(model, IMAGES, **QUICK)
    found, report = bp.project_pretrained(model, curve, budget=0.4)
    expected, other = project(model, 0.4)
    assert report == other
    assert report.curve == other.curve == curve
    torch.testing.assert_close(found.state_dict(), expected.state_dict(), rtol=0, atol=0)
    wrong = ("of", "macs", "parameters"), ("align", 8, 4), ("exclude", (), ["0"])
    for name, was, given in (*wrong, ("kernel_sizes", "auto", [3]), ("positions", 16, 9)):
        message = f"{name} needs to be {was!r}, as in the budget_curve, got {name}={given!r}"
        with raises_exactly(message):
            bp.project_pretrained(model, curve, budget=0.4, **{name: given})
    same: dict[str, Any] = {"exclude": [], "dimensions": [1, 2, 3]}
    assert project(model, 0.4, curve, **same)[1] == report
    with raises_exactly("a budget_curve for images needs a budget, got budget=None"):
        project(model, None, curve)
    with torch.no_grad():
        model[0].weight.mul_(2)
    for changed in (model, network()):
        message = "images needs to be images or the budget_curve of this model, got another"
        with raises_exactly(message):
            project(changed, 0.4, curve)


def test_what_is_not_called_once_stays_dense_and_is_named() -> None:
    class Twice(nn.Sequential):
        def forward(self, images: Tensor) -> Tensor:
            images = self[0](images).relu()
            return self[2](self[1](self[1](images)))

    model = Twice(*(nn.Conv2d(3 if n == 0 else 16, 16, 3, padding=1) for n in range(4))).eval()
    student, report = project(model, 0.7)
    assert report.kept == ("1", "3")
    assert "; '1', '3' not called once or tied, so left dense" in report.summary
    assert type(student[1]) is type(student[3]) is nn.Conv2d


def test_layers_that_do_not_matter_give_most() -> None:
    model = network()
    with torch.no_grad():
        model[5].weight[2:].zero_()
        model[9].weight[:, 2:].zero_()
    last = project(model, 0.6)[1].layers[-1]
    assert last.macs_after / last.macs_before < 0.4


class Slower:
    """A stopwatch on which the network as a whole takes longer than its layers."""

    floor = 0.1
    outliers: Iterator[float] = iter(())

    def __init__(self, study: Study) -> None:
        self.costs: dict[str, dict[Form, float]] = {}

    def seconds(self, layers: dict[str, Layer]) -> Any:
        for name, layer in layers.items():
            self.costs[name] = {form: layer.cost(form, "macs") for form in layer.damages}
        return {"": sum(own[DENSE] for own in self.costs.values())}, self.costs

    def share(self, chosen: dict[str, Form]) -> float:
        total = sum(own[DENSE] for own in self.costs.values())
        share = sum(self.costs[name][form] for name, form in chosen.items()) / total
        return next(self.outliers, self.floor + (1 - self.floor) * share)


# one odd measurement does not decide
@pytest.mark.parametrize("outliers", [(), (0.65, 0.7, 0.67, 3.4), (0.6, 3.4)])
@pytest.mark.parametrize("budget", [0.4, 0.6])
def test_the_time_of_the_whole_network_keeps_to_the_budget(budget, outliers, monkeypatch):
    monkeypatch.setattr(_budget, "Stopwatch", Slower)
    monkeypatch.setattr(Slower, "outliers", iter(outliers))
    _, report = project(network(), budget, of="time", align=1)
    assert report.share <= 1.1 * budget
    assert outliers or report.share == pytest.approx(budget, rel=0.05)


@pytest.mark.slow
def test_a_time_out_of_reach_is_refused_with_the_least_that_was_measured(monkeypatch):
    monkeypatch.setattr(_budget, "Stopwatch", Slower)
    monkeypatch.setattr(Slower, "floor", 0.5)
    least = project(network(), 0.5, of="time", align=1)[1].share
    assert 0.5 < least < 0.55
    with pytest.raises(ValueError, match=f"at least {least:.4f}, the least share of the time"):
        project(network(), 0.4, of="time", align=1)


@pytest.mark.slow
@pytest.mark.parametrize("inputs", [IMAGES, [{"input": IMAGES}]])
def test_time_is_what_an_engine_takes(inputs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    class Noting(_stopwatch.Stopwatch):
        def __init__(self, study: Study) -> None:
            super().__init__(study)
            prepare = self.prepare
            self.prepare = lambda module, *a, **k: (
                seen.append(type(module).__name__) or prepare(module, *a, **k)  # type: ignore[func-returns-value]
            )

    monkeypatch.setattr(_budget, "Stopwatch", Noting)
    _, report = project(network(), 1, inputs, of="time")
    assert {"Conv2d", "BSConvU", "BSConvCP"} <= set(seen)
    assert report.share > 0
    assert "of the time" in report.summary


# --- inputs ---------------------------------------------------------------------------------------


def loaders() -> Iterator[Any]:
    yield DataLoader(TensorDataset(IMAGES, torch.zeros(24)), batch_size=7)
    yield list(IMAGES.split(10))
    yield [((batch,), "label") for batch in IMAGES.split(24)]
    yield [{"input": batch} for batch in IMAGES.split(5)]
    yield itertools.chain([[IMAGES]], iter(lambda: [IMAGES], None))  # no end


@pytest.mark.parametrize("images", list(loaders()))
def test_images_come_in_many_forms(images: Any) -> None:
    model = network()
    options: dict[str, Any] = {"kind": "cp", "kernel_sizes": [3], "limit": 24}
    found, _ = project(model, None, images, **options)
    expected, _ = project(model, None, IMAGES, **options)
    torch.testing.assert_close(found.state_dict(), expected.state_dict())


class TwoSided(nn.Module):
    """Two inputs, two outputs, neither of them logits."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = (nn.Conv2d(3, 16, 3, padding=1) for _ in range(2))
        self.joint = nn.Conv2d(16, 16, 3, padding=1)

    def forward(self, left: Tensor, right: Tensor) -> dict[str, Tensor]:
        joint = F.silu(self.left(left) + self.right(right))
        return {"deep": self.joint(joint), "joint": joint}


def test_models_may_have_several_inputs_and_outputs() -> None:
    torch.manual_seed(0)
    model = TwoSided().eval()
    student, report = project(model, 0.6, [((batch, batch.flip(3)),) for batch in IMAGES.split(8)])
    assert report.agreement is None
    assert 0 < report.damage < 1
    with torch.no_grad():
        expected, found = model(IMAGES, IMAGES.flip(3)), student(IMAGES, IMAGES.flip(3))
    for name, value in expected.items():
        assert (found[name] - value).square().mean() < 0.5 * value.var()


# --- files ----------------------------------------------------------------------------------------


def test_a_file_carries_its_plan(tmp_path: Path) -> None:
    model, file = network(), tmp_path / "student.safetensors"
    student, report = project(model, 0.5)
    assert "predicted damage" in str(report)
    assert report._repr_html_().startswith("<table>")
    save_file(student.state_dict(), file, metadata={"bsconv": json.dumps({"plan": report.plan})})
    for source in (file, (report.plan, student.state_dict())):
        with torch.no_grad():
            assert torch.equal(bp.load_projected(model, source)(IMAGES), student(IMAGES))
    assert isinstance(model[2], nn.Conv2d)
    with pytest.raises(ValueError, match="needs to be a projection of this model: the plan needs"):
        bp.load_projected(nn.Sequential(nn.Conv2d(3, 8, 3)), file)
    save_file(student.state_dict(), file)
    with raises_exactly(f"{file} needs a plan in its metadata, got none"):
        bp.load_projected(model, file)
    content = file.read_bytes()
    for damaged in (b"", content[:20], content[:-9], b"\xff" * 50):
        file.write_bytes(damaged)
        with raises_exactly(f"{file} is damaged or not a safetensors file"):
            bp.load_projected(model, file)


@pytest.mark.parametrize(
    ("name", "found"),
    [("1", "ReLU is not a Conv1d or Conv2d or Conv3d"), ("x", "the model has none")],
)
def test_a_plan_of_another_model_is_refused_before_anything_changes(name: str, found: str) -> None:
    model = network()
    with raises_exactly(f"the plan needs a plain convolution at '{name}': {found}"):
        bp.apply_plan(model, {"0": "u", name: "u"})
    assert type(model[0]) is nn.Conv2d


@pytest.mark.parametrize(
    ("layer", "form", "said"),
    [
        (nn.Conv1d(16, 8, 3), "cp:4", "a plain convolution at '0': Conv1d is not a Conv2d"),
        (nn.Conv2d(16, 8, 3, groups=2), "u", "a plain convolution at '0': grouped (groups=2)"),
        (nn.Conv2d(16, 8, 3), "s:99", "16 channels at most at '0', got 's:99'"),
    ],
)
def test_a_form_that_a_layer_cannot_have_is_refused(layer: nn.Module, form: str, said: str) -> None:
    with raises_exactly(f"the plan needs {said}"):
        bp.apply_plan(nn.Sequential(layer), {"0": form})


# --- wrong inputs ---------------------------------------------------------------------------------

HALF: dict[str, Any] = {"budget": 0.5}
SHARE = "budget needs 0 < budget <= 1, a share of the cost, got "
FLOATS = "images needs floats of shape (B, ...), at least one image, got "
ONE_OF: dict[str, tuple[dict[str, Any], str]] = {
    "kind": ({}, "'u', 's', 'cp'"),
    "method": ({}, "'weights', 'batch_norm', 'outputs'"),
    "of": (HALF, "'macs', 'parameters', 'time'"),
}
KEPT = "the share of input channels kept"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        *(({"budget": given}, f"{SHARE}{given!r}") for given in (0, 1.5, True, "25%")),
        *(
            ({**more, name: "x"}, f"{name} needs to be one of {known}, got {name}='x'")
            for name, (more, known) in ONE_OF.items()
        ),
        ({**HALF, "kind": "u"}, "budget needs kind=None, got budget=0.5 and kind='u'"),
        ({**HALF, "method": "weights"}, "budget needs method='outputs', got method='weights'"),
        ({**HALF, "p": 0.5}, "p needs kind='s', got p=0.5 with budget=0.5"),
        ({"kind": "s", "p": 2}, f"BSConv-S needs 0 <= p <= 1, {KEPT}, got p=2"),
        *(
            ({name: got, "budget": budget}, f"{name} needs to be at least 1, got {name}={got}")
            for name, got in (("align", 0), ("batch_size", 2.5), ("positions", -1), ("limit", None))
            for budget in (None, 0.5)
        ),
        *(
            ({"method": method, "images": None}, f"method='{method}' needs images, got images=None")
            for method in ("batch_norm", "outputs")
        ),
        *(
            ({"images": images}, f"{FLOATS}{images.dtype} of shape {tuple(images.shape)}")
            for images in (IMAGES[0, 0, 0, 0], (IMAGES * 255).byte(), IMAGES[:0])
        ),
        ({"images": IMAGES / 0}, "images needs finite numbers, got NaN or infinity among them"),
        ({**HALF, "images": None}, "budget=0.5 needs images, got images=None"),
        ({**HALF, "images": []}, "images needs at least one batch of images, got none"),
        (
            {"images": [[IMAGES, 0], [IMAGES[:, :, 1:], 0]]},
            "images needs batches of one shape, got ((3, 11, 12),) and ((3, 12, 12),)",
        ),
        ({"images": 3}, "images needs a tensor or an iterable of batches, got 3"),
        ({"images": ["x"]}, "images needs batches of tensors, got str"),
        ({**HALF, "exclude": ["*"]}, "model needs a convolution that BSConv can replace, got none"),
    ],
)
def test_wrong_arguments_are_named(options: dict[str, Any], message: str) -> None:
    with raises_exactly(message):
        bp.project_pretrained(network(), **{"images": IMAGES, **QUICK, **options})


@pytest.mark.parametrize("budget", [None, 0.5])
@pytest.mark.parametrize("shape", [(2, 12, 12), (12, 12)])
def test_images_that_the_model_does_not_take_are_refused(shape: Any, budget: Any) -> None:
    message = re.escape(f"images needs inputs that the model takes, got {shape} (Given groups=1, ")
    with pytest.raises(ValueError, match=f"^{message}"):
        project(network(), budget, torch.rand(8, *shape))


def test_a_budget_out_of_reach_says_what_would_be_in_reach() -> None:
    model = network()
    with pytest.raises(ValueError, match="budget needs at least") as error:
        project(model, 0.05, exclude=["2"])
    assert "('2', " in str(error.value)
    assert str(error.value).endswith("hold it up), got budget=0.05")
    least = float(str(error.value).split()[4].rstrip(","))
    _, report = project(model, least + 1e-4, exclude=["2"])
    assert report.share == pytest.approx(least, abs=1e-4)


def test_a_budget_may_lie_in_convolutions_of_1x1() -> None:
    model = network()
    model[5] = nn.Sequential(nn.Conv2d(24, 96, 1), nn.ReLU(), nn.Conv2d(96, 24, 1)).eval()
    student, report = project(model, 0.5)
    assert macs(student) / macs(model) == report.share <= 0.5
    assert {"5.0", "5.2"} & report.plan.keys()
    with pytest.raises(ValueError, match=r"'5\.0', '5\.2'"):
        project(model, 0.5, kernel_sizes=[3])


@pytest.mark.slow
def test_a_classifier_that_is_a_convolution_is_fitted_as_cautiously_as_a_linear_one() -> None:
    model = network()
    model[8], model[9] = nn.Conv2d(24, 16, 1), nn.Flatten()
    few = IMAGES[:8]  # fewer than its channels
    found, report = project(model, 0.7, few)
    expected, same = project(model, 0.7, few, exclude=["8"])
    assert report.plan == same.plan != {}
    assert "8" in [layer.name for layer in report.layers]
    torch.testing.assert_close(found[8].weight, expected[8].weight)


def test_an_interrupted_projection_leaves_the_model_as_it_was(monkeypatch):
    monkeypatch.setattr(_study, "fit_layer", Mock(side_effect=KeyboardInterrupt))
    model = network()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(KeyboardInterrupt):
        project(model, 0.5)
    assert type(model[0]) is nn.Conv2d
    assert not any("forward" in vars(module) for module in model.modules())
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)


def test_budgets_are_real_numbers_of_any_kind_in_any_iterable() -> None:
    wanted = bp.budget_curve(network(), IMAGES, [0.25, 0.5], **QUICK)
    numbers = iter([Fraction(1, 4), np.float32(0.5)])
    assert bp.budget_curve(network(), IMAGES, numbers, **QUICK) == wanted


@pytest.mark.parametrize("budget", [None, 0.5])
def test_a_model_that_is_a_convolution_is_fitted(budget: float | None) -> None:
    conv, images = nn.Conv2d(8, 16, 3), torch.rand(24, 8, 9, 9)
    bare, report = project(conv, budget, images)
    chain, same = project(nn.Sequential(conv), budget, images)
    assert (report.share, len(report.layers)) == (same.share, 1)
    torch.testing.assert_close(bare(images), chain(images), rtol=0.02, atol=0.02)


def test_a_budget_needs_costs() -> None:
    class Idle(nn.Sequential):
        def forward(self, images: Tensor) -> Tensor:
            return images

    with raises_exactly("budget needs a model that costs macs, got one that costs none"):
        project(Idle(nn.Conv2d(3, 16, 3)), 0.5)


class Underivable(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, images: Tensor) -> Tensor:
        return images.clone()


@dataclass(slots=True)
class Said:
    classes: Tensor


class Odd(nn.Sequential):
    end: Callable[[Tensor], Any]

    def forward(self, images: Tensor) -> Any:
        return self.end(super().forward(images))


ODD = Underivable.apply, Said, lambda maps: maps.mean((2, 3)).int(), torch.mean


@pytest.mark.parametrize("budget", [None, 0.6])
@pytest.mark.parametrize("end", ODD)
def test_odd_answers(end: Callable[[Tensor], Any], budget: float | None) -> None:
    model = Odd(nn.Conv2d(3, 16, 3))
    model.end = end
    student, report = project(model, budget)
    assert isinstance(student[0], (bp.BSConvU, bp.BSConvCP))
    assert report.agreement is None
