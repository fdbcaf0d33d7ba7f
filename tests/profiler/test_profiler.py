"""The profiler against counts written out by hand, and that it leaves a model as it was."""

import copy
import dataclasses
import pickle
import re
import sys
import types
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from bsconv.pytorch import LayerProfile, ModelProfiler
from helpers.exact_errors import raises_exactly
from helpers.model_snapshots import assert_unchanged, snapshot

IMAGE = (1, 3, 8, 8)
COUNTED = ("parameter", "flop", "mac", "activation")


class Net(nn.Module):
    """Parts, and a function that calls them."""

    def __init__(self, call: Callable[..., Any], **parts: Any) -> None:
        super().__init__()
        self.call = call
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.call(self, *args, **kwargs)


def peek(net: Any, input: Tensor) -> Tensor:
    assert float(input.sum()) == 0
    return net.body(input)


def peeking(body: nn.Module) -> nn.Module:
    """Runs ``body``, after a look at values, which the meta device does not have."""
    return Net(peek, body=body)


def profile(model: nn.Module, input_size: Any = IMAGE) -> ModelProfiler:
    return ModelProfiler(model, input_size)


def totals(profiler: ModelProfiler) -> tuple[int, ...]:
    return tuple(getattr(profiler, f"total_{what}_count") for what in COUNTED)


# --- one layer ------------------------------------------------------------------------------------

# parameters, FLOPs, MACs and activations; in the formulas, outputs or inputs first, then what one
# of them costs
ONE_LAYER = [
    (nn.Conv2d(3, 4, 3, bias=False), IMAGE, (4 * 3 * 9, 144 * 27, 144 * 27, 4 * 6 * 6)),
    (nn.Conv2d(3, 4, 3), IMAGE, (4 * 3 * 9 + 4, 144 * (27 + 1), 144 * 27, 144)),
    (nn.Conv2d(3, 4, 3, stride=2, padding=1), IMAGE, (112, 64 * 28, 64 * 27, 4 * 4 * 4)),
    (nn.Conv2d(3, 4, (1, 5), bias=False), IMAGE, (60, 128 * 15, 128 * 15, 4 * 8 * 4)),
    (nn.Conv2d(3, 3, 3, dilation=3, bias=False), IMAGE, (81, 12 * 27, 12 * 27, 3 * 2 * 2)),
    (nn.Conv2d(4, 8, 3, groups=2), (1, 4, 8, 8), (8 * 2 * 9 + 8, 288 * 19, 288 * 18, 8 * 6 * 6)),
    (nn.Conv2d(3, 6, 1, groups=3, bias=False), IMAGE, (6, 384 * 1, 384 * 1, 6 * 8 * 8)),
    (nn.Conv1d(3, 4, 3), (1, 3, 8), (4 * 3 * 3 + 4, 24 * (9 + 1), 24 * 9, 4 * 6)),
    (nn.Conv3d(3, 4, 2), (1, 3, 3, 3, 3), (100, 32 * (24 + 1), 32 * 24, 4 * 2 * 2 * 2)),
    (nn.ConvTranspose1d(3, 4, 2, stride=2), (1, 3, 5), (28, 15 * 8 + 40, 15 * 8, 4 * 10)),
    (nn.ConvTranspose2d(3, 4, 3, bias=False), IMAGE, (108, 192 * 36, 192 * 36, 4 * 10 * 10)),
    (nn.ConvTranspose2d(4, 6, 2, groups=2), (1, 4, 3, 3), (54, 36 * 12 + 96, 36 * 12, 6 * 4 * 4)),
    (nn.ConvTranspose3d(1, 2, 2), (1, 1, 2, 2, 2), (18, 8 * 16 + 54, 8 * 16, 2 * 3 * 3 * 3)),
    (nn.Linear(5, 7, bias=False), (1, 5), (35, 7 * 5, 7 * 5, 7)),
    (nn.Linear(5, 7), (1, 5), (35 + 7, 7 * (5 + 1), 7 * 5, 7)),
    (nn.Linear(5, 7), (2, 3, 5), (42, 42 * (5 + 1), 42 * 5, 2 * 3 * 7)),
    (nn.BatchNorm1d(3), (2, 3), (6, 2 * 6, 0, 0)),
    (nn.BatchNorm1d(3, affine=False), (2, 3, 4), (0, 1 * 24, 0, 0)),
    (nn.BatchNorm2d(3), IMAGE, (6, 2 * 192, 0, 0)),
    (nn.BatchNorm2d(3, affine=False), IMAGE, (0, 1 * 192, 0, 0)),
    (nn.BatchNorm2d(3, track_running_stats=False), IMAGE, (6, 2 * 192, 0, 0)),
    (nn.BatchNorm3d(3), (1, 3, 2, 2, 2), (6, 2 * 24, 0, 0)),
    (nn.SyncBatchNorm(3), IMAGE, (6, 2 * 192, 0, 0)),
    (nn.ReLU(), IMAGE, (0, 192, 0, 0)),
    (nn.ReLU(inplace=True), (2, 3), (0, 6, 0, 0)),
    (nn.MaxPool2d(3, stride=1), IMAGE, (0, 192, 0, 0)),
    (nn.MaxPool2d(2, return_indices=True), IMAGE, (0, 192, 0, 0)),
    (nn.FractionalMaxPool2d(2, output_size=3), IMAGE, (0, 192, 0, 0)),
    (nn.AvgPool1d(2), (1, 3, 9), (0, 27, 0, 0)),
    (nn.LPPool2d(2, 2), IMAGE, (0, 192, 0, 0)),
    (nn.AdaptiveAvgPool3d(1), (1, 1, 4, 4, 4), (0, 64, 0, 0)),
    (nn.AdaptiveMaxPool2d(2), IMAGE, (0, 192, 0, 0)),
]
FREE = [nn.ReLU6(), nn.Hardswish(), nn.Sigmoid(), nn.GELU(), nn.PReLU(), nn.Softmax(1)]
FREE += [nn.Upsample(scale_factor=2), nn.LayerNorm(8), nn.GroupNorm(1, 3), nn.InstanceNorm2d(3)]
IDLE = [nn.Identity(), nn.Dropout(), nn.Dropout2d(), nn.Flatten(), nn.ZeroPad2d(1), nn.Sequential()]


