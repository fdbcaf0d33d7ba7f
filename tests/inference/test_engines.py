"""Engines: which one is taken, what it computes, and what it says where it cannot."""

import copy
import importlib.util
import pickle
import signal
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils.data import DataLoader

from bsconv.engines import _onnx_engines, _pytorch
from bsconv.engines._onnx import chain_to_onnx, network_to_onnx
from bsconv.pytorch import BSConvCP, BSConvS, BSConvU, optimize_for_inference
from bsconv.pytorch.inference import ENGINES, OptimizedModel, Setting, _choice, _optimize
from bsconv.pytorch.inference._plans import layer_plans, padded_plans
from helpers.exact_errors import raises_exactly
from helpers.inference_cases import (
    IMAGES,
    Graph,
    Several,
    assert_equal,
    assert_same_function,
    in_eval_mode,
    small,
    trained,
)

BOTH = ("eager", "compiled")
ONNX_ENGINES = ("onnxruntime", "openvino")
Patch = pytest.MonkeyPatch


@pytest.fixture
def compiler(monkeypatch: Patch) -> list[torch.Size]:
    """Stands in for torch.compile, and notes the sizes of what it was asked to compile for."""
    sizes: list[torch.Size] = []

    def compiled_for(network: nn.Module, example: Tensor) -> nn.Module:
        sizes.append(example.shape)
        return network

    monkeypatch.setattr(_pytorch, "compiled_for", compiled_for)
    return sizes


# --- which one is taken ---------------------------------------------------------------------------


@pytest.mark.usefixtures("compiler")
@pytest.mark.parametrize("fastest", ["given", "eager", "compiled"])
def test_the_fastest_is_taken(fastest: str, times: Any) -> None:
    times.seconds[fastest] = 1.0
    model = small()
    report = (found := optimize_for_inference(model, torch.randn(IMAGES), engines=BOTH)).report
    assert (report.engine, report.seconds, report.compiled) == (fastest, 1.0, fastest == "compiled")
    assert report.seconds_before == times.seconds["given"]
    assert type(times.timed["given"]) is nn.Sequential
    assert type(times.timed["eager"]) is OptimizedModel, "as it will be called"
    assert found.compiles == report.compiled
    plans = [] if fastest == "given" else ["merged", "joined"]
    assert [row.plan for row in report.layers] == plans
    assert_same_function(found, model)


@pytest.mark.usefixtures("compiler")
def test_only_engines_that_were_asked_for_are_taken(times: Any) -> None:
    times.seconds["eager"] = 1.0
    for asked in ({"engines": {"compiled"}}, {"compile": True}, {"compile": False}):
        report = optimize_for_inference(small(), torch.randn(IMAGES), **asked).report  # type: ignore[arg-type]
        assert report.engine == ("eager" if asked == {"compile": False} else "compiled")


def test_the_given_model_needs_to_be_clearly_faster(times: Any) -> None:
    times.seconds |= {"given": 7.9, "eager": 8.0}
    model, images = small(), torch.randn(IMAGES)
    assert optimize_for_inference(model, images, compile=False).report.engine == "eager"
    times.seconds["given"] = 7.8
    report = optimize_for_inference(model, images, compile=False).report
    assert (report.engine, report.norms_folded, report.difference) == ("given", 0, 0.0)
    report = optimize_for_inference(model, images, compile=False, dtype=torch.bfloat16).report
    assert report.engine == "eager", "the one that computes in the dtype that was asked for"


def test_layer_plans_are_chosen_in_the_engine_that_runs_them(times: Any) -> None:
    layers = _choice.Layers(small(), torch.randn(IMAGES))
    for name, seconds in (("one", 1.0), ("other", 3.0)):
        times.seconds["merged"] = seconds
        engine = type(name, (_pytorch.Eager,), {"name": name})()
        ((_, rows),) = layers.choices(engine, Setting(torch.float32))
        assert rows[0].plan == ("merged" if name == "one" else "factored")


