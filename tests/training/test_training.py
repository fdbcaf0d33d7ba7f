"""The recipe against its parts computed another way, and what it refuses."""

import functools
import math
from collections.abc import Callable
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from bsconv.experiments import training
from bsconv.experiments.data import ImageDataset, to_float
from bsconv.experiments.files.checkpoints import read_checkpoint
from bsconv.pytorch import BSConvS, _layer_plans, reg_loss
from helpers import small_runs
from helpers.model_snapshots import assert_unchanged, snapshot
from helpers.records import epochs
from helpers.small_runs import Use, at_a_terminal, config, linear, noise, run, weights


def with_subspace(classes: int) -> nn.Module:
    return nn.Sequential(
        BSConvS(3, 8, 3, p=1.0), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(288, classes)
    )


# --- steps ----------------------------------------------------------------------------------------


def test_metrics_hold_the_rate_of_the_last_step_of_the_epoch(use: Use) -> None:
    use(linear)
    history = run(epochs=4, recipe="fast", learning_rate=0.01)
    expected = [config(epochs=4, recipe="fast", learning_rate=0.01).learning_rate_at(3 * e - 1, 3)
                for e in (1, 2, 3, 4)]  # fmt: skip
    assert [metrics.learning_rate for metrics in history] == expected


@pytest.mark.parametrize("recipe", ["published", "fast"])
def test_two_steps_by_hand(use: Use, recipe: str) -> None:
    data = noise(train=6)
    use(linear, data)
    images, labels = data.train_images, data.train_labels
    settings = config(recipe=recipe, batch_size=6, crop_padding=0, flip=False, weight_decay=0.01)
    result = weights(training.train(settings, progress=False))

    torch.manual_seed(0)
    weight, bias = (tensor.detach().double().numpy() for tensor in linear(4).parameters())
    pixels = images.flatten(1).double().numpy() / 255
    decays = (0.01, 0.01 if recipe == "published" else 0.0)
    velocities: list[Any] = [0, 0]
    parameters = [weight, bias]
    for step in range(2):
        rate = settings.learning_rate_at(step, 1)
        logits = pixels @ parameters[0].T + parameters[1]
        probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        error = (probabilities - np.eye(4)[labels.numpy()]) / 6
        gradients = [error.T @ pixels, error.sum(axis=0)]
        for index, (gradient, decay) in enumerate(zip(gradients, decays, strict=True)):
            gradient = gradient + decay * parameters[index]
            velocity = velocities[index] = 0.9 * velocities[index] + gradient
            change = gradient + 0.9 * velocity if recipe == "fast" else velocity
            parameters[index] = parameters[index] - rate * change
    torch.testing.assert_close(result["1.weight"].double(), torch.from_numpy(parameters[0]))
    torch.testing.assert_close(result["1.bias"].double(), torch.from_numpy(parameters[1]))


def seen_by(use: Use, model: Callable[[int], nn.Module], data: ImageDataset | None = None) -> Any:
    """Makes ``train`` see the model; what that will be given in the steps, and in between."""
    seen: dict[bool, list[Tensor]] = {True: [], False: []}

    def note(_: nn.Module, inputs: tuple[Tensor]) -> None:
        seen[torch.is_grad_enabled()].append(inputs[0].detach().clone())

    def made(classes: int) -> nn.Module:
        made = model(classes)
        made.register_forward_pre_hook(note)
        return made

    use(made, data)
    return seen[True], seen[False]


@pytest.mark.parametrize(
    ("count", "batch_size", "sizes"),
    [(20, 8, [8, 8, 4]), (17, 8, [8, 8]), (16, 8, [8, 8]), (1, 8, [1]), (3, 1, [1, 1, 1])],
)
def test_training_takes_every_image_but_a_last_single_one(use, count, batch_size, sizes) -> None:
    steps, _ = seen_by(use, linear, noise(train=count))
    run(epochs=1, batch_size=batch_size)
    assert [len(images) for images in steps] == sizes


def test_every_epoch_has_its_own_order(use: Use) -> None:
    steps, _ = seen_by(use, linear)
    run(crop_padding=0, flip=False)
    first, second = torch.cat(steps[:3]), torch.cat(steps[3:])
    assert not torch.equal(first, second)
    expected = {tuple(image.flatten().tolist()) for image in to_float(noise().train_images)}
    for images in (first, second):
        assert {tuple(image.flatten().tolist()) for image in images} == expected


