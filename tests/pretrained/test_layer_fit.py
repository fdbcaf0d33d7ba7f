"""Layers fitted in turn: what is put into them, and the errors that are reported."""

import copy
import sys
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bsconv.pytorch import (
    BSConvS,
    BSConvS_Replacer,
    BSConvU,
    BSConvU_Replacer,
    project_pretrained,
    reestimate_batch_norm,
)
from bsconv.pytorch.decomposition import compose
from bsconv.pytorch.pretrained import _layer_fit as layer_fit
from bsconv.pytorch.pretrained._layer_fit import LayerFit, _patches, dense, factors_of
from bsconv.pytorch.pretrained._least_squares import constant, fit_blueprints, moments
from bsconv.pytorch.pretrained._sensitivity import sensitivities
from bsconv.pytorch.pretrained._tracing import Landing, find_landings

IMAGES = torch.rand(12, 4, 8, 8, generator=torch.Generator().manual_seed(5))
EVERYWHERE = 64  # positions of an image


def norm(channels: int) -> nn.BatchNorm2d:
    layer = nn.BatchNorm2d(channels)
    for tensor in (layer.running_mean, layer.bias.data):
        tensor.normal_(0, 0.3)
    for tensor in (layer.running_var, layer.weight.data):
        tensor.uniform_(0.5, 1.5)
    return layer


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.relu = nn.Conv2d(4, 4, 3, padding=1), norm(4), nn.ReLU()

    def forward(self, images: Tensor) -> Tensor:
        return self.relu(self.norm(self.conv(images)) + images - 0.5)


def answering(*layers: nn.Module) -> nn.Sequential:
    head = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LazyLinear(5)
    model = nn.Sequential(*layers, *head)
    with torch.no_grad():
        model(IMAGES)
    return model.eval()


def conv(**options: Any) -> nn.Conv2d:
    return nn.Conv2d(4, 4, 3, **options)


# models, and where their first layer lands
MODELS = {
    "bare": (nn.Sequential(conv(bias=False)), "0", False),
    "bias": (nn.Sequential(conv(padding=1, stride=2)), "0", False),
    "relu": (answering(conv(padding="same", dilation=2), nn.ReLU()), "0", True),
    "norm": (answering(conv(padding=1, padding_mode="reflect"), norm(4)), "1", False),
    "norm, relu": (answering(conv(bias=False), norm(4), nn.ReLU()), "1", True),
    "shortcut": (answering(Residual(), nn.Dropout()), "0.relu", True),
}


def seen(model: nn.Module, name: str) -> Tensor:
    """What ``name`` returns."""
    outputs: list[Tensor] = []
    handle = model.get_submodule(name).register_forward_hook(
        lambda module, inputs, output: outputs.append(output.double())
    )
    with torch.no_grad():
        model(IMAGES)
    handle.remove()
    return outputs[0]


@pytest.mark.parametrize("kind", ["u", "s"])
@pytest.mark.parametrize("case", list(MODELS))
def test_the_error_is_that_of_the_new_network_where_the_layer_lands(case: str, kind: Any) -> None:
    model, place, rectified = MODELS[case]
    model.eval()
    fitted, report = project_pretrained(
        model, IMAGES, kind, 0.5, batch_size=5, positions=EVERYWHERE, progress=False
    )
    assert isinstance(fitted.get_submodule(report.layers[0].name), (BSConvU, BSConvS))
    found, expected = seen(fitted, place), seen(model, place)
    if rectified:
        found, expected = found.relu(), expected.relu()
    spread = expected.transpose(0, 1).flatten(1).var(1, correction=0).sum()
    error = (found - expected).square().mean((0, 2, 3)).sum() / spread
    assert report.layers[0].output_error == pytest.approx(float(error), rel=1e-3)
    assert 1e-4 < report.layers[0].output_error < 0.9
    # nothing but a constant keeps the means from being right, unless a ReLU lies between
    if case in ("bias", "norm"):
        torch.testing.assert_close(found.mean((0, 2, 3)), expected.mean((0, 2, 3)))


def test_a_layer_without_constant_is_fitted_about_zero() -> None:
    model, *_ = MODELS["bare"]
    fitted, _ = project_pretrained(model, IMAGES, positions=EVERYWHERE, progress=False)
    patches, targets = rows(model[0], IMAGES)
    known = moments(patches, targets, centered=False)
    start = factors_of(BSConvU.from_conv2d(model[0]))
    (metric,) = sensitivities(
        model, IMAGES, {layer_fit._arrival("0", Landing("", None, False))}, 50
    ).values()
    expected = compose(*fit_blueprints(known, start, metric))
    assert_close(dense(factors_of(fitted[0])), expected)