@pytest.mark.parametrize(("layer", "size", "expected"), ONE_LAYER, ids=str)
@pytest.mark.parametrize("wrap", [nn.Sequential, peeking])
def test_one_layer(layer, size, expected, wrap):
    assert totals(profile(layer, size)) == expected
    assert all(type(number) is int for number in totals(profile(layer, size)))
    profiler = profile(wrap(layer), size)
    assert totals(profiler) == expected
    assert profiler.free_types == ()


@pytest.mark.parametrize("layer", FREE + IDLE, ids=str)
def test_all_else_is_free_and_named_if_it_computes_something(layer: nn.Module) -> None:
    profiler = profile(nn.Sequential(nn.ReLU(), layer))
    parameters = sum(parameter.numel() for parameter in layer.parameters())
    assert totals(profiler) == (parameters, 192, 0, 0)
    assert profiler.free_types == ((type(layer).__name__,) if layer in FREE else ())


# --- a model --------------------------------------------------------------------------------------


def test_rows_are_layers_and_add_up() -> None:
    model = nn.Sequential()
    model.stem = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU())
    model.pool, model.flat, model.head = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10)
    profiler = profile(model)
    assert profiler.rows == (
        LayerProfile("stem.0", "Conv2d", 1, 108, 144 * 27, 144 * 27, 144, (1, 4, 6, 6)),
        LayerProfile("stem.1", "BatchNorm2d", 1, 8, 288, 0, 0, (1, 4, 6, 6)),
        LayerProfile("stem.2", "ReLU", 1, 0, 144, 0, 0, (1, 4, 6, 6)),
        LayerProfile("pool", "AdaptiveAvgPool2d", 1, 0, 144, 0, 0, (1, 4, 1, 1)),
        LayerProfile("flat", "Flatten", 1, 0, 0, 0, 0, (1, 4)),
        LayerProfile("head", "Linear", 1, 50, 50, 40, 10, (1, 10)),
    )
    assert totals(profiler) == (166, 3888 + 288 + 144 + 144 + 50, 3888 + 40, 144 + 10)
    sums = (sum(getattr(row, f"{what}s") for row in profiler.rows) for what in COUNTED)
    assert totals(profiler) == tuple(sums)
    with pytest.raises(dataclasses.FrozenInstanceError):
        profiler.rows[0].flops = 0  # type: ignore[misc]
    assert pickle.loads(pickle.dumps(profiler)).rows == profiler.rows


