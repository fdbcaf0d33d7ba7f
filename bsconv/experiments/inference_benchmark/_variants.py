"""A network and what the replacers make of it, by the names that tables and figures show."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from fractions import Fraction

import torch
from torch import nn

from ...pytorch.modules import BLUEPRINT_LAYERS
from ..model_sources import build_model
from ..results.published import family_and_variant

VARIANTS = ("dense", "u", "s")


def build_variants(
    name: str,
    num_classes: int,
    variants: Sequence[str] = VARIANTS,
    *,
    p: float = 0.25,
    with_bn: bool = False,
) -> tuple[dict[str, nn.Module], list[str]]:
    """The networks to compare by what they are called, and a line on each that is left out.

    ``name`` is one for :func:`bsconv.experiments.model_sources.build_model`; ``p`` and ``with_bn``
    are those of the replacers. A BSConv network is measured alone. A variant that replaces nothing
    is left out; if no other remains, the dense network takes its place. Weights are random, and
    the same each time. Raises ValueError for variants other than "dense", "u" and "s", and for what
    ``build_model`` refuses.
    """
    for variant in variants:
        if variant not in VARIANTS:
            raise ValueError(f"variants need to be among {', '.join(VARIANTS)}, got {variant!r}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        own = family_and_variant(name)[1]
        if own != "dense":
            line = f"{name} is a BSConv network already and is measured alone"
            return {own: build_model(name, num_classes)}, [line]
        models: dict[str, nn.Module] = {}
        lines: list[str] = []
        for variant in dict.fromkeys(variants):
            label = _label(variant, p, with_bn)
            replaced = _replaced(name, num_classes, variant, p, with_bn)
            if replaced is None:
                lines.append(
                    f"{label} is left out: it replaces no convolution of {name}, see bsconv plan"
                )
            else:
                models[label] = replaced
        if not models:
            models["dense"] = build_model(name, num_classes)
    return models, lines


def _replaced(
    name: str, num_classes: int, variant: str, p: float, with_bn: bool
) -> nn.Module | None:
    """None where nothing was replaced."""
    if variant == "dense":
        return build_model(name, num_classes)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a line says that nothing is replaced
        model = build_model(name, num_classes, bsconv=variant, p=p, with_bn=with_bn)
    return model if any(isinstance(m, BLUEPRINT_LAYERS) for m in model.modules()) else None


def _label(variant: str, p: float, with_bn: bool) -> str:
    if variant == "dense":
        return variant
    parts = [f"BSConv-{variant.upper()}"]
    if variant == "s":
        parts.append(f"p = {Fraction(p).limit_denominator(1000)}")
    if with_bn:
        parts.append("with BatchNorm")
    return ", ".join(parts)
