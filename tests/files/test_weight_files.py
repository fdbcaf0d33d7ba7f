"""Weights from files: whatever holds them gives the same tensors, and what is none is refused."""

import re
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor, nn

from bsconv.experiments.files.checkpoints import load_weights
from bsconv.experiments.files.habits import state_dict_in
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


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"epoch": 3, "state_dict": state, "optimizer": {"lr": torch.ones(1)}},
        lambda state: {**state, "note": "trained for long"},
        lambda state: {"epoch": torch.tensor(3), "mine": state},
        lambda state: {"args": Namespace(lr=0.1), "checkpoint": {"net": state, "criterion": STATE}},
        lambda state: {"model": state, "avg_loss": {"train": torch.ones(1)}},
        lambda state: {"n_averaged": torch.tensor(9), **prefixed("module.", state)},
        lambda state: {name.replace("1.", "1._orig_mod."): value for name, value in state.items()},
    ],
)
def test_saved_by_torch(wrap: Any, tmp_path: Path) -> None:
    torch.save(wrap(STATE), tmp_path / "weights.pt")
    assert_same(read_weights(tmp_path / "weights.pt")[0])


@pytest.mark.parametrize("save", [torch.save, save_file])
@pytest.mark.parametrize("suffix", [*WEIGHT_FILES, ""])
def test_whatever_its_suffix_a_file_is_read(save: Any, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"weights{suffix}"
    with pytest.raises(FileNotFoundError, match="weights"):
        read_weights(path)
    path.write_bytes(b"nonsense")
    with pytest.raises(ValueError, match=f"^{re.escape(str(path))} is damaged or [^\n]*$"):
        read_weights(path)
    save(STATE, path)
    if save is save_file or suffix != ".safetensors":
        assert_same(read_weights(path)[0])


def prefixed(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: value for name, value in state.items()}


habits = st.lists(st.sampled_from(["module.", "_orig_mod.", "model.", "net.", "ema_model."]))
entries = st.lists(st.sampled_from(["state_dict", "model_state_dict", "params", "ema", "mine"]))


@settings(deadline=None)
@given(habits, entries)
def test_habits_in_any_order(prefixes: list[str], keys: list[str]) -> None:
    state = {**STATE, "0.weight": STATE["0.weight"].to_sparse()}
    content: Any = prefixed("".join(prefixes), state)
    for key in keys:
        content = {"epoch": 3, key: content, "optimizer": {"state": {0: {"step": torch.ones(1)}}}}
    assert_same(state_dict_in(content))


OTHER = {name: torch.zeros_like(value) for name, value in STATE.items()}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"state_dict": OTHER, "state_dict_ema": STATE}, "weights 'state_dict_ema' .*not 's"),
        ({"params": OTHER, "params_ema": STATE}, "'params_ema' are taken, not 'params'"),
        (
            {**prefixed("online_model.", OTHER), **prefixed("ema_model.", STATE),
             "initted": torch.tensor(True), "step": torch.tensor(8)},
            "averaged weights 'ema_model' are taken, not 'online_model'",
        ),
        ({"net": OTHER, "model": STATE}, "weights 'model' are taken, not 'net'"),
    ],
)  # fmt: skip
def test_of_two_networks_it_says_which_is_taken(content: Any, said: str) -> None:
    with pytest.warns(UserWarning, match=said):
        assert_same(state_dict_in(content))


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod."])
def test_a_weight_that_is_there_twice(prefix: str) -> None:
    with pytest.raises(ValueError, match=f"holds 0.weight twice, as 0.weight and as {prefix}0.w"):
        state_dict_in({**STATE, **prefixed(prefix, OTHER)})


class Wrapped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.model = nn.Sequential(nn.Conv2d(3, 2, 3, bias=False), nn.BatchNorm2d(2))


def test_weights_fit_where_only_prefixes_differ(tmp_path: Path) -> None:
    bare = Wrapped().model
    for model in (Wrapped(), bare):
        for prefix in ("", "model.", "model._orig_mod."):
            load_weights(model, state_dict_in(prefixed(prefix, bare.state_dict())), tmp_path)
            for mine, theirs in zip(model.parameters(), bare.parameters(), strict=True):
                assert torch.equal(mine, theirs)
    several = {**prefixed("model.", bare.state_dict()), "loss.weight": torch.ones(2)}
    with pytest.warns(UserWarning, match="1 of 7 weights in .* belong to no layer of the model"):
        load_weights(bare, several, tmp_path)
    two = {"D": {"0.weight": torch.ones(1)}, "G": {"a": prefixed("b.", bare.state_dict())}}
    with pytest.warns(UserWarning, match="1 of 7 weights in .* belong to no layer of the model"):
        load_weights(bare, state_dict_in(two), tmp_path)
    with pytest.raises(ValueError, match=r"it lacks 0\.weight and 4 more, but has 0\.bias$"):
        load_weights(bare, {"0.bias": torch.ones(2)}, tmp_path)


@pytest.mark.parametrize("names", [("teacher", "student"), ("momentum_encoder", "encoder")])
def test_which_of_two_networks_is_not_guessed(names: tuple[str, str], tmp_path: Path) -> None:
    model = Wrapped().model
    mine, theirs = (prefixed(f"{name}.", model.state_dict()) for name in names)
    left = "6 of 12 weights .* belong to no layer"
    with pytest.warns(UserWarning, match=left):  # they are the same
        load_weights(model, state_dict_in({**mine, **theirs}), tmp_path)
    others = {name: tensor + 1 for name, tensor in theirs.items()}
    with pytest.raises(ValueError, match=f"holds {names[0]} and {names[1]}, which both fit"):
        load_weights(model, state_dict_in({**mine, **others}), tmp_path)
    known = prefixed("model.", model.state_dict())
    choice = f"the weights 'model' are taken, not '{names[1]}'"
    with pytest.warns(UserWarning, match=choice), pytest.warns(UserWarning, match=left):
        load_weights(model, state_dict_in({**others, **known}), tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (nn.Conv2d(3, 4, 3), "more than weights, .*save a state dict; it has torch.nn.modules.c"),
        ([torch.zeros(3)], "holds a list, not a state dict"),
        ({0: torch.zeros(3)}, "holds tensors without names, not a state dict"),
        ({"epoch": 3, "loss": [1.0]}, "holds no state dict; it has 'epoch', 'loss'$"),
    ],
)
def test_a_file_of_something_else(content: Any, message: str, tmp_path: Path) -> None:
    path = tmp_path / "content.pt"
    torch.save(content, path)
    with pytest.raises(ValueError, match=message):
        read_weights(path)


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_torchscript_is_named(tmp_path: Path) -> None:
    torch.jit.script(nn.Linear(2, 2)).save(tmp_path / "x.pt")
    with pytest.raises(ValueError, match=r"x\.pt is TorchScript, a program, .* save a state dict$"):
        read_weights(tmp_path / "x.pt")