def test_a_shared_layer_has_its_parameters_once_and_costs_each_call() -> None:
    conv = nn.Conv2d(3, 3, 3, padding=1)
    profiler = profile(nn.Sequential(conv, nn.ReLU(), conv))
    assert totals(profiler) == (84, 2 * 192 * 28 + 192, 2 * 192 * 27, 2 * 192)
    assert [(row.name, row.calls) for row in profiler.rows] == [("0", 2), ("1", 1)]


def test_layers_that_are_never_called_have_parameters_only() -> None:
    model = nn.Conv2d(3, 4, 3)
    model.spare = nn.Conv2d(7, 8, 1)
    assert profile(model).rows[1] == LayerProfile("spare", "Conv2d", 0, 64, 0, 0, 0, None)
    assert profile(model).total_parameter_count == 112 + 64


def test_parameters_outside_layers_count() -> None:
    scale = nn.Parameter(torch.ones(5))
    profiler = profile(Net(lambda net, x: net.relu(x) * net.scale[0], scale=scale, relu=nn.ReLU()))
    assert [(row.name, row.parameters) for row in profiler.rows] == [("", 5), ("relu", 0)]
    assert profiler.free_types == ("Net",)


def nested() -> nn.Module:
    """Two inputs, one of them by name to its layer; outputs in a dict of tuples."""

    def call(net: Any, image: Tensor, features: Tensor) -> dict[str, Any]:
        image = net.pool(input=net.conv(input=image))
        return {"image": (image, [image]), "features": {"a": net.linear(input=features)}}

    conv, linear = nn.Conv2d(3, 4, 1, bias=False), nn.Linear(5, 2, bias=False)
    return Net(call, conv=conv, pool=nn.MaxPool2d(2), linear=linear)


@pytest.mark.parametrize("sizes", [[IMAGE, (1, 5)], ((1, 3, 8, 8), [1, 5])])
def test_several_inputs_and_nested_outputs(sizes: Any) -> None:
    profiler = profile(nested(), sizes)
    assert totals(profiler) == (12 + 10, 256 * 3 + 256 + 10, 256 * 3 + 10, 256 + 2)
    assert [row.output_shape for row in profiler.rows] == [(1, 4, 8, 8), (1, 4, 4, 4), (1, 2)]
    assert profiler.input_size is sizes
    assert profiler.summary.startswith("Net on 1x3x8x8 and 1x5: 22 parameters, ")


def test_layers_without_tensors() -> None:
    class Odd(nn.ReLU):
        def forward(self, *numbers: int) -> Any:
            return None if numbers else torch.zeros(2, 3)

    model = Net(lambda net, x: [net.silent(1, 2), net.giving()], silent=Odd(), giving=Odd())
    assert profile(model).rows == (
        LayerProfile("silent", "Odd", 1, 0, 0, 0, 0, None),
        LayerProfile("giving", "Odd", 1, 0, 0, 0, 0, (2, 3)),
    )


