"""Runs that start from a file of weights: what is loaded, what is refused, what resuming needs."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from bsconv.experiments.training import TrainConfig, _job
from helpers.small_runs import Use, noise, run, run_until, weights, with_all_state

State = dict[str, torch.Tensor]


@pytest.fixture(autouse=True)
def small(use: Use) -> None:
    use(with_all_state, noise(classes=10))


@pytest.fixture
def start() -> State:
    """Weights that no seed draws, with statistics of BatchNorm that no fresh network has."""
    state = with_all_state(10).state_dict()
    state["1.running_mean"].fill_(0.3)
    state["1.num_batches_tracked"].fill_(5)
    return state


def as_half(start: State, folder: Path) -> Path:
    half = {key: start[key].half() for key in start if start[key].is_floating_point()}
    save_file(start | half, folder / "half.safetensors")
    return folder / "half.safetensors"


def as_torch(start: State, folder: Path) -> Path:
    torch.save({"state_dict": start}, folder / "start.pt")
    return folder / "start.pt"


@pytest.mark.parametrize("store", [as_half, as_torch])
def test_a_run_starts_from_the_file(store, start, tmp_path, monkeypatch) -> None:
    """The weights before the first step are those of the file, whatever the seed."""
    path, seen = store(start, tmp_path), []
    plain = _job.make_optimizer

    def make_optimizer(model: nn.Module, config: TrainConfig) -> Any:
        seen.append({key: value.clone() for key, value in model.state_dict().items()})
        return plain(model, config)

    monkeypatch.setattr(_job, "make_optimizer", make_optimizer)
    for seed in (0, 1):
        run(weights=path, seed=seed, normalize="none")
    tolerance = 1e-3 if store is as_half else 0
    for found in seen:
        torch.testing.assert_close(found, start, rtol=tolerance, atol=tolerance)
        assert found["0.weight"].dtype == torch.float32


def test_only_the_start_differs(tmp_path: Path) -> None:
    """From the weights that its seed draws, a run is the run without a file, to the last bit."""
    torch.manual_seed(3)
    path = tmp_path / "drawn.safetensors"
    save_file(with_all_state(10).state_dict(), path)
    torch.testing.assert_close(
        weights(run(seed=3)), weights(run(seed=3, weights=path, normalize="none")), rtol=0, atol=0
    )


def test_a_resumed_run_needs_the_file_no_more(start: State, tmp_path: Path) -> None:
    path = as_torch(start, tmp_path)
    from_it: dict[str, Any] = {"weights": path, "normalize": "none", "epochs": 3}
    straight = run(out=tmp_path / "straight", **from_it)
    run_until(2, out=tmp_path / "broken", **from_it)
    path.unlink()
    resumed = run(out=tmp_path / "broken", resume=True, **from_it)
    torch.testing.assert_close(weights(resumed), weights(straight), rtol=0, atol=0)
    assert len(run(out=tmp_path / "broken", resume=True, **from_it)) == 3  # finished
    with pytest.raises(ValueError, match=r"a run with weights='.*start.pt', not weights=None"):
        run(out=tmp_path / "broken", resume=True, epochs=3)
    with pytest.raises(FileNotFoundError, match=r"start\.pt"):
        run(out=tmp_path / "new", weights=path)
    assert not (tmp_path / "new").exists()


def test_settings_compare_the_path_as_it_is_written() -> None:
    config = TrainConfig(weights="a/start.pt")
    assert config.difference(TrainConfig(weights=Path("./a/start.pt"))) is None
    for name in ("weights", "teacher", "out"):
        assert getattr(TrainConfig(**{name: "~/a"}), name) == str(Path.home() / "a")
    assert config.difference(TrainConfig(weights="b/start.pt")) == "weights"
    assert config.difference(TrainConfig()) == "weights"
    assert TrainConfig.from_dict(dataclasses.asdict(config)) == config
    assert config.without_folders() == TrainConfig(weights="start.pt")
