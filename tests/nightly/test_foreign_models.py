"""Replacers on some hundreds of models of torchvision, pytorchcv and timm."""

import contextlib
import copy
import importlib
import io
import re
import signal
from collections import Counter
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bsconv.experiments import model_sources
from bsconv.experiments.export import FORMATS, export_model, load_exported
from bsconv.pytorch import BSConvS_Replacer, BSConvU_Replacer
from bsconv.pytorch.modules import BLUEPRINT_LAYERS
from bsconv.pytorch.plan import Plan
from helpers.paths import ROOT
from helpers.reliability import Section
from helpers.surgery_promises import (
    assert_gradients_are_finite,
    assert_the_penalty_is_right,
    floats_in,
    run,
)

RULES = {
    "torchvision": "every classification model",
    "pytorchcv": "the first two classification models of each of its families, as it lists them",
    "timm": "of each of its modules the two models with the fewest parameters",
}
TIMM = Path(__file__).with_name("timm.txt")  # counting parameters of all its models takes minutes
PAGE = ROOT / "docs" / "foreign_models.md"
SECONDS = 60  # of computing, for one model
LARGE = 100_000_000  # parameters; beyond, shapes alone are computed, on the meta device
EVERY = 20  # of the models is exported too, in one format and the other by turns
KINDS = {  # of reasons why a layer is kept
    r"1(x1)+ is not among kernel_sizes": "of 1x1",
    r"\d+(x\d+)+ is not among kernel_sizes": "of another size",
    r"grouped .*": "grouped",
    r"BSConv\w would have more parameters .*": "would grow",
    r"(\w+) is (?:not a|a subclass of) Conv2d.*": r"\1",
}


class TooSlow(BaseException):  # not to be taken for an error of the model
    """The time for one model is over."""


# --- which models, and how they run ---------------------------------------------------------------


def names(library: str) -> list[str]:
    """The models that are tried, by the rule for this library."""
    if library == "torchvision":
        return model_sources._torchvision_names()
    if library == "timm":
        return TIMM.read_text(encoding="utf-8").split()
    provider = importlib.import_module("pytorchcv.model_provider")
    families: dict[str, list[str]] = {}
    for name in model_sources._pytorchcv_names():
        families.setdefault(getattr(provider, name).__module__, []).append(name)
    return [name for family in families.values() for name in family[:2]]


def build(library: str, name: str) -> nn.Module:
    """The model as its library makes it, with random weights."""
    with contextlib.redirect_stdout(io.StringIO()):
        if library == "pytorchcv":
            provider = importlib.import_module("pytorchcv.model_provider")
            return getattr(provider, name)(pretrained=False)
        if library == "timm":
            return importlib.import_module("timm").create_model(name, pretrained=False)
        return importlib.import_module("torchvision").models.get_model(name, weights=None)


def input_sizes(library: str, name: str, model: nn.Module) -> list[tuple[int, int, int]]:
    """Sizes of an image to be tried in turn: a small one, the model's own."""
    if library == "torchvision":
        weights = importlib.import_module("torchvision").models.get_model_weights(name).DEFAULT
        own = (3, *weights.transforms().crop_size * 2)
    elif library == "pytorchcv":
        own = (3, *model.in_size)
    else:
        own = model.pretrained_cfg["input_size"]
        if model.pretrained_cfg.get("fixed_input_size"):
            return [own]
    return [(own[0], 64, 64), own] if own[1] > 64 else [own]


def trial(library: str, name: str, export: str = "", by_shapes: bool = False) -> dict[str, Any]:
    """What came of one model; ``export`` names the format that its BSConv-S form is written in.

    Whatever is raised here is a fault: the library's model works, and its BSConv form does not.
    """
    torch.manual_seed(0)
    model = build(library, name)
    dense = sum(p.numel() for p in model.parameters())
    if by_shapes or dense > LARGE:
        model = model.to("meta")
    replacers = (BSConvU_Replacer(), BSConvS_Replacer())
    plans = [replacer.plan(model) for replacer in replacers]
    found: dict[str, Any] = {
        "convolutions": len(plans[0].layers),
        "replaced": len(plans[0].replaced),
        "kept": kept(plans[0]),
        "parameters": [dense, *(plan.parameters_after for plan in plans)],
    }
    if not any(plan.replaced for plan in plans):
        return {**found, "outcome": "nothing to replace"}
    images, expected = dense_outcomes(library, name, model, plans[0])
    if images is None:
        return {**found, "outcome": f"not run: {expected}"}
    outcome = "works, by shapes" if images.is_meta else "works"
    for replacer, plan in zip(replacers, plans, strict=True):
        twin = replacer.apply(duplicate(library, name, model))
        assert replacer.report == plan
        check_replaced(twin, replacer, plan, images, expected)
    if export and not images.is_meta:
        outcome += f"; {check_export(model, twin, images, export)}"
    return {**found, "outcome": outcome}


def kept(plan: Plan) -> Counter[str]:
    """How many layers stay for which reason."""
    kinds: Counter[str] = Counter()
    for layer in plan.kept:
        reason = layer.description.removeprefix("kept: ")
        matches = ((re.fullmatch(pattern, reason), kind) for pattern, kind in KINDS.items())
        kinds[next((match.expand(kind) for match, kind in matches if match), reason)] += 1
    return kinds


