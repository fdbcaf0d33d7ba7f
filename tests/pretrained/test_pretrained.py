"""Projection of trained networks: exactness, what is fitted, what stays as it was, wrong inputs."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bsconv.pytorch import BSConvS, BSConvU, get_model, project_pretrained, reestimate_batch_norm
from bsconv.pytorch._forms.patches import Sampler
from bsconv.pytorch.pretrained._inputs import Inputs
from bsconv.pytorch.pretrained._operations import find_consumers
from bsconv.pytorch.pretrained._sensitivity import EQUAL_SHARE, sensitivities
from bsconv.pytorch.pretrained._study import Study, find_head
from helpers.exact_errors import raises_exactly
from helpers.trained import trained

IMAGES = torch.rand(24, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def looked_at(model: nn.Module, names: list[str], images: Tensor = IMAGES) -> Study:
    study = Study(model, Inputs((images,)), Sampler(100, 64))
    study.look(names)
    return study


def metric_at(model: nn.Sequential, images: Tensor = IMAGES) -> Tensor:
    """For errors of what the first layer returns."""
    call = find_consumers(model, Inputs((images,)), {"0": model[0]})["0"].call
    return sensitivities(model, [Inputs((images,))], {"0": model[0]}, {call})[call][0]


def error(model: nn.Module, other: nn.Module, images: Tensor = IMAGES) -> float:
    with torch.no_grad():
        expected, found = model(images), other(images)
    return float((found - expected).square().mean() / expected.var())


def project(model: nn.Module, images: Tensor | None = None, *args: Any, **options: Any) -> Any:
    return project_pretrained(model, images, *args, progress=False, **options)


class Branched(nn.Module):
    """Additions, a concatenation, a convolution used twice, and functional activations."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.relu = nn.ReLU(inplace=True)
        self.side, self.twice, self.hidden = (nn.Conv2d(8, 8, 3, padding=1) for _ in range(3))
        self.join = nn.Conv2d(16, 4, 3)
        self.last = nn.BatchNorm2d(4)

    def forward(self, images: Tensor) -> Tensor:
        x = self.relu(self.norm(self.first(images)))
        x = self.relu(self.side(x) + x)
        x = self.twice(self.twice(x))
        x = torch.cat((F.relu(self.hidden(x)), x), dim=1)
        return self.last(self.join(x)).mean((2, 3))


def test_the_metric_is_the_mean_product_of_derivatives():
    conv, linear = nn.Conv2d(3, 4, 3), nn.Linear(4, 1)  # one output: not a matrix of logits
    pool = nn.AdaptiveAvgPool2d(1), nn.Flatten()
    model = nn.Sequential(conv, nn.ReLU(inplace=True), *pool, linear)
    with torch.no_grad():  # of the caller
        metric = metric_at(model)
        on = (conv(IMAGES) > 0).double().transpose(0, 1).flatten(1)
    energy = on @ on.T * linear.weight.detach().double().T * linear.weight.detach().double()
    # the random direction is one number for each image, so the mean over images is only close
    expected = energy / energy.diagonal().mean() * (1 - EQUAL_SHARE) + EQUAL_SHARE * torch.eye(4)
    torch.testing.assert_close(metric, expected, rtol=0.2, atol=0.05)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any("forward" in vars(module) for module in model)


def test_the_metric_of_a_network_that_is_sure_is_no_rounding():
    """With chances of 1 - 1e-12, what float32 keeps of 1 - chance is noise."""
    conv, linear = nn.Conv2d(3, 4, 3), nn.Linear(4, 5)
    model = nn.Sequential(conv, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), linear)
    linear.bias.data[2] = 30
    metric, expected = metric_at(model), metric_at(model.double(), IMAGES.double())
    torch.testing.assert_close(metric, expected, rtol=1e-3, atol=1e-4)


def test_without_derivatives_there_is_no_metric():
    class Detached(nn.Sequential):
        @torch.no_grad()
        def forward(self, images: Tensor) -> Tensor:
            return super().forward(images).mean((2, 3))

    model = Detached(nn.Conv2d(3, 4, 3, bias=False))
    assert sensitivities(model, [Inputs((IMAGES,))], {"0": model[0]}, {0}) == {}
    assert project(model, IMAGES)[1].layers[0].output_error is not None