@pytest.mark.usefixtures("compiler")
@pytest.mark.parametrize(("factored", "tried"), [(2.0, False), (3.0, True)])
def test_factored_layers_are_compiled_too_where_others_were_faster(factored, tried, times):
    times.seconds |= {"factored": factored, "merged": 2.0}
    times.seconds["compiled factored"] = 1.0
    report = optimize_for_inference(small(), torch.randn(IMAGES), compile=True).report
    assert ("compiled factored" in times.asked) is tried
    assert report.seconds == (1.0 if tried else 7.0)
    assert {row.plan for row in report.layers} == {"factored"}


# --- torch.compile --------------------------------------------------------------------------------


@pytest.mark.slow
def test_compiled_for_the_example_and_eager_for_the_rest() -> None:
    model = small()
    found = optimize_for_inference(model, torch.randn(IMAGES), compile=True)
    assert found.compiles or found.report.lost
    assert_same_function(found, model)
    with torch.inference_mode():
        assert_same_function(found, model)
    assert_same_function(copy.deepcopy(found), model)


@pytest.mark.slow
def test_more_networks_than_torch_compile_takes_by_itself() -> None:
    from torch._dynamo import config

    images = torch.randn(1, 3, 4, 4)
    with config.patch(recompile_limit=1, fail_on_recompile_limit_hit=True):
        for layer in (nn.ReLU(), nn.Tanh(), nn.Sigmoid()):
            network = optimize_for_inference(layer, images, compile=True)
            assert network.compiles or network.report.lost
            assert "limit" not in network.report.lost
            torch.testing.assert_close(network(images), layer(images))


def fails(network: nn.Module, example: Tensor) -> nn.Module:
    raise RuntimeError("No working C++ compiler found\nmuch more")


def wrong(network: nn.Module, example: Tensor) -> Any:
    return lambda images: network(images) * 1.0005


@pytest.mark.parametrize(
    ("compiled_for", "lost"),
    [
        (fails, "compiled: RuntimeError: No working C++ compiler found"),
        (wrong, "compiled: its outputs differed by 5.0e-04 of the largest"),
    ],
)
def test_where_compiling_fails_it_says_what_is_lost(compiled_for, lost, monkeypatch):
    monkeypatch.setattr(_pytorch, "compiled_for", compiled_for)
    model = small()
    found = optimize_for_inference(model, torch.randn(IMAGES), engines=BOTH)
    assert (found.compiles, found.report.engine, found.report.lost) == (False, "eager", lost)
    assert found.report.summary.endswith(lost)
    assert_same_function(found, model)


def test_a_copy_is_compiled_in_its_first_call(compiler: list[torch.Size]) -> None:
    found = optimize_for_inference(small(), torch.randn(IMAGES), compile=True)
    twin, images = copy.deepcopy(found), torch.randn(IMAGES)
    compiler.clear()
    found(images)
    assert compiler == []
    for given in (images, images, images[:1]):
        assert_equal(twin(given), found(given))
    assert compiler == [images.shape]


@pytest.mark.usefixtures("compiler")
def test_a_copy_does_without_a_compiler(monkeypatch: Patch) -> None:
    model, images = small(), torch.randn(IMAGES)
    found = optimize_for_inference(model, images, compile=True)
    monkeypatch.setattr(_pytorch, "compiled_for", fails)
    twin = copy.deepcopy(found)
    with pytest.warns(UserWarning, match="compiled does not compute inputs of 2x3x20x20 here, PyT"):
        assert_equal(twin(images), in_eval_mode(model, images))
    assert_equal(twin(images), in_eval_mode(model, images))


# --- ONNX Runtime and OpenVINO --------------------------------------------------------------------

MODELS: dict[str, Callable[[], nn.Module]] = {
    "small": small,
    "several": Several,
    "reflecting": lambda: nn.Sequential(BSConvU(3, 4, 3, padding=1, padding_mode="reflect")),
}