def test_inputs_are_channels_last_and_not_normalised(use: Use) -> None:
    steps, others = seen_by(use, linear)
    run(epochs=1)
    images = torch.cat(steps + others)
    assert all(each.is_contiguous(memory_format=torch.channels_last) for each in steps + others)
    assert images.min() >= 0
    assert 0.9 < images.max() <= 1


def test_images_are_resized_as_asked(use: Use) -> None:
    data = noise(train=4)
    steps, others = seen_by(
        use, lambda n: nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, n)), data
    )
    run(epochs=1, image_size=20, crop_padding=0, flip=False, test_limit=4)
    assert {images.shape[-2:] for images in steps} == {(20, 20)}
    expected = F.interpolate(to_float(data.test_images[:4]), (20, 20), mode="bilinear")
    torch.testing.assert_close(others[-1], expected)


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(("batches", "most"), [(5, 3), (100, 8), (97, 7)])
def test_a_loss_that_is_no_number_ends_the_epoch_soon(use, monkeypatch, loss, batches, most):
    """It is looked at now and then: each look waits for the device."""
    use(linear, noise(train=batches))
    steps: list[Tensor] = []

    def train_step(*_: object) -> Tensor:
        steps.append(torch.tensor(loss if len(steps) == 2 else 1.0))
        return steps[-1]

    monkeypatch.setattr(training._train, "train_step", train_step)
    with pytest.raises(FloatingPointError, match="the training loss became "):
        run(batch_size=1)
    assert len(steps) <= most


def test_the_loss_is_the_mean_over_the_images(use: Use, monkeypatch: pytest.MonkeyPatch) -> None:
    use(linear)
    losses = iter([1.0, 2.0, 5.0] * 2)  # of 8, 8 and 4 images
    monkeypatch.setattr(training._train, "train_step", lambda *_: torch.tensor(next(losses)))
    assert [row.train_loss for row in run()] == pytest.approx([44 / 20] * 2)


# --- the penalty ----------------------------------------------------------------------------------


def test_penalty_counts_in_the_training_loss_only(use: Use) -> None:
    use(with_subspace)
    # a rate so small that no weight moves: the two runs differ by the penalty alone
    still = {"learning_rate": 1e-30, "weight_decay": 0.0, "epochs": 1, "batch_size": 20}
    without, with_penalty = run(alpha=0.0, **still), run(alpha=0.5, **still)
    assert with_penalty.model is not None
    penalty = reg_loss(with_penalty.model, 0.5).item()
    assert penalty > 0.1
    difference = with_penalty.last.train_loss - without.last.train_loss
    assert difference == pytest.approx(penalty, rel=1e-4)
    assert (without.last.penalty, with_penalty.last.penalty) == (0, pytest.approx(penalty))
    assert with_penalty.last.test_top1 == without.last.test_top1


def test_penalty_pulls_the_basis_towards_orthonormal(use: Use) -> None:
    use(with_subspace)
    after = []
    for alpha in (0.0, 0.1):
        model = run(epochs=20, alpha=alpha).model
        assert model is not None
        after.append(reg_loss(model, 1.0).item())
    assert after[1] < 0.5 * after[0]


# --- evaluation -----------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [1, 5, 12, 100])
@pytest.mark.parametrize("floats", [False, True])
def test_evaluate_counts_as_numpy_does(batch_size: int, floats: bool) -> None:
    data, model = noise(), linear(4)
    images = to_float(data.test_images) if floats else data.test_images
    weight, bias = (tensor.detach().numpy() for tensor in model.parameters())
    logits = data.test_images.flatten(1).numpy() / 255 @ weight.T + bias
    expected = 100 * np.mean(logits.argmax(axis=1) == data.test_labels.numpy())
    top1 = training.evaluate(model, images, data.test_labels, config(batch_size=batch_size))
    assert top1 == pytest.approx(expected, abs=1e-12)