def rows(layer: nn.Conv2d, images: Tensor) -> tuple[Tensor, Tensor]:
    """All that ``layer`` sees and computes, a row for each position."""
    with torch.no_grad():
        outputs = layer(images)
    return _patches(layer, images).mT.flatten(0, 1), outputs.flatten(2).mT.flatten(0, 1)


def assert_close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))


@pytest.mark.parametrize(
    "geometry",
    [
        *({"padding": 1}, {"padding": (2, 0), "stride": (1, 2)}, {"dilation": (3, 1), "stride": 2}),
        *({"padding": "same", "dilation": 2}, {"padding": 2, "padding_mode": "circular"}),
        {"padding": 1, "padding_mode": "reflect"},
    ],
)
def test_patches_are_what_the_outputs_see(geometry: dict[str, Any]) -> None:
    layer = nn.Conv2d(4, 6, (3, 5), bias=False, **geometry)
    patches, outputs = rows(layer, IMAGES)
    torch.testing.assert_close(patches @ layer.weight.detach().flatten(1).T, outputs)


def test_factors_are_those_of_the_layer() -> None:
    for layer in (BSConvU(4, 6, 3), BSConvS(8, 6, 3)):
        factors = factors_of(layer)
        assert {factor.dtype for factor in factors} == {torch.float64}
        assert not any(factor.requires_grad for factor in factors)
        torch.testing.assert_close(dense(factors).float(), layer.to_conv2d().weight.detach())


# --- samples --------------------------------------------------------------------------------------


def fit_of(model: nn.Module, name: str, positions: int, batch_size: int = 5) -> LayerFit:
    student = BSConvU_Replacer(init="project").apply(copy.deepcopy(model)).eval()
    landings = find_landings(model, IMAGES[:2], [name])
    return LayerFit(model, student, IMAGES, landings, batch_size=batch_size, positions=positions)


def test_samples_are_taken_at_the_same_random_places_of_each_batch() -> None:
    model = MODELS["shortcut"][0]
    fit = fit_of(model, "0.conv", positions=7)
    samples = fit._samples("0.conv", fit.landings["0.conv"])
    residual = fit.student[0]
    with torch.no_grad():
        inside = residual.norm(residual.conv(IMAGES))
        student, teacher = inside + IMAGES - 0.5, seen_before_relu(model)
    generator = torch.Generator().manual_seed(0)
    patches, wanted, added = [], [], []
    for batch in torch.split(torch.arange(12), 5):
        chosen = torch.randperm(64, generator=generator)[:7]
        for image in batch:
            patches.append(_patches(model[0].conv, IMAGES[image, None])[0].T[chosen])
            wanted.append(teacher[image].flatten(1).T[chosen])
            added.append((student - inside)[image].flatten(1).T[chosen])
    for found, expected in zip(samples, (patches, wanted, added), strict=True):
        torch.testing.assert_close(found, torch.cat(expected))


def seen_before_relu(model: nn.Module) -> Tensor:
    inputs: list[Tensor] = []
    handle = model[0].relu.register_forward_pre_hook(lambda _, given: inputs.append(given[0]))
    with torch.no_grad():
        model(IMAGES)
    handle.remove()
    return inputs[0]


def test_targets_below_zero_are_what_is_there_already() -> None:
    samples = layer_fit._Samples(
        torch.tensor([[1.0], [2.0], [3.0]]),
        torch.tensor([[5.0], [-1.0], [0.0]]),
        torch.tensor([[0.5], [0.25], [-9.0]]),
    )
    kernel, shift = torch.tensor([[[[2.0]]]]).double(), torch.tensor([1.0]).double()
    assert samples.total(kernel, shift).flatten().tolist() == [3.5, 5.25, -2.0]
    assert samples.rectified_target(kernel, shift).flatten().tolist() == [5.0, 0.0, -2.0]
    found, wanted = torch.tensor([3.5, 5.25, -2.0]), torch.tensor([5.0, -1.0, 0.0])
    error = F.mse_loss(found, wanted) / wanted.var(correction=0)
    assert samples.error(kernel, shift, rectified=False) == pytest.approx(float(error))
    found, wanted = found.relu(), wanted.relu()
    error = F.mse_loss(found, wanted) / wanted.var(correction=0)
    assert samples.error(kernel, shift, rectified=True) == pytest.approx(float(error))
    flat = samples._replace(wanted=torch.full((3, 1), 4.0))
    assert flat.error(kernel, shift, rectified=False) == 0.0


