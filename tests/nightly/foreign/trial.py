"""One model of another library: what the replacers do to it, and whether it works afterwards."""

from __future__ import annotations

import copy
import re
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bsconv.experiments.export import FORMATS, export_model, load_exported
from bsconv.pytorch import BSConvS, BSConvS_Replacer, BSConvU, BSConvU_Replacer, reg_loss
from bsconv.pytorch.plan import Plan
from bsconv.pytorch.regularization import OrthonormalConv2d
from bsconv.pytorch.replacers import Replacer

from .libraries import build, input_sizes

BATCH = 2
LARGE = 100_000_000  # parameters; beyond, shapes alone are computed, on the meta device
REPLACERS: dict[str, Callable[[], Replacer]] = {"U": BSConvU_Replacer, "S": BSConvS_Replacer}
KINDS = {
    r"1x1 is not among kernel_sizes": "of 1x1",
    r"\d+x\d+ is not among kernel_sizes": "of another size",
    r"grouped .*": "grouped",
    r"BSConv\w would have more parameters .*": "would grow",
    r"(\w+) is a subclass of Conv2d.*": r"\1",
    r"(\w+) is (?:no|not a) Conv2d": r"\1",
    r"shares a parameter with .*": "shared weight",
    r"is also in .*": "held by a plain attribute",
    r"has state .*": "other state",
    r"its forward was exchanged.*": "patched",
}


class Unusable(Exception):
    """The library's own model does not run here, and why."""


def trial(library: str, name: str, export: str = "", *, by_shapes: bool = False) -> dict[str, Any]:
    """What came of one model; ``export`` names the format that its BSConv-S form is written in.

    Large models, and others on demand, are computed by their shapes alone, on the meta device.

    Raises AssertionError, or whatever the model raises, where the library's model works and its
    BSConv form does not do what was planned.
    """
    torch.manual_seed(0)
    model = sketch(library, name)
    parameters = sum(p.numel() for p in model.parameters())
    device = "meta" if by_shapes or parameters > LARGE else "cpu"
    plans = {variant: make().plan(model) for variant, make in REPLACERS.items()}
    found: dict[str, Any] = {
        "library": library,
        "model": name,
        "convolutions": len(plans["U"].layers),
        "kept": kept(plans["U"]),
        "replaced": {variant: len(plan.replaced) for variant, plan in plans.items()},
        "parameters": {
            "dense": parameters,
            **{variant: plan.parameters_after for variant, plan in plans.items()},
        },
    }
    if not any(found["replaced"].values()):
        return {**found, "outcome": "nothing to replace"}
    if device == "meta":
        model = model.to("meta")
    elif next(model.parameters()).is_meta:
        model = build(library, name)
    try:
        images, dense = outcomes_of_dense(library, name, model, device)
    except Unusable as reason:
        return {**found, "outcome": f"not run: {reason}"}
    found |= {"input": list(images.shape[1:]), "device": device}
    for variant, make in REPLACERS.items():
        twin = duplicate(library, name, model)
        replacer = make()
        assert replacer.plan(twin) == plans[variant], "the plan depends on the device"
        replacer.apply(twin)
        assert replacer.report == plans[variant]
        check_layers(twin, plans[variant])
        check_penalty(twin, variant)
        for training, expected in dense.items():
            actual = outcome(twin, images, plans[variant], training)
            assert actual == expected, f"{actual} instead of {expected}"
        check_gradients(twin)
        if export and variant == "S" and device == "cpu":
            found["exported"] = check_export(model, twin, images, export)
    return {**found, "outcome": "works"}


def sketch(library: str, name: str) -> nn.Module:
    """The model without numbers, built in no time; with them where it can't be without."""
    try:
        with torch.device("meta"):
            return build(library, name)
    except NotImplementedError:
        return build(library, name)


def kept(plan: Plan) -> dict[str, int]:
    """How many layers stay for which reason."""
    kinds: Counter[str] = Counter()
    for layer in plan.kept:
        reason = layer.description.removeprefix("kept: ")
        for pattern, kind in KINDS.items():
            if match := re.fullmatch(pattern, reason):
                reason = match.expand(kind)
                break
        kinds[reason] += 1
    return dict(kinds)


# ------------------------------------------------------------------------------ a model at work


