"""Recorded spectra: of a network while it learnt, and of networks that others trained."""

from pathlib import Path
from statistics import median

import pytest
import torch
from torch import nn

from bsconv.experiments.results import results_folder
from bsconv.experiments.results.spectra import NetworkSpectra, TrainingSpectra
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
    first = next(iter(last))
    slices = history.model.get_submodule(first).in_channels
    assert spectra.random[first] == random_first_share(slices, 9)


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    spectra = TrainingSpectra(about={"machine": "a test"})
    spectra.look(0, nn.Conv2d(4, 8, 3))
    spectra.look(3, {"weight": torch.randn(8, 4, 3, 3)}, 12.5)
    spectra.write(tmp_path / "spectra.json")
    again = TrainingSpectra.read(tmp_path / "spectra.json")
    assert (again.epochs, again.top1, again.about) == ([0, 3], [None, 12.5], spectra.about)
    assert again.layers[""] == pytest.approx(spectra.layers[""], abs=5e-5)
    again.look(4, nn.Conv2d(4, 8, 3))
    assert len(again.layers[""]) == 3


OTHER = '{"format": "bsconv record 1"}'
UNEVEN = (
    '{"format": "bsconv spectra 1", "epochs": [1], "top1": [null], "layers": {"a": []}, '
    '"random": {"a": 0.5}}'
)


@pytest.mark.parametrize(
    ("kind", "content", "message"),
    [
        (TrainingSpectra, "nonsense", "holds no spectra of a training"),
        (TrainingSpectra, OTHER, "format needs to be 'bsconv spectra 1', got 'bsconv record 1'"),
        (TrainingSpectra, '{"format": "bsconv spectra 1", "epochs": []}', "holds no spectra"),
        (TrainingSpectra, UNEVEN, "needs a share of each layer for each epoch"),
        (NetworkSpectra, '{"format": "bsconv network spectra 1"}', "holds no spectra of a network"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, kind: type, content: str, message: str) -> None:
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        kind.read(tmp_path / "a.json")


@pytest.mark.parametrize(
    ("name", "layers", "mean", "within", "across"),
    [("vgg16_hed", 13, 0.625, 0.42, 0.36), ("animevideov3", 18, 0.464, 0.17, 0.14)],
)
def test_the_recorded_networks(name, layers, mean, within, across) -> None:
    recorded = NetworkSpectra.read(results_folder() / "spectra" / f"{name}.json")
    rows = recorded.table.compared
    assert len(rows) == layers
    assert recorded.table.mean == pytest.approx(mean, abs=0.001)
    assert median(row.excess for row in rows) == pytest.approx(within, abs=0.01)
    assert median(row.cross_excess for row in rows) == pytest.approx(across, abs=0.01)
    assert {"source", "licence", "sha256"} <= recorded.about.keys()
    if recorded.kernel:
        share = kernel_spectra(torch.tensor(recorded.kernel)[None])[""][0, 0].item()
        assert share == pytest.approx(rows[1].median, abs=0.01)