def test_evaluate_leaves_the_model_as_it_was() -> None:
    data, model = noise(), small_runs.with_all_state(4)
    model[1].eval()  # a frozen BatchNorm in a model that trains
    before = snapshot(model)
    first = training.evaluate(model, data.test_images, data.test_labels)
    assert first == training.evaluate(model, data.test_images, data.test_labels)  # no dropout
    assert_unchanged(model, before)


def test_a_model_that_gives_no_numbers_is_never_right() -> None:
    data, model = noise(), linear(4)
    with torch.no_grad():
        model[-1].bias[0] = math.nan  # argmax takes NaN for the largest
    assert training.evaluate(model, data.test_images, torch.zeros_like(data.test_labels)) == 0


def test_evaluate_needs_numbers_and_labels() -> None:
    images, labels = to_float(noise().test_images), noise().test_labels
    images[1, 2, 3, 4] = math.nan
    with pytest.raises(ValueError, match="images need numbers, got NaN"):
        training.evaluate(linear(4), images, labels)
    for count, other in ((3, 2), (0, 0)):
        with pytest.raises(ValueError, match=f"a label per image, got {count} and {other}"):
            training.evaluate(linear(4), images[:count], labels[:other])


# --- randomness -----------------------------------------------------------------------------------


def test_seed_decides_everything_and_the_global_state_nothing(use: Use) -> None:
    use(small_runs.with_all_state)
    torch.manual_seed(11)
    first = run(seed=3)
    torch.manual_seed(12)
    again, other = run(seed=3), run(seed=4)
    torch.testing.assert_close(weights(first), weights(again), rtol=0, atol=0)
    assert [metrics.train_loss for metrics in first] == [metrics.train_loss for metrics in again]
    assert not torch.equal(weights(first)["6.weight"], weights(other)["6.weight"])


def test_train_leaves_no_trace(use: Use, tmp_path, monkeypatch, capsys) -> None:
    terminal = at_a_terminal(monkeypatch)
    monkeypatch.chdir(tmp_path)
    use(small_runs.with_all_state)
    cudnn = torch.backends.cudnn
    before, flags = torch.get_rng_state(), (cudnn.deterministic, cudnn.benchmark)
    run()
    assert torch.equal(torch.get_rng_state(), before)
    assert (cudnn.deterministic, cudnn.benchmark) == flags
    assert list(tmp_path.iterdir()) == []
    assert (capsys.readouterr().out, terminal.getvalue()) == ("", "")


def test_progress_is_a_line_per_epoch(use: Use, capsys: pytest.CaptureFixture[str]) -> None:
    use(linear)
    training.train(config(learning_rate=0.001), progress=True)
    printed, errors = capsys.readouterr()
    first, second, kept, *rest = printed.splitlines()
    about = "cifar_resnet20_bsconvu (772 parameters) on 20 images of noise, 2 epochs on cpu"
    assert first == f"training {about}"
    assert second.startswith("steps in float32, eager, ")
    assert kept == "nothing is written to disk: there is no out folder"
    assert [line.split(":")[0] for line in rest] == ["epoch 1", "epoch 2"]
    assert "test top-1" in rest[0]
    assert errors == ""  # no bar without a terminal