def outcomes_of_dense(
    library: str, name: str, model: nn.Module, device: str
) -> tuple[Tensor, dict[bool, Any]]:
    """Small images that the model takes, and what it does with them in eval and in train mode."""
    reason = ""
    plan = BSConvU_Replacer().plan(model)
    for size in input_sizes(library, name, model):
        images = torch.rand(BATCH, *size, device=device)
        try:
            return images, {mode: outcome(model, images, plan, mode) for mode in (False, True)}
        except Exception as error:
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
    raise Unusable(reason)


def outcome(model: nn.Module, images: Tensor, plan: Plan, training: bool) -> dict[str, Any]:
    """Shapes and finiteness of what comes out, and which of the planned layers learn from it."""
    torch.manual_seed(1)  # layers that are dropped at random are the same ones
    model.train(training)
    model.zero_grad()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # theirs
        with torch.set_grad_enabled(training):
            outputs = list(tensors(model(images)))
        if training:
            torch.autograd.backward([out.float().square().mean() for out in outputs])
    return {
        "shapes": [tuple(out.shape) for out in outputs],
        "finite": all(out.is_meta or bool(out.isfinite().all()) for out in outputs),
        "learning": {
            layer.name
            for layer in plan.layers
            if any(p.grad is not None for p in model.get_submodule(layer.name).parameters())
        },
    }


def tensors(outputs: Any) -> Iterator[Tensor]:
    """All tensors of floats in what a model returns."""
    if isinstance(outputs, Tensor):
        if outputs.is_floating_point():
            yield outputs
    elif isinstance(outputs, dict):
        for value in outputs.values():
            yield from tensors(value)
    elif isinstance(outputs, (list, tuple)):
        for value in outputs:
            yield from tensors(value)


def duplicate(library: str, name: str, model: nn.Module) -> nn.Module:
    try:
        model.zero_grad()
        return copy.deepcopy(model)
    except RuntimeError:  # some hold tensors that PyTorch does not copy
        is_meta = next(model.parameters()).is_meta
        return sketch(library, name).to("meta") if is_meta else build(library, name)


# ---------------------------------------------------------------------------- what was promised


def check_layers(model: nn.Module, plan: Plan) -> None:
    for layer in plan.layers:
        for name in layer.names:
            is_blueprint = isinstance(model.get_submodule(name), (BSConvU, BSConvS))
            assert is_blueprint == layer.replaced, name
    count = sum(p.numel() for p in model.parameters())
    assert count == plan.parameters_after, f"{count} parameters, planned {plan.parameters_after}"


def check_penalty(model: nn.Module, variant: str) -> None:
    """Zero for BSConv-U; for BSConv-S finite, with gradients of the bases alone."""
    loss = reg_loss(model)
    if variant == "U":
        assert loss.is_meta or loss.item() == 0
        return
    bases = {id(m.pw1.weight) for m in model.modules() if isinstance(m, BSConvS)}
    bases |= {id(m.weight) for m in model.modules() if isinstance(m, OrthonormalConv2d)}
    parameters = [p for p in model.parameters() if p.requires_grad]
    gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
    reached = {id(p) for p, g in zip(parameters, gradients, strict=True) if g is not None}
    assert reached == bases
    assert loss.is_meta or bool(loss.isfinite())
    assert all(g.is_meta or g.isfinite().all() for g in gradients if g is not None)


def check_gradients(model: nn.Module) -> None:
    for layer in model.modules():
        if isinstance(layer, (BSConvU, BSConvS)):
            for parameter in layer.parameters():
                gradient = parameter.grad
                assert gradient is None or gradient.is_meta or gradient.isfinite().all()


def check_export(dense: nn.Module, model: nn.Module, images: Tensor, format: str) -> str:
    """The format, where the file computes what the model does, or why the dense model has none."""
    model.eval()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"model{FORMATS[format]}"
        try:
            export_model(model, images, path, format=format)
        except ValueError as error:
            try:
                export_model(dense, images, path, format=format)
            except ValueError as reason:
                return f"the dense model has no {format} either: {str(reason)[:120]}"
            raise AssertionError(f"only the dense model can be exported: {error}") from error
        with torch.no_grad():
            expected = next(tensors(model(images)))
        torch.testing.assert_close(load_exported(path)(images), expected, rtol=1e-3, atol=1e-3)
    return format