def test_subclasses_cost_what_their_base_does() -> None:
    class Odd(nn.Conv2d):
        def __init__(self) -> None:
            super().__init__(3, 4, 3)
            self.norm = nn.BatchNorm2d(4)

        def forward(self, x: Tensor) -> dict[str, Tensor]:  # type: ignore[override]
            return {"y": self.norm(super().forward(x))}

    assert totals(profile(Odd())) == (112 + 8, 144 * 28 + 288, 144 * 27, 144)
    assert [(row.name, row.flops) for row in profile(Odd()).rows] == [("", 144 * 28), ("norm", 288)]


def test_a_parametrised_layer_is_one_row() -> None:
    model = nn.Sequential(parametrizations.weight_norm(nn.Conv2d(3, 4, 3)), nn.ReLU())
    rows = profile(model).rows
    assert [row.name for row in rows] == ["0", "1"]
    # magnitudes (one per filter), directions, bias
    assert (rows[0].parameters, rows[0].macs) == (4 + 108 + 4, 144 * 27)
    assert profile(model).free_types == ()


def test_attention_is_free_but_the_linear_layers_around_it_are_seen() -> None:
    """Without hooks, eval mode would take a path that calls none of them."""
    layer = nn.TransformerEncoderLayer(8, 2, dim_feedforward=16, batch_first=True)
    for model in (layer, peeking(layer)):
        profiler = profile(model, (1, 5, 8))
        macs = {row.name.rpartition(".")[2]: row.macs for row in profiler.rows}
        assert macs["linear1"] == macs["linear2"] == 5 * 8 * 16
        assert macs["out_proj"] == 0
        assert "MultiheadAttention" in profiler.free_types
        assert profiler.total_parameter_count == sum(p.numel() for p in layer.parameters())


@pytest.mark.parametrize(
    "name", ["resnet18", "densenet121", "mobilenet_v2", "mobilenet_v3_small", "efficientnet_b0"]
)
def test_torchvision_states_the_same(name: str) -> None:
    with torch.device("meta"):
        model = torchvision.models.get_model(name)
    stated = torchvision.models.get_model_weights(name)["IMAGENET1K_V1"].meta  # type: ignore[misc]
    profiler = ModelProfiler(model)
    assert profiler.total_parameter_count == stated["num_params"]
    assert round(profiler.total_mac_count / 1e9, 3) == stated["_ops"]
    assert all(parameter.is_meta for parameter in model.parameters())


# --- where it runs --------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("wrap", [nn.Sequential, peeking])
def test_any_dtype(dtype: torch.dtype, wrap: Callable[[nn.Module], nn.Module]) -> None:
    model = wrap(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())).to(dtype)
    assert totals(profile(model)) == (120, 144 * (28 + 2 + 1), 144 * 27, 144)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("wrap", [nn.Sequential, peeking, nn.DataParallel])
def test_a_model_on_a_cuda_device(wrap: Callable[[nn.Module], nn.Module]) -> None:
    model = wrap(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout())).cuda()
    random = torch.cuda.get_rng_state()
    assert totals(profile(model)) == (120, 144 * 30, 144 * 27, 144)
    assert all(parameter.is_cuda for parameter in model.parameters())
    assert torch.equal(torch.cuda.get_rng_state(), random)


def test_wrappers_are_looked_through() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    compiled: Any = torch.compile(model, backend="eager")
    for wrapped in (nn.DataParallel(model), compiled, nn.DataParallel(compiled)):
        assert profile(wrapped).rows == profile(model).rows


NOTES: list[tuple[torch.dtype, str]] = []
FAILURES: list[str] = []


def note(net: Any, input: Tensor) -> Tensor:
    """Notes the dtypes and devices of weight and input; fails as often as it is told to."""
    seen = (*net.parameters(), *net.buffers(), input)
    NOTES.extend((tensor.dtype, tensor.device.type) for tensor in seen)
    if FAILURES:
        raise RuntimeError(FAILURES.pop())
    return input