@pytest.fixture(params=ONNX_ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    pytest.importorskip(request.param)
    return request.param


@pytest.fixture(scope="module", params=[(e, m) for e in ONNX_ENGINES for m in MODELS])
def pair(request: pytest.FixtureRequest) -> tuple[OptimizedModel, nn.Module]:
    """A model in one of them, set up once; and the model."""
    engine, name = request.param
    pytest.importorskip(engine)
    torch.manual_seed(0)
    model = trained(MODELS[name]())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_optimize, "EVEN", 1e6)
        return optimize_for_inference(model, torch.randn(IMAGES), engines=engine), model


def assert_same(found: Any, expected: Any) -> None:
    leaves, structure = pytree.tree_flatten(found)
    others, other_structure = pytree.tree_flatten(expected)
    assert structure == other_structure
    for one, other in zip(leaves, others, strict=True):
        if isinstance(one, Tensor) and one.is_floating_point():
            assert_equal(one, other, 1e-3 if one.dtype == torch.float16 else 1e-4)
        else:
            assert str(one) == str(other)


def first_tensor(output: Any) -> Tensor:
    return output if isinstance(output, Tensor) else output["out"]


def test_engines_compute_the_same_at_any_size(pair: tuple[OptimizedModel, nn.Module]) -> None:
    found, model = pair
    assert found.report.engine in ONNX_ENGINES
    assert found.runner is not None
    for size in (IMAGES, (1, 3, 20, 20), (5, 3, 33, 26)):
        for images in torch.randn(3, *size):  # the first of a size is PyTorch's
            expected = in_eval_mode(model, images)
            assert_same(found(images), expected)
        assert_same(found.runner(images), expected)
        assert found._proven[images.shape, images.dtype, images.device]
    found(torch.randn(4, 3, 21, 22))
    assert not copy.deepcopy(found)._is_like_proven(images.shape)
    with pytest.MonkeyPatch.context() as patch:  # after three sizes, the engine is trusted
        patch.setattr(found.network, "forward", None)
        images = torch.randn(7, 3, 41, 34)
        assert_same(found(images), in_eval_mode(model, images))


def test_inputs_in_other_layouts_and_dtypes(pair: tuple[OptimizedModel, nn.Module]) -> None:
    found, model = pair
    images = torch.randn(20, 20, 3, 2).permute(3, 2, 0, 1)
    for given in (images, images.to(memory_format=torch.channels_last), images.requires_grad_()):
        computed = first_tensor(found(given))
        assert not computed.requires_grad
        assert_equal(computed, first_tensor(in_eval_mode(model, given)))
    before = computed.clone()  # outputs are the caller's own
    for _ in range(2):
        first_tensor(found(torch.randn(IMAGES))).zero_()
        assert torch.equal(computed, before)
        output = first_tensor(found(images.detach().double()))
        assert output.dtype == torch.float64
        assert_equal(output.float(), first_tensor(in_eval_mode(model, images)))


def test_engines_run_in_threads(pair: tuple[OptimizedModel, nn.Module]) -> None:
    found, model = pair
    batches = [torch.randn(IMAGES) for _ in range(8)]
    with ThreadPoolExecutor(len(batches)) as threads:
        for result, images in zip(threads.map(found, batches), batches, strict=True):
            assert_same(result, in_eval_mode(model, images))


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_copies_set_the_engine_up_again(copied, pair):
    found, model = pair
    twin, images = copied(found), torch.randn(IMAGES)
    for _ in range(2):
        assert_same(twin(images), in_eval_mode(model, images))
    assert (twin.runner is not None, str(twin.report)) == (True, str(found.report))
    assert twin.runner.content == found.runner.content


def test_threads_may_take_pieces_of_a_batch(engine: str) -> None:
    model = trained(small())
    runner: Any = ENGINES[engine].build(model, torch.randn(IMAGES), Setting(torch.float32))
    for runner.piece in (0, 1, 2, 4):
        for count in (1, 3, 7):
            images = torch.randn(count, *IMAGES[1:])
            assert_same(copy.deepcopy(runner)(images), in_eval_mode(model, images))
    with pytest.raises(KeyboardInterrupt):  # not a crash on a stack that an engine set and freed
        signal.raise_signal(signal.SIGINT)


