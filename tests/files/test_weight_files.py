"""Weights from files: whatever holds them gives the same tensors, and what is none is refused."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from bsconv.experiments.files.weights import WEIGHT_FILES, read_weights

STATE = {
    "0.weight": torch.arange(54.0).reshape(2, 3, 3, 3),
    "1.running_mean": torch.tensor([1.0, -2.0]).half(),
    "1.num_batches_tracked": torch.tensor(7),
}


def assert_same(found: dict[str, Tensor]) -> None:
    assert found.keys() == STATE.keys()
    for name, value in STATE.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=0)


@pytest.mark.parametrize("kind", [str, Path])
def test_safetensors(kind: Any, tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_file(STATE, path)
    assert_same(read_weights(kind(path)))


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"epoch": 3, "state_dict": state, "optimizer": {"lr": torch.ones(1)}},
        lambda state: {"model": state},
        lambda state: {**state, "note": "trained for long"},
        lambda state: {f"module.{name}": value for name, value in state.items()},
    ],
)
@pytest.mark.parametrize("suffix", [".pt", ".pth"])
def test_saved_by_torch(wrap: Any, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"weights{suffix}"
    torch.save(wrap(STATE), path)
    assert_same(read_weights(path))
    assert suffix in WEIGHT_FILES


@pytest.mark.parametrize("suffix", WEIGHT_FILES)
def test_a_file_that_is_not_there(suffix: str, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="none"):
        read_weights(tmp_path / f"none{suffix}")


@pytest.mark.parametrize("name", [f"damaged{suffix}" for suffix in WEIGHT_FILES])
def test_a_damaged_file(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(b"nonsense")
    with pytest.raises(ValueError, match=f"^{re.escape(str(path))} is damaged or [^\n]*$"):
        read_weights(path)


class Pickled:
    """Would be run by unpickling."""

    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("code was run",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (nn.Conv2d(3, 4, 3), "holds more than weights, .*save a state dict"),
        (Pickled(), "holds more than weights, .*save a state dict"),
        ([torch.zeros(3)], "holds a list, not a state dict"),
        (torch.zeros(3), "holds a Tensor, not a state dict"),
        ({0: torch.zeros(3)}, "holds tensors without names, not a state dict"),
    ],
)
def test_a_file_of_something_else(
    content: Any, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "content.pt"
    torch.save(content, path)
    with pytest.raises(ValueError, match=message):
        read_weights(path)
    assert capsys.readouterr().out == ""