def test_the_bar_says_speed_time_left_and_loss(use: Use, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = at_a_terminal(monkeypatch)
    use(linear, noise(train=160))
    monkeypatch.setattr(training._train, "tqdm", functools.partial(tqdm, mininterval=0))
    monkeypatch.setattr(training._train, "train_step", lambda *_: torch.tensor(1.25))
    training.train(config(batch_size=4))
    shown = terminal.getvalue().split("\r")
    half = next(line for line in shown if " 80/160 " in line or " 80.0/160 " in line)
    assert half.startswith("epoch 1/2:  50%")
    for part in ("images/s", "<00:", "loss 1.250"):
        assert part in half


def test_an_interrupted_bar_is_taken_away(use: Use, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = at_a_terminal(monkeypatch)
    monkeypatch.setattr(training._train, "train_step", Mock(side_effect=KeyboardInterrupt))
    use(linear)
    with pytest.raises(KeyboardInterrupt):
        training.train(config())
    *_, bar, last = terminal.getvalue().split("\r")
    assert bar.strip() == last == ""


# --- history --------------------------------------------------------------------------------------


def test_history_knows_best_and_last() -> None:
    history = training.History(epochs(10.0, 30.0, 30.0, 20.0))
    assert history.best.epoch == 2
    assert history.last.epoch == 4


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("what", "message"),
    [
        (lambda job: job.model[-1].bias.data.fill_(math.nan), "weights became infinite or NaN"),
        (lambda job: job.model[-1].bias.data.fill_(math.inf), "weights became infinite or NaN"),
        (lambda job: math.nan, "training loss became nan"),
        (lambda job: math.inf, "training loss became inf"),
    ],
)
def test_an_epoch_of_no_numbers_is_not_kept(use, tmp_path, monkeypatch, what, message) -> None:
    """The last step of an epoch may spoil the weights after its loss was fine."""
    use(linear)
    plain, epochs = training._train.train_epoch, iter(range(1, 4))

    def train_epoch(run: Any, job: training._job.Job, *arguments: Any) -> tuple[float, float]:
        loss = plain(run, job, *arguments)
        if next(epochs) < 2:
            return loss
        spoilt = what(job)
        return (spoilt, 0.0) if isinstance(spoilt, float) else loss

    monkeypatch.setattr(training._train, "train_epoch", train_epoch)
    with pytest.raises(FloatingPointError, match=f"the {message} in epoch 2 of 3; try a learning"):
        run(epochs=3, out=tmp_path)
    kept = read_checkpoint(tmp_path / "checkpoint.pt")
    assert kept["epoch"] == 1
    assert all(tensor.isfinite().all() for tensor in kept["model"].values())
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 1
    assert not (tmp_path / "model.safetensors").exists()


def test_the_images_are_read_through_once_for_their_checksum(use: Use, monkeypatch) -> None:
    use(linear)
    checksum = Mock(return_value=7)
    monkeypatch.setattr(ImageDataset, "checksum", property(checksum))
    run(epochs=1)
    checksum.assert_called_once()


def test_a_model_of_other_classes_does_not_fit(use) -> None:
    use(lambda n: linear(n + 1), None)
    with pytest.raises(ValueError, match=r"needs 4 outputs per image for noise, got.*\(2, 5\)"):
        run()


def test_images_that_stay_on_the_cpu_fit_a_model_elsewhere() -> None:
    training.check_fit(linear(4).to("meta"), noise(), config())


@pytest.mark.parametrize("device", ["meta", "nonsense", "cuda:99"])
def test_device_that_is_not_here(device: str) -> None:
    with pytest.raises(ValueError, match=f"device needs one that is here, .*, got '{device}'"):
        run(device=device)


def losses(history: training.History) -> list[float]:
    return [epoch.train_loss for epoch in history]


def test_bfloat16_steps_train_about_the_same_weights_in_float32(use: Use) -> None:
    outputs: set[torch.dtype] = set()

    def made(classes: int) -> nn.Module:
        model = linear(classes)
        model.register_forward_hook(lambda _, __, output: outputs.add(output.dtype))
        return model

    use(made)
    precise, coarse = run(learning_rate=0.01), run(learning_rate=0.01, precision="bfloat16")
    assert outputs == {torch.float32, torch.bfloat16}
    assert losses(coarse) == pytest.approx(losses(precise), rel=0.05)
    assert losses(coarse) != losses(precise)
    assert {tensor.dtype for tensor in weights(coarse).values()} == {torch.float32}


@pytest.mark.parametrize(
    ("way", "plan"),
    [
        ({"plan": "merged"}, "merged"),
        ({"plan": "auto"}, "joined"),
        pytest.param({"compile": True}, "factored", marks=pytest.mark.slow),
    ],
)
def test_steps_computed_in_another_way_train_the_same(use, way, plan: str, monkeypatch) -> None:
    monkeypatch.setattr(_layer_plans, "fastest_plan", lambda *_: "joined")
    monkeypatch.setattr(training._steps, "WORTH_MEASURING", 0)
    use(with_subspace)
    # precision "auto" would be measured as well
    settings = {"learning_rate": 0.01, "precision": "float32", "plan": "factored"}
    plain, other = run(**settings), run(**settings | way)
    assert losses(other) == pytest.approx(losses(plain), rel=1e-4)
    torch.testing.assert_close(weights(other), weights(plain), rtol=1e-3, atol=1e-5)
    assert other.model is not None
    assert other.model[0].plan == plan