class Squeezed(nn.Sequential):
    """Answers by what is left of its maps, as networks for CIFAR do."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images).flatten(1)


class Halved(Squeezed):
    """Answers in another dtype than its head."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images).half()


def nowhere(layer: nn.Conv2d) -> nn.Conv2d:
    nn.init.constant_(layer.bias, torch.nan)
    return layer


POOL, CUT = nn.AdaptiveAvgPool2d(1), nn.Threshold(10.0, 0.0, True)


@pytest.mark.parametrize(
    ("model", "found"),
    [
        (nn.Sequential(nn.Flatten(), nn.Linear(768, 8), nn.Linear(8, 5)), "2"),
        (nn.Sequential(nn.Flatten(), nn.Linear(768, 5), nn.Softmax(1)), None),
        (nn.Sequential(nn.Flatten(), nn.Linear(768, 5), nn.ReLU(inplace=True)), None),
        (Branched().eval(), None),
        (Squeezed(POOL, nn.Conv2d(3, 5, 1)), "1"),
        (Squeezed(nn.Conv2d(3, 5, 1)), "0"),  # at every pixel
        (Squeezed(nowhere(nn.Conv2d(3, 5, 1))), "0"),
        (Halved(nn.Conv2d(3, 5, 1)), None),
        (Squeezed(nn.AdaptiveAvgPool2d(2), nn.Conv2d(3, 5, 2)), None),
        (Squeezed(nn.Conv2d(3, 5, 1, stride=2)), None),
        (Squeezed(nn.Conv2d(3, 5, 1, padding=1)), None),
        (Squeezed(POOL, nn.Conv2d(3, 6, 1, groups=3)), None),
        (Squeezed(POOL, nn.Conv2d(3, 5, 1), CUT), None),
        (Squeezed(nn.Conv2d(3, 5, 1), nn.MaxPool2d(2)), None),
    ],
)
def test_the_head_is_the_linear_layer_or_1x1_convolution_that_answers(model, found):
    with torch.no_grad():
        assert find_head(model, Inputs((IMAGES[:2],))) == found


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    "layers",
    [
        lambda bias: (nn.Flatten(), nn.Linear(16, 6), nn.Linear(6, 3, bias=bias)),
        lambda bias: (nn.Conv2d(1, 6, 4), nn.Conv2d(6, 6, 1), nn.Conv2d(6, 3, 1, bias=bias)),
    ],
)
def test_a_refitted_head_says_what_the_teacher_says(layers, bias):
    """The features of the student are those of the teacher, mixed: another head says the same."""

    def network(mix: Tensor) -> nn.Sequential:
        torch.manual_seed(0)
        model = nn.Sequential(*layers(bias))
        before = model[1].weight.data
        model[1].weight.data = (mix @ before.flatten(1)).view_as(before)
        model[1].bias.data = mix @ model[1].bias.data
        return model

    teacher, student = network(torch.eye(6)), network(torch.randn(6, 6) + 2 * torch.eye(6))
    images = torch.randn(2000, 1, 4, 4)
    before = error(teacher, student, images)
    looked_at(teacher, [], images).fit(student)
    assert error(teacher, student, images) < 1e-2 * before
    again = copy.deepcopy(student[2].weight)
    looked_at(student, [], images).fit(student)
    torch.testing.assert_close(student[2].weight, again, rtol=1e-4, atol=1e-4)


def test_few_images_do_not_wreck_the_head():
    teacher = nn.Sequential(nn.Flatten(), nn.Linear(16, 40), nn.Linear(40, 3))
    student = copy.deepcopy(teacher)
    student[1].weight.data += 0.02 * torch.randn(40, 16)
    images = torch.randn(500, 1, 4, 4)
    before = error(teacher, student, images)
    looked_at(teacher, [], images[:5]).fit(student)
    assert error(teacher, student, images) < 2 * before


@pytest.mark.parametrize("kind", ["u", "s"])
def test_kernel_sizes_and_exclude_choose_the_layers(kind):
    model = nn.Sequential(*(nn.Conv2d(8, 8, size) for size in (3, 5, 3, 7)))
    some: dict[str, Any] = {"kernel_sizes": np.array([3, 7]), "exclude": ["2"]}
    for options, names in (({}, "012"), (some | {"kernel_sizes": [3, 7]}, "03"), (some, "03")):
        _, report = project(model, kind=kind, **options)
        assert [layer.name for layer in report.layers] == list(names)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "p"), [("u", 0.25), ("s", 1.0)])
