"""Recorded spectra of networks that others trained, and what they say."""

from pathlib import Path
from statistics import median

import pytest
import torch

from bsconv.experiments.results import results_folder
from bsconv.experiments.results.spectra import NetworkSpectra
from bsconv.pytorch import kernel_spectra


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"format": "bsconv network spectra 1"}'])
def test_another_file_is_refused(content: str, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=f"{path} holds no spectra of a network: "):
        NetworkSpectra.read(path)


@pytest.mark.parametrize(
    ("name", "layers", "mean", "within", "across"),
    [("vgg16_hed", 13, 0.625, 0.42, 0.36), ("animevideov3", 18, 0.464, 0.17, 0.14)],
)
def test_the_recorded_networks(
    name: str, layers: int, mean: float, within: float, across: float
) -> None:
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