def test_one_run_on_the_meta_device_is_enough() -> None:
    noting = Net(note, weight=nn.Parameter(torch.ones(2).double()))
    noting.register_buffer("own", torch.ones(2))
    model = nn.Sequential(nn.Conv2d(3, 3, 1, bias=False).double(), noting)
    model.register_parameter("whole", nn.Parameter(torch.ones(2).int(), requires_grad=False))
    NOTES.clear()
    profile(model)
    assert [(torch.float64, "meta"), (torch.float32, "meta"), (torch.float64, "meta")] == NOTES
    assert noting.weight.device.type == "cpu"


def test_a_forward_of_its_own_is_run() -> None:
    model = nn.Sequential(nn.BatchNorm2d(3), nn.ReLU())
    for layer in model:
        layer.forward = lambda images: images[:, 1:]
    assert [row.output_shape for row in profile(model).rows] == [(1, 2, 8, 8), (1, 1, 8, 8)]


def test_empty_lists_caches_and_hooks_are_copied_too() -> None:
    devices: list[str] = []
    model = Net(lambda net, x: net.seen.append(x) or setattr(net, "grid", x) or x, seen=[])
    model.register_forward_hook(lambda module, inputs, output: devices.append(output.device.type))
    model.grid = None
    profile(model)
    assert (model.seen, model.grid, devices) == ([], None, ["meta"])


@pytest.mark.parametrize(
    ("weight", "default", "given", "expected"),
    [
        ("cpu", "meta", None, "cpu"), ("meta", "cpu", None, "meta"), ("cpu", "cpu", "meta", "meta"),
        (None, "meta", None, "meta"), (None, "cpu", None, "cpu"),
    ],
)  # fmt: skip
def test_where_meta_fails_inputs_lie_where_the_model_does(weight, default, given, expected):
    parts = {"weight": nn.Parameter(torch.ones(2, device=weight))} if weight else {}
    FAILURES[:] = ["not here"]
    with torch.device(default):
        ModelProfiler(Net(note, **parts), IMAGE, given)
    assert NOTES[-1] == (torch.float32, expected)


# --- it leaves no trace ---------------------------------------------------------------------------