@pytest.mark.parametrize("method", ["weights", "outputs"])
def test_a_blueprint_network_comes_through_unchanged(kind, p, method):
    blueprint = trained(get_model("cifar_resnet20_bsconvu", 4)).eval()
    dense = trained(get_model("cifar_resnet20", 4)).eval()
    for name, layer in blueprint.named_modules():
        if isinstance(layer, BSConvU):
            dense.get_submodule(name).load_state_dict(layer.to_conv2d().state_dict())
    model, report = project(dense, None if method == "weights" else IMAGES, kind, p, method=method)
    assert error(dense, model) < (1e-9 if method == "weights" else 1e-5)
    assert all(layer.weights_kept > 1 - 1e-5 for layer in report.layers)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["cifar_resnet20", "cifar_preresnet20"])
def test_each_way_is_better_than_the_one_before(architecture):
    dense = trained(get_model(architecture, 4)).eval()
    reestimate_batch_norm(dense, IMAGES)
    errors = {}
    for method in ("weights", "batch_norm", "outputs"):
        model, report = project(dense, IMAGES, method=method)
        errors[method] = error(dense, model)
        assert (report.method, report.images) == (method, len(IMAGES))
        assert 0 <= report.agreement <= 1
    assert errors["outputs"] < 0.5 * min(errors["batch_norm"], errors["weights"])
    assert "weights kept" in str(report)
    assert f"{len(report.layers)} layers projected by their outputs; agrees" in report.summary
    assert report.summary.endswith("of 24 images")


@pytest.mark.parametrize("method", ["weights", "batch_norm", "outputs"])
@pytest.mark.parametrize(
    "head", [(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 4)), (nn.Conv2d(8, 4, 1),)]
)
def test_the_classifier_is_fitted_by_outputs_alone(head, method):
    dense = trained(nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), *head)).eval()
    model, _ = project(dense, IMAGES, method=method)
    assert torch.equal(model[-1].weight, dense[-1].weight) == (method != "outputs")


def test_batch_norms_without_scale_and_shift_come_through():
    convs = (nn.Conv2d(channels, 8, 3, bias=False) for channels in (3, 8))
    norms = (nn.BatchNorm2d(8, affine=False) for _ in range(2))
    dense = nn.Sequential(next(convs), next(norms), nn.ReLU(), next(convs), next(norms))
    reestimate_batch_norm(dense.eval(), IMAGES)
    model, _ = project(dense, IMAGES, "s", 1.0)
    assert model[1].weight is None
    assert error(dense, model) < error(dense, project(dense, kind="s", p=1.0)[0]) + 1e-3


def test_any_model_with_convolutions_comes_through():
    dense = trained(Branched()).eval()
    model, report = project(dense, IMAGES)
    assert [layer.name for layer in report.layers] == ["first", "side", "twice", "hidden", "join"]
    fitted = {layer.name for layer in report.layers if layer.output_error is not None}
    assert fitted == {"first", "side", "hidden", "join"}  # what is called twice keeps its weights
    closest, _ = project(dense)
    assert error(dense, model) < 0.8 * error(dense, closest)


def test_the_dense_model_stays_as_it_was_and_the_new_one_trains_on():
    dense = trained(Branched())
    before, random = copy.deepcopy(dense.state_dict()), torch.get_rng_state()
    model, report = project(dense, IMAGES, "s", 0.5)
    assert torch.equal(torch.get_rng_state(), random)
    assert dense.training
    torch.testing.assert_close(dense.state_dict(), before, rtol=0, atol=0)
    assert not any(module.training for module in model.modules())
    assert sum(isinstance(module, BSConvS) for module in model.modules()) == len(report.layers)
    assert float(model.reg_loss(alpha=0.1).detach()) < 1e-4  # bases come out orthonormal
    model.train()(IMAGES).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    own = {tensor.data_ptr() for tensor in dense.state_dict().values()}
    assert not own & {tensor.data_ptr() for tensor in model.state_dict().values()}