@pytest.mark.slow
@pytest.mark.parametrize(
    "forward",
    [
        lambda net, images: net.norm1(net.conv1(images - images.mean(0))),
        lambda net, images: (net.norm1(net.conv1(images)), net.norm1.bias),
    ],
)
def test_a_batch_stays_whole_where_images_depend_on_each_other(forward: Any, engine: str) -> None:
    alike = torch.ones(8, *IMAGES[1:])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_onnx_engines, "medians", lambda taken: dict.fromkeys(taken, 0.0) | {0: 1.0})
        for model, is_divided in ((Graph(forward), False), (small(), True)):
            runner: Any = ENGINES[engine].build(trained(model), alike, Setting(torch.float32))
            assert bool(runner.piece) == is_divided
            assert {alone for _, _, alone, _ in runner._live} == {is_divided}, "others are freed"


@pytest.mark.slow
@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_workers_of_a_data_loader(engine: str, start: str) -> None:
    model, images = small(), torch.randn(4, *IMAGES)
    found = optimize_for_inference(model, images[0], engines=engine)
    work: dict[str, Any] = {"num_workers": 1, "multiprocessing_context": start, "timeout": 120}
    loader = DataLoader(images, 1, collate_fn=partial(first_output, found), **work)
    for one, batch in zip(loader, images, strict=True):
        assert_equal(one, in_eval_mode(model, batch))


def first_output(model: nn.Module, batch: list[Tensor]) -> Tensor:
    return model(batch[0])


def test_moved_or_loaded_it_goes_on_in_pytorch(pair: tuple[OptimizedModel, nn.Module]) -> None:
    found, model = pair
    images = torch.randn(IMAGES)
    for move in (lambda twin: twin.to("cpu"), lambda twin: twin.float(), lambda twin: twin.eval()):
        assert move(copy.deepcopy(found)).runner is not None
    twin = copy.deepcopy(found)
    with pytest.warns(UserWarning, match=r"moved to torch.float64 on cpu, so the constants of o"):
        twin.double()
    assert first_tensor(twin(images.double())).dtype == torch.float64
    assert_equal(first_tensor(twin(images)), first_tensor(in_eval_mode(model, images)))


def by_value(net: Any, images: Tensor) -> Tensor:
    normed = net.norm1(net.conv1(images))
    return normed * 2 if normed.mean() > 1e6 else normed


@pytest.mark.slow
def test_sizes_that_the_engine_gets_wrong_are_left_to_pytorch() -> None:
    pytest.importorskip("onnxruntime")
    model = trained(Graph(lambda net, images: net.conv1(images) * (1 + (len(images[0, 0]) > 30))))
    pools = Graph(lambda net, images: nn.functional.adaptive_max_pool2d(net.conv1(images), 4))
    assert not network_to_onnx(pools, torch.randn(IMAGES))[2]  # windows of the example's size
    named = nn.Sequential(OrderedDict(adaptive=nn.Conv2d(3, 4, 3)))
    assert network_to_onnx(named, torch.randn(IMAGES))[2]
    found = optimize_for_inference(model, torch.randn(IMAGES), engines="onnxruntime")
    for side in range(12, 16):
        found(torch.randn(2, 3, side, side))
    large = torch.randn(2, 3, 40, 40)
    with pytest.warns(UserWarning, match="onnxruntime does not compute inputs of 2x3x40x40 here"):
        found(large)
    for images in (large, large[..., :20, :20]):
        assert_equal(found(images), in_eval_mode(model, images))


def test_a_model_that_an_engine_cannot_take_falls_back() -> None:
    pytest.importorskip("onnxruntime")
    model = trained(Graph(by_value))
    found = optimize_for_inference(model, torch.randn(IMAGES), engines="onnxruntime")
    assert found.report.engine in ("eager", "given")
    assert found.report.lost.startswith("onnxruntime: ")
    assert "\n" not in found.report.lost
    assert_same_function(found, model)


