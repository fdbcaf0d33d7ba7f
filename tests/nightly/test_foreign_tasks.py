"""Every use of networks that detect, segment or find features, where their library is installed."""

import copy
import importlib
from collections import Counter
from importlib import metadata
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import bsconv.pytorch as bp
from helpers.surgery_promises import floats_in, run
from nightly.test_foreign_models import check_replaced, counts, kept

NETWORKS = {
    "segmentation_models_pytorch": "Unet UnetPlusPlus MAnet Linknet FPN PSPNet DeepLabV3 UPerNet",
    "monai": "UNet AttentionUnet VNet HighResNet DenseNet121 SegResNet",
    "ultralytics": "yolov3-tiny yolov5n yolov8n yolov8n-seg yolov8n-pose yolov9t yolov10n yolo11n",
    "torchvision": "ssdlite320_mobilenet_v3_large fcos_resnet50_fpn fcn_resnet50"
    " fasterrcnn_mobilenet_v3_large_fpn deeplabv3_mobilenet_v3_large lraspp_mobilenet_v3_large",
    "timm": "resnet18 efficientnet_b0 hrnet_w18_small vgg11 dla34 cspresnet50 regnetx_002",
}
SHAPES = {"monai": (1, 64, 64), "torchvision": (3, 96, 96), "SegResNet": (1, 16, 16, 16)}


class Detector(nn.Module):
    """A detector of torchvision that takes a batch, and has a box to find while it learns."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Any:
        box = {"boxes": torch.tensor([[5.0, 5.0, 40.0, 50.0]]), "labels": torch.tensor([1])}
        return self.model([*images], [box] * len(images) if self.training else None)


def build(library: str, name: str) -> nn.Module:
    """The network as its library makes it, with random weights."""
    inner = {"monai": ".networks.nets", "ultralytics": ".nn.tasks", "torchvision": ".models"}
    module: Any = importlib.import_module(library + inner.get(library, ""))
    if library == "segmentation_models_pytorch":
        return getattr(module, name)("resnet18", encoder_weights=None)
    if library == "monai":
        sizes = {"channels": (16, 32, 64), "strides": (2, 2)} if name.lower()[-4:] == "unet" else {}
        dimensions = len(SHAPES.get(name, SHAPES[library])) - 1
        return getattr(module, name)(dimensions, in_channels=1, out_channels=2, **sizes)
    if library == "ultralytics":
        kinds = {"seg": module.SegmentationModel, "pose": module.PoseModel}
        kind = kinds.get(name.partition("-")[2], module.DetectionModel)
        return kind(f"{name}.yaml", verbose=False)
    if library == "timm":
        return module.create_model(name, pretrained=False, features_only=True)
    model = module.get_model(name, weights=None, weights_backbone=None)
    if name not in module.list_models(module=module.detection):
        return model
    if "ssd" not in name:
        model.transform.min_size, model.transform.max_size = (96,), 96
    return Detector(model)


def trial(library: str, name: str) -> dict[str, Any]:
    """What came of a network; whatever is raised here is a fault."""
    torch.manual_seed(0)
    model = build(library, name).eval()
    images = torch.rand(2, *SHAPES.get(name, SHAPES.get(library, (3, 64, 64))))
    is_fixed = not isinstance(model, Detector)  # how much that finds varies
    for replacer in (bp.BSConvU_Replacer, bp.BSConvS_Replacer):
        replace = replacer(dimensions=(2, 3))
        plan, twin = replace.plan(model), replace.apply(copy.deepcopy(model))
        names = [layer.name for layer in plan.layers]
        modes = (True, False) if is_fixed else (True,)
        expected = {training: run(model, names, images, training) for training in modes}
        check_replaced(twin, replace, plan, images, expected)
    model.eval().zero_grad()
    assert bp.ModelProfiler(model, example_inputs=images).total_mac_count > 0
    outcome, options = "", {"method": "batch_norm", "progress": False}
    uses: dict[str, Any] = {
        "projected": lambda: bp.project_pretrained(model, images, **options)[0],
        "optimised": lambda: bp.optimize_for_inference(model, images, engines="eager"),
        "collapsed": lambda: bp.collapse(twin),
    }
    for use, make in uses.items():
        try:
            made = make()
        except ValueError as error:
            outcome += f" (not {use}: {error})"
            continue
        wanted, found = ([*floats_in(each(images))] for each in (twin.eval(), made))
        assert not is_fixed or [one.shape for one in found] == [one.shape for one in wanted]
        if use == "collapsed" and is_fixed:
            torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-3)
    assert "\n" not in outcome
    return {"outcome": outcome, "kept": kept(plan), "convolutions": len(plan.layers)}


@pytest.mark.nightly
@pytest.mark.filterwarnings("ignore")  # theirs
@pytest.mark.parametrize("library", NETWORKS)
def test_every_use_of_networks_for_other_tasks(library: str, section, monkeypatch, tmp_path):
    monkeypatch.setenv("YOLO_CONFIG_DIR", str(tmp_path))
    pytest.importorskip(library)
    found = {name: trial(library, name) for name in NETWORKS[library].split()}
    reasons = sum((one["kept"] for one in found.values()), Counter[str]())
    convolutions = sum(one["convolutions"] for one in found.values())
    section(
        "Networks for other tasks",
        f"- {library} {metadata.version(library)}:"
        f" {', '.join(f'`{name}`' + one['outcome'] for name, one in found.items())}. Of"
        f" {convolutions:,} convolutions {convolutions - reasons.total():,} are replaced;"
        f" kept are {counts(reasons)}.",
    )
