"""A network and what the replacers make of it, by the names that tables and figures show."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import torch
from torch import nn

from ...pytorch.modules import BLUEPRINT_LAYERS
from ..model_sources import build_model
from ..results.published import family_and_variant, replaced_by
from ._report import DENSE


def build_variants(
    name: str,
    num_classes: int,
    variants: Sequence[str] = (DENSE, "u", "s"),
    *,
    p: float = 0.25,
    with_bn: bool = False,
) -> tuple[dict[str, nn.Module], list[str]]:
    """The networks to compare by what they are called, and a line on each that is left out.

    ``name`` is one for :func:`bsconv.experiments.model_sources.build_model`; ``p`` and ``with_bn``
    are those of the replacers. A BSConv network is measured alone. A variant that replaces nothing
    is left out; if no other remains, the dense network takes its place. Weights are random, and
    the same each time. Raises ValueError for what ``build_model`` refuses.
    """
    models: dict[str, nn.Module] = {}
    lines: list[str] = []
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        torch.manual_seed(0)
        warnings.simplefilter("ignore")  # a line says that nothing is replaced
        own = family_and_variant(name)[1]
        if own != DENSE:
            line = f"{name} is a BSConv network already and is measured alone"
            return {own: build_model(name, num_classes)}, [line]
        for variant in dict.fromkeys(variants):
            if variant == DENSE:
                models[DENSE] = build_model(name, num_classes)
                continue
            model = build_model(name, num_classes, bsconv=variant, p=p, with_bn=with_bn)
            label = replaced_by(variant, p, with_bn)
            if any(isinstance(module, BLUEPRINT_LAYERS) for module in model.modules()):
                models[label] = model
            else:
                lines.append(
                    f"{label} is left out: it replaces no convolution of {name}, see bsconv plan"
                )
        if not models:
            models[DENSE] = build_model(name, num_classes)
    return models, lines