# --- rounds ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [BSConvU_Replacer, BSConvS_Replacer])
def test_behind_a_relu_targets_and_fits_take_turns(kind: Any) -> None:
    model = MODELS["relu"][0]
    student = kind(init="project").apply(copy.deepcopy(model)).eval()
    landings = find_landings(model, IMAGES[:2], ["0"])
    fit = LayerFit(model, student, IMAGES, landings, batch_size=50, positions=EVERYWHERE)
    samples, metric = fit._samples("0", landings["0"]), next(iter(fit.metrics.values()))
    factors, target = factors_of(student[0]), samples.wanted
    for turn in range(1 + layer_fit.RECTIFIED_ROUNDS):
        known = moments(samples.patches, target)
        factors = layer_fit._fit(known, factors, metric, layer_fit.ROUNDS if turn == 0 else 0)
        shift = constant(known, dense(factors))
        target = samples.rectified_target(dense(factors), shift)
    error = fit.layer("0")
    assert error == pytest.approx(samples.error(dense(factors), shift, rectified=True))
    assert_close(dense(factors_of(student[0])), dense(factors))
    torch.testing.assert_close(student[0].dw.bias.detach().double(), shift, rtol=1e-4, atol=1e-5)


def test_without_derivatives_all_rounds_are_for_each_filter_apart() -> None:
    model = MODELS["relu"][0]
    fit = fit_of(model, "0", EVERYWHERE)
    fit.metrics.clear()
    samples = fit._samples("0", fit.landings["0"])
    factors, target = factors_of(fit.student[0]), samples.wanted
    for _ in range(1 + layer_fit.RECTIFIED_ROUNDS):
        known = moments(samples.patches, target)
        factors = fit_blueprints(known, factors)
        target = samples.rectified_target(dense(factors), constant(known, dense(factors)))
    fit.layer("0")
    assert_close(dense(factors_of(fit.student[0])), dense(factors))


# --- the methods ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["u", "s"])
def test_the_first_two_methods_are_what_they_say(kind: Any) -> None:
    model = answering(conv(), norm(4), nn.ReLU(), conv(bias=False), norm(4)).train()
    replacer = BSConvU_Replacer if kind == "u" else BSConvS_Replacer
    expected = replacer(init="project").apply(copy.deepcopy(model)).eval()
    for method, images in (("weights", None), ("weights", IMAGES), ("batch_norm", IMAGES)):
        if method == "batch_norm":
            reestimate_batch_norm(expected, IMAGES, batch_size=5)
        found, report = project_pretrained(model, images, kind, method=method, batch_size=5)
        assert (report.method, report.images) == (method, 0 if images is None else 12)
        assert [layer.output_error for layer in report.layers] == [None, None]
        for name, value in expected.state_dict().items():
            torch.testing.assert_close(found.state_dict()[name], value)
        if images is None:
            assert report.agreement is None
        else:
            with torch.no_grad():
                same = found(IMAGES).argmax(1) == model.eval()(IMAGES).argmax(1)
            assert report.agreement == float(same.double().mean())
        assert not found.training
        model.train()


def test_models_that_give_no_logits_have_no_agreement() -> None:
    _, report = project_pretrained(MODELS["bare"][0], IMAGES, progress=False)
    assert report.agreement is None


def test_layers_report_parameters_and_what_the_weights_kept() -> None:
    model = nn.Sequential(conv(bias=False), conv())
    model[1].weight.data.zero_()
    _, report = project_pretrained(model)
    closest = BSConvU.from_conv2d(model[0]).to_conv2d().weight.detach()
    lost = (closest - model[0].weight.detach()).square().sum() / model[
        0
    ].weight.detach().square().sum()
    first, second = report.layers
    assert (first.parameters_before, first.parameters_after) == (144, 16 + 36)
    assert (second.parameters_before, second.parameters_after) == (148, 16 + 36 + 4)
    assert first.weights_kept == pytest.approx(1 - float(lost), rel=1e-5)
    assert second.weights_kept == 1.0


@pytest.mark.parametrize("progress", [True, False])
def test_progress_is_shown_layer_by_layer(progress: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[dict[str, Any]] = []

    class Bar:
        @staticmethod
        def tqdm(items: Any, **options: Any) -> Any:
            shown.append({"items": items, **options})
            return items

    monkeypatch.setitem(sys.modules, "tqdm", Bar)
    model = nn.Sequential(conv(bias=False), conv()).eval()
    project_pretrained(model, IMAGES, progress=progress)
    bar = {"items": ["0", "1"], "desc": "projecting", "unit": "layer"}
    assert shown == ([bar] if progress else [])
    monkeypatch.setitem(sys.modules, "tqdm", None)
    _, report = project_pretrained(model, IMAGES)
    assert len(report.layers) == 2
