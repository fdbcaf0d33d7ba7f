"""Classification models of other libraries, without weights: which, and at which size they run."""

from __future__ import annotations

import contextlib
import importlib
import io
import textwrap
import warnings
from collections import defaultdict
from pathlib import Path

from torch import nn

from bsconv.experiments import model_sources

LIBRARIES = ("torchvision", "pytorchcv", "timm")
RULES = {
    "torchvision": "every classification model",
    "pytorchcv": "the first two classification models of each of its families, as it lists them",
    "timm": "of each of its modules the two models with the fewest parameters",
}
TIMM = Path(__file__).with_name("timm.txt")  # counting parameters of all its models takes minutes
SMALL = 64  # pixels a side; enough for most, and a tenth of the work


def names(library: str) -> list[str]:
    """The models that are tried, by the rule for this library."""
    if library == "torchvision":
        return model_sources._torchvision_names()
    if library == "pytorchcv":
        provider = importlib.import_module("pytorchcv.model_provider")
        families: defaultdict[str, list[str]] = defaultdict(list)
        for name in model_sources._pytorchcv_names():
            families[getattr(provider, name).__module__].append(name)
        return [name for family in families.values() for name in family[:2]]
    return TIMM.read_text(encoding="utf-8").split()


def build(library: str, name: str) -> nn.Module:
    """The model as its library makes it, with random weights."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")  # theirs
        if library == "torchvision":
            torchvision = importlib.import_module("torchvision")
            model: nn.Module = torchvision.models.get_model(name, weights=None)
        elif library == "pytorchcv":
            provider = importlib.import_module("pytorchcv.model_provider")
            model = getattr(provider, name)(pretrained=False)
        else:
            model = importlib.import_module("timm").create_model(name, pretrained=False)
    return model


def input_sizes(library: str, name: str, model: nn.Module) -> list[tuple[int, int, int]]:
    """Sizes of an image, (channels, height, width), to be tried in turn, the model's own last."""
    channels, height, width = 3, 224, 224
    fixed = False
    if library == "torchvision":
        torchvision = importlib.import_module("torchvision")
        crop = torchvision.models.get_model_weights(name).DEFAULT.transforms().crop_size[0]
        height = width = crop
    elif library == "pytorchcv":
        height, width = model.in_size  # type: ignore[misc]
    else:
        config = model.pretrained_cfg
        channels, height, width = config["input_size"]  # type: ignore[index]
        fixed = bool(config.get("fixed_input_size"))  # type: ignore[union-attr, operator]
    small = [] if fixed or height <= SMALL else [(channels, SMALL, SMALL)]
    return [*small, (channels, height, width)]


def smallest_of_timm() -> list[str]:
    """What ``timm.txt`` holds; building all models takes minutes."""
    import timm
    import torch

    modules: defaultdict[str, list[tuple[int, str]]] = defaultdict(list)
    with torch.device("meta"):
        for module in timm.list_modules():
            for name in timm.list_models(module=module):
                if not name.startswith("test_"):  # timm's own, for its tests
                    parameters = build("timm", name).parameters()
                    modules[module].append((sum(p.numel() for p in parameters), name))
    return [name for found in modules.values() for _, name in sorted(found)[:2]]


if __name__ == "__main__":
    TIMM.write_text("\n".join(textwrap.wrap(" ".join(smallest_of_timm()), 100)), encoding="utf-8")