def dense_outcomes(library: str, name: str, model: nn.Module, plan: Plan) -> tuple[Any, Any]:
    """Images that the model takes with what it does in eval and train mode; None with an error."""
    reason = ""
    for size in input_sizes(library, name, model):
        images = torch.rand(2, *size, device=next(model.parameters()).device)
        try:
            layers = [layer.name for layer in plan.layers]
            return images, {mode: run(model, layers, images, mode) for mode in (False, True)}
        except Exception as error:
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
    return None, reason


def duplicate(library: str, name: str, model: nn.Module) -> nn.Module:
    try:
        model.zero_grad()
        return copy.deepcopy(model)
    except RuntimeError:  # some hold tensors that PyTorch does not copy
        return build(library, name).to(next(model.parameters()).device)


def check_replaced(
    model: nn.Module, replacer: Any, plan: Plan, images: Tensor, expected: dict[bool, Any]
) -> None:
    """That layers, penalty and what is ``expected`` in eval and train mode are right."""
    for layer in plan.layers:
        for name in layer.names:
            is_blueprint = isinstance(model.get_submodule(name), BLUEPRINT_LAYERS)
            assert is_blueprint == layer.replaced, name
    assert sum(p.numel() for p in model.parameters()) == plan.parameters_after
    assert_the_penalty_is_right(model, isinstance(replacer, BSConvS_Replacer))
    for training, dense_run in expected.items():
        assert run(model, [layer.name for layer in plan.layers], images, training) == dense_run
        assert_gradients_are_finite(model)


def check_export(dense: nn.Module, model: nn.Module, images: Tensor, format: str) -> str:
    """That the file computes what the model does, unless the dense model has no such file."""
    model.eval()
    path = Path("model" + FORMATS[format])
    try:
        export_model(model, images, path, format=format)
    except ValueError:
        with pytest.raises(ValueError, match=format):
            export_model(dense, images, path, format=format)
        return f"the dense model has no {format} either"
    with torch.no_grad():
        expected = next(floats_in(model(images)))
    torch.testing.assert_close(load_exported(path)(images), expected, rtol=1e-3, atol=1e-3)
    return f"as {format} too"


# --- all of them ----------------------------------------------------------------------------------


def attempt(library: str, name: str, export: str) -> dict[str, Any]:
    """What came of a model, by its shapes where it takes too long otherwise."""
    for by_shapes in (False, True):
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        try:
            return trial(library, name, export, by_shapes)
        except TooSlow:
            continue
        except Exception as error:
            return {"outcome": f"broken: {type(error).__name__}: {error}"}
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
    return {"outcome": f"not run: takes more than {SECONDS} seconds"}


@pytest.fixture
def in_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """In an empty folder, with a signal that ends what takes too long."""

    def stop(*_: object) -> None:
        raise TooSlow

    monkeypatch.chdir(tmp_path)
    former = signal.signal(signal.SIGPROF, stop)
    yield
    signal.signal(signal.SIGPROF, former)


@pytest.mark.nightly
@pytest.mark.filterwarnings("ignore")  # theirs
@pytest.mark.usefixtures("in_time")
@pytest.mark.parametrize("library", RULES)
def test_models_work_as_bsconv(library: str, section: Section, pytestconfig: Any) -> None:
    exports = {number: [*FORMATS][number // EVERY % 2] for number in range(0, 1000, EVERY)}
    found = {
        name: attempt(library, name, exports.get(number, ""))
        for number, name in enumerate(names(library))
    }
    assert {name: one for name, one in found.items() if one["outcome"].startswith("broken")} == {}
    if pytestconfig.getoption("reliability") is not None:
        write_table(library, found)
    outcomes = Counter(re.split("[,;:]", one["outcome"])[0] for one in found.values())
    read = [one for one in found.values() if "kept" in one]
    reasons = sum((one["kept"] for one in read), Counter[str]())
    section(
        "Models of other libraries",
        f"- {library} {metadata.version(library)}, {RULES[library]}: {outcomes['works']} work,"
        f" {outcomes['nothing to replace']} have nothing to replace, {outcomes['not run']} do not"
        f" run here themselves. Of {sum(one['convolutions'] for one in read):,} convolutions"
        f" {sum(one['replaced'] for one in read):,} are replaced; kept are {counts(reasons)}.",
    )


def counts(found: Counter[str]) -> str:
    return ", ".join(f"{count:,} {what}" for what, count in found.most_common())


def write_table(library: str, found: dict[str, dict[str, Any]]) -> None:
    """Replace the table of this library in docs/foreign_models.md."""
    rows = ["| model | convolutions | replaced | kept | parameters: dense, U, S | outcome |"]
    rows += ["| --- | ---: | ---: | --- | --- | --- |"]
    for name, one in found.items():
        cells = [f"`{name}`", *["-"] * 4, one["outcome"].replace("|", "/")]
        if "kept" in one:
            millions = ", ".join(f"{count / 1e6:.2f}" for count in one["parameters"])
            cells[1:3] = [str(one["convolutions"]), str(one["replaced"])]
            cells[3:5] = [counts(one["kept"]) or "none", f"{millions} M"]
        rows.append(f"| {' | '.join(cells)} |")
    new = f"## {library}\n\n{len(found)} models: {RULES[library]}.\n\n" + "\n".join(rows) + "\n"
    page = PAGE.read_text(encoding="utf-8")
    page = re.sub(rf"^## {library}\n[^#]*", lambda _: f"{new}\n", page, flags=re.MULTILINE)
    PAGE.write_text(page.rstrip("\n") + "\n", encoding="utf-8")