class Traced(nn.Module):
    """Much that a careless profiler would change; fails for images of an odd width."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = parametrizations.weight_norm(nn.Conv2d(3, 4, 3))
        self.norm = nn.BatchNorm2d(4)
        self.frozen = nn.BatchNorm2d(4).eval()
        self.own = nn.BatchNorm2d(4)
        self.drop = nn.Dropout()
        self.conv.bias.requires_grad_(False)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        x = self.drop(self.frozen(self.norm(self.conv(x))))
        self.calls += 1
        torch.rand(7)
        if x.shape[-1] % 2:
            raise RuntimeError("an odd width")
        return x


@pytest.mark.parametrize("width", [8, 9])
@pytest.mark.parametrize("wrap", [nn.Sequential, peeking])
@pytest.mark.parametrize("training", [True, False])
def test_the_model_ends_as_it_was(wrap, width, training):
    inner = Traced()
    model = wrap(inner).train(training)
    inner.frozen.eval()
    inner.register_forward_hook(lambda *_: None)
    inner.conv.register_forward_pre_hook(lambda *_: None)
    inner(torch.rand(2, 3, 8, 8)).sum().backward()
    before, random = snapshot(model), torch.get_rng_state()
    gradients = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    with pytest.raises(ValueError, match="input_size") if width % 2 else nullcontext():
        profile(model, (1, 3, 8, width))
    assert_unchanged(model, before)
    assert torch.equal(torch.get_rng_state(), random)
    kept = [p.grad for p in model.parameters() if p.grad is not None]
    torch.testing.assert_close(kept, gradients, rtol=0, atol=0)


def test_a_pending_backward_pass_still_works() -> None:
    model = peeking(nn.BatchNorm2d(3).eval())
    images = torch.rand(IMAGE, requires_grad=True)
    loss = model.body(images).sum()
    profile(model)
    loss.backward()
    assert images.grad is not None


def test_eval_mode_is_what_runs_and_no_model_is_told_to_evaluate() -> None:
    """Some models merge weights in ``train(False)``."""

    class Merging(nn.Conv2d):
        def train(self, mode: bool = True) -> "Merging":
            raise AssertionError("not asked for")

        def forward(self, input: Tensor) -> Tensor:
            mistakes = self.training + torch.is_grad_enabled()
            return super().forward(input[:, :, mistakes:])

    for model in (Merging(3, 4, 3), peeking(Merging(3, 4, 3))):
        assert profile(model).total_mac_count == 144 * 27


# --- what it prints and writes --------------------------------------------------------------------


def small() -> ModelProfiler:
    return profile(nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.ReLU6(), nn.Conv2d(4, 2, 1)))


def test_it_prints_as_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    profiler = small()
    profiler.print_results()
    printed = capsys.readouterr().out
    assert printed == f"{profiler}\n"
    assert printed.splitlines() == [
        "layer  type    calls  parameters  FLOPs   MACs  activations  output",
        "-----  ------  -----  ----------  -----  -----  -----------  -------",
        "0      Conv2d      1         108  3,888  3,888          144  1x4x6x6",
        "1      ReLU6       1           0      0      0            0  1x4x6x6",
        "2      Conv2d      1          10    360    288           72  1x2x6x6",
        "Sequential on 1x3x8x8: 118 parameters, 4,248 FLOPs, 4,176 MACs, 216 activations; "
        "counted as free: ReLU6",
    ]
    assert profile(nn.ReLU()).summary.endswith("counted as free: no type of layer")
    assert str(profile(nn.ReLU())).splitlines()[2].startswith("(root)  ReLU")


def test_it_writes_a_csv_file(tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_text("an earlier one")
    small().to_csv(file)
    assert file.read_text().splitlines() == [
        "name,type,calls,parameters,flops,macs,activations,output_shape",
        "0,Conv2d,1,108,3888,3888,144,1x4x6x6",
        "1,ReLU6,1,0,0,0,0,1x4x6x6",
        "2,Conv2d,1,10,360,288,72,1x2x6x6",
    ]
    assert list(tmp_path.iterdir()) == [file]


def test_a_data_frame_needs_pandas(monkeypatch: pytest.MonkeyPatch) -> None:
    pandas = types.SimpleNamespace(DataFrame=lambda rows, columns: (rows, columns))
    monkeypatch.setitem(sys.modules, "pandas", pandas)  # type: ignore[arg-type]
    profiler = small()
    rows, columns = profiler.to_dataframe()
    assert columns == [field.name for field in dataclasses.fields(LayerProfile)]
    assert [LayerProfile(*row) for row in rows] == list(profiler.rows)
    monkeypatch.setitem(sys.modules, "pandas", None)
    with raises_exactly("to_dataframe needs pandas: pip install pandas", ImportError):
        profiler.to_dataframe()


# --- wrong input ----------------------------------------------------------------------------------

NO_SIZES = [(), [], 224, "3x32x32", None, (1, 3, 0, 8), (1, 3, -8, 8), (1, 3, 8.0, 8)]
NO_SIZES += [(True, 3, 8, 8), (1, 3, "8", 8), [IMAGE, ()], [IMAGE, 5], {1: 2}]


@pytest.mark.parametrize("size", NO_SIZES)
def test_no_size(size: Any) -> None:
    with raises_exactly(
        "input_size needs to be a size in positive whole numbers, such as (1, 3, 224, 224), or a "
        f"list of sizes, got input_size={size!r}"
    ):
        profile(nn.ReLU(), size)


WIDE = (1, 4, 8, 8)
NO_FIT = [(nn.Conv2d(3, 4, 3), size) for size in (WIDE, (1, 3, 2, 2), (3, 8), (1, 1, 3, 8, 8))]
NO_FIT += [(nn.BatchNorm1d(3), WIDE), (nn.BatchNorm2d(3), WIDE), (nested(), IMAGE)]


@pytest.mark.parametrize(("layer", "size"), NO_FIT)
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_a_size_that_the_model_does_not_take(layer: nn.Module, size: Any, device: str) -> None:
    model = copy.deepcopy(nn.Sequential(layer, nn.ReLU())).to(device)
    message = f"input_size needs to be what Sequential takes, got input_size={size!r}, "
    with pytest.raises(ValueError, match=f"^{re.escape(message)}.*Error: ") as raised:
        profile(model, size)
    assert "\n" not in str(raised.value)
    assert raised.value.__cause__ is not None


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is")
def test_lazy_and_scripted_layers_are_refused_and_stay_as_they_are() -> None:
    model, scripted = nn.Sequential(nn.LazyConv2d(4, 3)), torch.jit.script(nn.Conv2d(3, 4, 3))
    lazy = "model has lazy layers, whose size is not known yet: call it once before"
    unseen = "model has scripted parts, whose layers cannot be seen: script it later"
    for refused, message in (
        (model, lazy),
        (nn.Sequential(nn.LazyBatchNorm2d(affine=False)), lazy),
        (scripted, unseen),
        (nn.Sequential(scripted), unseen),
    ):
        with raises_exactly(message):
            profile(refused)
    assert isinstance(model[0], nn.LazyConv2d)
    model(torch.zeros(IMAGE))
    assert profile(model).total_mac_count == 144 * 27


# --- example inputs ------------------------------------------------------------------------------


def words(net: Any, ids: Tensor, *, scale: float = 1.0) -> Tensor:
    return net.linear(net.embedding(ids)) * scale


def detect(net: Any, images: list[Tensor]) -> list[Tensor]:
    """Takes a list of images, and asks for values, which a run by shapes does not have."""
    outputs = [net.conv(image) for image in images]
    return [output[output > output.mean().item()] for output in outputs]


WORDS = Net(words, embedding=nn.Embedding(10, 4), linear=nn.Linear(4, 3))
DETECTOR = Net(detect, conv=nn.Conv2d(3, 4, 3))
IDS = torch.zeros(2, 5, dtype=torch.long)


@pytest.mark.parametrize(
    ("model", "inputs", "macs"),
    [
        (WORDS, IDS, 120),
        (WORDS, (IDS,), 120),
        (WORDS, {"ids": IDS, "scale": 2.0}, 120),
        (DETECTOR, [torch.rand(3, 6, 6), torch.rand(3, 5, 5)], 108 * (16 + 9)),
        (DETECTOR, ([torch.rand(3, 6, 6)],), 108 * 16),
    ],
)
def test_example_inputs_are_what_the_model_takes(model: nn.Module, inputs: Any, macs: int) -> None:
    assert ModelProfiler(model, example_inputs=inputs).total_mac_count == macs


def test_example_inputs_stay_as_they_are() -> None:
    image = -torch.ones(1, 3, 4, 4)
    profiler = ModelProfiler(nn.Sequential(nn.ReLU(inplace=True), DETECTOR), example_inputs=image)
    assert profiler.input_size == [(1, 3, 4, 4)]
    assert (image == -1).all()


def test_example_inputs_that_a_model_does_not_take_are_said() -> None:
    message = r"^example_inputs needs to be what Net takes, got example_inputs=\[\(2, 5\)\], which"
    with pytest.raises(ValueError, match=message):
        ModelProfiler(WORDS, example_inputs={"words": IDS})
