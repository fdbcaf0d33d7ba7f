"""Layers fitted in turn: what is put into them, and the errors that are reported."""

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bsconv import pytorch as bp
from bsconv.pytorch._forms.fit import Fit, dense_kernel
from bsconv.pytorch._forms.form import Form
from bsconv.pytorch._forms.patches import Patches, Sampler, rectified, relative_error
from bsconv.pytorch.pretrained import _study
from bsconv.pytorch.pretrained._inputs import Inputs
from bsconv.pytorch.pretrained._study import Study
from helpers.trained import trained

IMAGES = torch.rand(12, 4, 8, 8, generator=torch.Generator().manual_seed(5))
EVERYWHERE = 64  # positions of an image


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(4, 4, 3, padding=1), trained(nn.BatchNorm2d(4))
        self.relu = nn.ReLU()

    def forward(self, images: Tensor) -> Tensor:
        return self.relu(self.norm(self.conv(images)) + images - 0.5)


def answering(*layers: nn.Module) -> nn.Sequential:
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LazyLinear(5))
    with torch.no_grad():
        model(IMAGES)
    return model.eval()


def conv(**options: Any) -> nn.Conv2d:
    return nn.Conv2d(4, 4, 3, **options)


REFLECTING = conv(padding=1, padding_mode="reflect")
# models, and where their first layer lands
MODELS = {
    "bare": (nn.Sequential(conv(bias=False)), "0", False),
    "bias": (nn.Sequential(conv(padding=1, stride=2)), "0", False),
    "relu": (answering(conv(padding="same", dilation=2), nn.ReLU()), "0", True),
    "norm": (answering(REFLECTING, trained(nn.BatchNorm2d(4))), "1", False),
    "norm, relu": (answering(conv(bias=False), trained(nn.BatchNorm2d(4)), nn.ReLU()), "1", True),
    "shortcut": (answering(Residual(), nn.Dropout()), "0.relu", True),
}


def seen(model: nn.Module, name: str) -> Tensor:
    """What ``name`` returns."""
    found: list[Tensor] = []
    part = model.get_submodule(name)
    handle = part.register_forward_hook(lambda _, __, output: found.append(output.clone()))
    with torch.no_grad():
        model(IMAGES)
    handle.remove()
    return found[0]


@pytest.mark.parametrize("kind", ["u", "s"])
@pytest.mark.parametrize("case", list(MODELS))
def test_the_error_is_that_of_the_new_network_where_the_layer_lands(case: str, kind: Any) -> None:
    model, place, rectified = MODELS[case]
    options: dict[str, Any] = {"positions": EVERYWHERE, "progress": False, "batch_size": 5}
    fitted, report = bp.project_pretrained(model.eval(), IMAGES, kind, 0.5, **options)
    assert isinstance(fitted.get_submodule(report.layers[0].name), (bp.BSConvU, bp.BSConvS))
    found, expected = seen(fitted, place).double(), seen(model, place).double()
    if rectified:
        found, expected = found.relu(), expected.relu()
    spread = expected.transpose(0, 1).flatten(1).var(1, correction=0).sum()
    error = (found - expected).square().mean((0, 2, 3)).sum() / spread
    assert report.layers[0].output_error == pytest.approx(float(error), rel=1e-3)
    assert 1e-4 < report.layers[0].output_error < 0.9
    # nothing but a constant keeps the means from being right, unless a ReLU lies between
    if case in ("bias", "norm"):
        torch.testing.assert_close(found.mean((0, 2, 3)), expected.mean((0, 2, 3)))


def looked_at(model: nn.Module) -> Study:
    study = Study(model, Inputs((IMAGES,)), Sampler(50, EVERYWHERE))
    study.look(["0"])
    return study


def test_a_layer_without_constant_is_fitted_about_zero() -> None:
    model, *_ = MODELS["bare"]
    fitted, _ = bp.project_pretrained(model, IMAGES, positions=EVERYWHERE, progress=False)
    patches = Patches(F.unfold(IMAGES, 3).mT.flatten(0, 1), centered=False)
    outputs = seen(model, "0").flatten(2).mT.flatten(0, 1)
    cross, mean = patches.cross(outputs, model[0].weight.detach().flatten(1))
    metric = looked_at(model).layers["0"].metric
    found = Fit(patches.steady, metric, 4).find(Form("u"), patches.solve(cross), cross)
    assert not mean.any()
    expected = dense_kernel("u", found)
    kernel = fitted[0].to_conv2d().weight.detach().double().flatten(1)
    torch.testing.assert_close(kernel, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))


@pytest.mark.parametrize(
    "geometry",
    [
        {"padding": 1}, {"padding": (2, 0, 1), "stride": (1, 2, 1)},
        {"dilation": (3, 1, 2), "stride": 2}, {"padding": "same", "dilation": 2},
        {"padding": 2, "padding_mode": "circular"}, {"padding": 1, "padding_mode": "reflect"},
    ],
)  # fmt: skip
@pytest.mark.parametrize("conv", [nn.Conv1d, nn.Conv2d, nn.Conv3d])
def test_patches_are_what_the_outputs_see(conv: Any, geometry: dict[str, Any]) -> None:
    sides = {nn.Conv1d: (7,), nn.Conv2d: (7, 9), nn.Conv3d: (7, 9, 8)}[conv]
    geometry = {"kernel_size": (3, 5, 2), **geometry}
    fitting = {k: v[: len(sides)] if isinstance(v, tuple) else v for k, v in geometry.items()}
    layer = conv(4, 6, bias=False, **fitting)
    images, sampler = torch.randn(12, 4, *sides), Sampler(5, 11)
    with torch.no_grad():
        outputs = sampler.rows(layer, layer(images))
        found = sampler.patches(layer, images) @ layer.weight.flatten(1).T
    torch.testing.assert_close(found, outputs)