def test_statistics_are_those_of_the_images():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(), nn.BatchNorm2d(4))
    momentum = model[1].momentum
    reestimate_batch_norm(model.train(), IMAGES, batch_size=8)
    with torch.no_grad():
        outputs = model[0](IMAGES)
    torch.testing.assert_close(model[1].running_mean, outputs.mean((0, 2, 3)))
    assert model[1].momentum == momentum
    assert all(module.training for module in model.modules())


def small_network() -> nn.Sequential:
    """Without constants, so that outputs are as large or small as images are."""
    one, two = (nn.Conv2d(channels, 8, 3, padding=1, bias=False) for channels in (3, 8))
    head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5, bias=False))
    return nn.Sequential(one, nn.ReLU(), two, nn.ReLU(), *head).eval()


@pytest.mark.parametrize("kind", ["u", "s"])
@pytest.mark.parametrize("exponent", [-100, -40, 40, 100])
def test_the_fit_is_the_same_for_images_of_any_size(kind, exponent):
    model = small_network()
    unscaled, plain = project(model, IMAGES, kind, 0.5)
    scaled, report = project(model, IMAGES * 2.0**exponent, kind, 0.5)
    for layer, other in zip(report.layers, plain.layers, strict=True):
        # softmax changes with the size, and with it what counts how much
        assert layer.output_error == pytest.approx(other.output_error, rel=0.4)
    if exponent < 0:
        assert error(model, scaled) == pytest.approx(error(model, unscaled), rel=0.5)
    assert all(tensor.isfinite().all() for tensor in scaled.state_dict().values())


@pytest.mark.parametrize("images", [torch.zeros(8, 3, 16, 16), torch.full((8, 3, 16, 16), 0.1)])
@pytest.mark.parametrize("kind", ["u", "s"])
def test_a_layer_that_sees_constants_keeps_close_weights(kind, images):
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU()).eval()
    lost = []
    for given in (None, images):
        found, _ = project(model, given, kind, p=1)
        lost.append(float((found[0].to_conv2d().weight - model[0].weight).detach().square().sum()))
    assert lost[1] < 1.1 * lost[0]
    torch.testing.assert_close(found(images), model(images))


@pytest.mark.parametrize("kind", ["u", "s"])
def test_a_layer_that_sees_a_few_constants_is_fitted_to_the_rest(kind):
    """Zeros inside, and what is padded at the border tells more than nothing."""
    model = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU()).eval()
    fitted, report = project(model, torch.full((8, 3, 16, 16), 0.1), kind, p=1)
    assert all(tensor.isfinite().all() for tensor in fitted.state_dict().values())
    assert 0 < report.layers[0].output_error < 0.5


def test_a_model_that_overflows_is_refused():
    model = small_network()
    model[0].weight.data.mul_(1e30)
    message = "images needs numbers for which the model stays finite, got NaN or infinity at "
    cases = ("u", "outputs", "'0'"), ("s", "outputs", "'0'"), ("u", "weights", "the outputs")
    for kind, method, place in cases:
        with raises_exactly(message + place):
            project(model, IMAGES * 1e20, kind, method=method)


def test_a_variance_beyond_the_dtype_is_made_up_for():
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6)).eval()
    images = IMAGES * 1e25
    fitted, report = project(model, images, p=1)
    found, expected = fitted(images).double(), model(images).double()
    deviation = (found - expected).square().mean() / expected.square().mean()
    assert deviation < 1.05 * report.layers[0].output_error


def test_statistics_beyond_the_dtype_are_refused_and_those_before_stay():
    model = trained(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))).eval()
    before = copy.deepcopy(model.state_dict())
    with raises_exactly(
        "images needs numbers whose variance is a number of its dtype at each BatchNorm, got NaN "
        "or infinity as running statistics"
    ):
        reestimate_batch_norm(model, IMAGES * 1e25)
    with pytest.raises(ValueError, match="Kernel size"):
        reestimate_batch_norm(model, IMAGES[:, :, :2])  # smaller than the kernel
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)
    with raises_exactly("batch_size needs to be at least 1, got batch_size=0"):
        reestimate_batch_norm(model, IMAGES, batch_size=0)


def test_few_images_are_looked_at_in_all_their_places():
    model, images = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1)).eval(), torch.rand(2, 3, 24, 24)
    reports = [project(model, images, positions=number)[1] for number in (None, 24 * 24, 64)]
    all_places, same, fewer = (report.layers[0].output_error for report in reports)
    assert all_places == same != fewer
