"""Spectra by epoch: what was seen while a network learnt, written and read again."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from bsconv.experiments.results.spectra import TrainingSpectra
from bsconv.experiments.training import TrainConfig, train
from bsconv.pytorch import kernel_spectra
from bsconv.pytorch.spectra import random_first_share


def test_training_fills_in_what_the_model_had_after_each_epoch() -> None:
    config = TrainConfig(
        "cifar_resnet20", "synthetic", epochs=2, train_limit=64, test_limit=64, device="cpu"
    )
    spectra = TrainingSpectra()
    history = train(config, progress=False, after_epoch=spectra)
    assert (spectra.epochs, spectra.top1) == ([1, 2], [metrics.test_top1 for metrics in history])
    assert history.model is not None
    last = kernel_spectra(history.model)
    assert spectra.layers.keys() == last.keys() == spectra.random.keys()
    for name, shares in spectra.layers.items():
        assert shares[1] == pytest.approx(last[name][:, 0].quantile(0.5).item())
        assert shares[0] != shares[1]
    slices = history.model.get_submodule(next(iter(last))).in_channels
    assert spectra.random[next(iter(last))] == random_first_share(slices, 9)


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    spectra = TrainingSpectra(about={"machine": "a test"})
    torch.manual_seed(0)
    spectra.look(0, nn.Conv2d(4, 8, 3))
    spectra.look(3, {"weight": torch.randn(8, 4, 3, 3)}, 12.5)
    spectra.write(tmp_path / "spectra.json")
    again = TrainingSpectra.read(tmp_path / "spectra.json")
    assert (again.epochs, again.top1, again.about) == ([0, 3], [None, 12.5], spectra.about)
    assert again.layers[""] == pytest.approx(spectra.layers[""], abs=5e-5)
    again.look(4, nn.Conv2d(4, 8, 3))
    assert len(again.layers[""]) == 3


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("nonsense", "holds no spectra of a training"),
        ("[]", "holds no spectra of a training"),
        (
            json.dumps({"format": "bsconv record 1"}),
            "format needs to be 'bsconv spectra 1', got 'bsconv record 1'",
        ),
        (json.dumps({"format": "bsconv spectra 1", "epochs": []}), "holds no spectra"),
        (
            '{"format": "bsconv spectra 1", "epochs": [1], "top1": [null], "layers": {"a": []}, '
            '"random": {"a": 0.5}}',
            "needs a share of each layer for each epoch",
        ),
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "spectra.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=message):
        TrainingSpectra.read(path)