@pytest.mark.parametrize("make", [BSConvU, BSConvS, BSConvCP])
def test_layer_plans_run_in_the_engine(make: Callable[..., Any], engine: str) -> None:
    options = {"blueprints": 5} if make is BSConvCP else {}
    layer = trained(make(8, 6, 3, padding=1, stride=2, **options)).eval()
    plans = layer_plans(layer)
    plans |= padded_plans(plans, (8, 16))
    images = torch.randn(2, 8, 9, 9)
    for name, plan in plans.items():
        assert_equal(plan(images), layer(images))
        call = ENGINES[engine].build_layer(plan, images, Setting(torch.float32))
        assert call is not None, name
        assert_equal(call()[0], layer(images))
    reflecting = nn.Conv2d(3, 3, 3, padding=1, padding_mode="reflect")
    assert chain_to_onnx(reflecting, (1, 3, 8, 8)) is None


# --- what is missing ------------------------------------------------------------------------------


@pytest.mark.usefixtures("compiler")
def test_engines_that_are_not_installed_are_named(monkeypatch: Patch) -> None:
    found_by, gone = importlib.util.find_spec, {"onnxruntime", "openvino", "onnxscript"}
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name in gone else found_by(name)
    )
    report = optimize_for_inference(small(), torch.randn(IMAGES)).report
    openvino = "needs openvino, onnxscript: pip install 'bsconv[openvino]'"
    onnx = "needs onnxruntime, onnxscript: pip install 'bsconv[onnx]'"
    assert report.lost == f"onnxruntime: {onnx}; openvino: {openvino}"
    assert [row.engine for row in report.engines] == ["given", *ENGINES]
    with raises_exactly(
        f"engines needs those that are installed, got 'openvino', which {openvino}"
    ):
        optimize_for_inference(small(), torch.randn(IMAGES), engines=["eager", "openvino"])


@pytest.mark.parametrize(
    ("engine", "dtype", "reason"),
    [
        ("onnxruntime", torch.bfloat16, "computes in float32, not in bfloat16"),
        ("openvino", torch.float64, "computes in float32 and bfloat16, not in float64"),
        ("openvino", torch.bfloat16, ""),
        ("eager", torch.float16, ""),
    ],
)
def test_engines_say_what_they_compute_in(engine: str, dtype: torch.dtype, reason: str) -> None:
    if missing := ENGINES[engine].missing():
        pytest.skip(missing)
    assert ENGINES[engine].why_not(torch.device("cpu"), dtype) == reason
    if engine != "eager":
        elsewhere = "does not run on meta as installed here"
        assert ENGINES[engine].why_not(torch.device("meta"), torch.float32) == elsewhere


@pytest.mark.parametrize("given", ["tensorrt", ["eager", "tensorrt"], [["eager"]], [], 3])
def test_unknown_engines_are_refused(given: Any) -> None:
    known = "'eager', 'compiled', 'onnxruntime', 'openvino'"
    with raises_exactly(f"engines needs to be 'auto' or some of {known}, got {given!r}"):
        optimize_for_inference(small(), torch.randn(IMAGES), engines=given)
    with raises_exactly("compile needs to be 'auto' where engines is given, got False"):
        optimize_for_inference(small(), torch.randn(IMAGES), engines="eager", compile=False)


def test_weights_are_loaded_by_whichever_module(pair: tuple[OptimizedModel, nn.Module]) -> None:
    images = torch.randn(IMAGES)
    arounds = [lambda twin: twin, nn.Sequential, lambda twin: twin.network]
    for around, assign in zip(arounds, [False, True, True], strict=True):
        twin = copy.deepcopy(pair[0])
        module = around(twin)
        state = {name: torch.zeros_like(value) for name, value in module.state_dict().items()}
        module.load_state_dict(state, assign=assign)
        with pytest.warns(UserWarning, match="weights were written or exchanged, so the constants"):
            assert not first_tensor(twin(images)).any()


@pytest.mark.usefixtures("compiler")
def test_buffers_that_are_written_are_seen() -> None:
    found = optimize_for_inference(nn.BatchNorm2d(3), torch.randn(IMAGES), compile=True)
    next(found.buffers()).add_(1)
    with pytest.warns(UserWarning, match="weights were written or exchanged, so the constants"):
        found(torch.randn(IMAGES))