@pytest.mark.parametrize("sides", [(), (7,), (2, 3), (2, 3, 4)])
def test_a_linear_has_its_channels_last(sides: tuple[int, ...]) -> None:
    linear, sampler = nn.Linear(4, 6, bias=False), Sampler(5, 3)
    images = torch.randn(12, *sides, 4)
    with torch.no_grad():
        rows = sampler.rows(linear, linear(images))
    torch.testing.assert_close(sampler.patches(linear, images) @ linear.weight.T, rows)


# --- samples --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("active", "expected"),
    [
        (lambda rows: rows, [5.0, -1.0, 0.0, -3.0]),
        # what is there already below zero stays, what is above comes down to zero
        (F.relu, [5.0, 0.0, -2.0, -2.0]),
        # a share of the error counts: from -2, a tenth of the way to -3
        (nn.LeakyReLU(0.1), [5.0, -0.1, -1.8, -2.1]),
    ],
)
def test_targets_below_zero_count_as_far_as_they_come_through(active, expected) -> None:
    found, wanted = torch.tensor([[3.5, 5.25, -2.0, -2.0], [5.0, -1.0, 0.0, -3.0]])[:, :, None]
    assert rectified(found, wanted, active).flatten().tolist() == pytest.approx(expected)
    assert relative_error(wanted, wanted) == relative_error(found, found * 0) == 0
    error = float(F.mse_loss(found, wanted) / wanted.var(correction=0))
    assert relative_error(found, wanted) == pytest.approx(error)


@pytest.mark.parametrize("kind", [bp.BSConvU_Replacer, bp.BSConvS_Replacer])
def test_behind_a_relu_targets_and_fits_take_turns(kind, monkeypatch):
    model = MODELS["relu"][0]
    study = looked_at(model)
    study.layers["0"].metric = torch.eye(4).double()  # of the errors that are reported
    errors = []
    for rounds in (0, 2, _study.RECTIFIED_ROUNDS):
        monkeypatch.setattr(_study, "RECTIFIED_ROUNDS", rounds)
        errors.append(study.fit(kind(init="project").apply(copy.deepcopy(model)).eval())["0"])
    assert errors[0] > 1.01 * errors[1] > 1.01 * errors[2]


# --- the methods ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["u", "s"])
def test_the_first_two_methods_are_what_they_say(kind: Any) -> None:
    norms = [trained(nn.BatchNorm2d(4)) for _ in range(2)]
    model = answering(conv(), norms[0], nn.ReLU(), conv(bias=False), norms[1]).train()
    replacer = bp.BSConvU_Replacer if kind == "u" else bp.BSConvS_Replacer
    expected = replacer(init="project").apply(copy.deepcopy(model)).eval()
    for method, images in (("weights", None), ("weights", IMAGES), ("batch_norm", IMAGES)):
        if method == "batch_norm":
            bp.reestimate_batch_norm(expected, IMAGES, batch_size=5)
        found, report = bp.project_pretrained(model, images, kind, method=method, batch_size=5)
        assert (report.method, report.images) == (method, 0 if images is None else 12)
        assert [layer.output_error for layer in report.layers] == [None, None]
        torch.testing.assert_close(found.state_dict(), expected.state_dict())
        same = found(IMAGES).argmax(1) == model.eval()(IMAGES).argmax(1)
        assert report.agreement == (None if images is None else float(same.double().mean()))
        assert not found.training
        model.train()


def test_layers_report_parameters_and_what_the_weights_kept() -> None:
    model = nn.Sequential(conv(bias=False), conv())
    model[1].weight.data.zero_()
    first, second = bp.project_pretrained(model)[1].layers
    weight = model[0].weight.detach()
    lost = (bp.BSConvU.from_conv2d(model[0]).to_conv2d().weight.detach() - weight).square().sum()
    assert (first.parameters_before, first.parameters_after) == (144, 16 + 36)
    assert (second.parameters_before, second.parameters_after) == (148, 16 + 36 + 4)
    kept = 1 - float(lost / weight.square().sum())
    assert [first.weights_kept, second.weights_kept] == pytest.approx([kept, 1.0], rel=1e-5)


def test_others_may_write_into_what_a_layer_sees() -> None:
    class Written(Residual):
        def forward(self, images: Tensor) -> Tensor:
            return self.relu(images.add_(self.norm(self.conv(images))).sub_(0.5))

    plain = trained(Residual()).eval()
    written = Written().eval()
    written.load_state_dict(plain.state_dict())
    reports = [bp.project_pretrained(one, IMAGES, progress=False)[1] for one in (plain, written)]
    errors = [report.layers[0].output_error for report in reports]
    # what autograd has saved is written over, so there are no sensitivities
    assert errors[0] == pytest.approx(errors[1], rel=0.05)
