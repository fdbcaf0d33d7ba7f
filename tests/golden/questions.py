"""What 0.4.0 lacks, as questions that both packages answer; the rows of the table for migrants."""

import pickle
from collections.abc import Callable

import torch
from torch import nn

import bsconv.pytorch
from bsconv.pytorch import BSConvS_Replacer, BSConvU_Replacer, ModelProfiler, get_model

QUESTIONS: dict[str, Callable[[], object]] = {}


def questions() -> dict[str, bool]:
    """The answers; no where the package raises."""
    return {text: _answer(check) for text, check in QUESTIONS.items()}


def _answer(check: Callable[[], object]) -> bool:
    try:
        return bool(check())
    except Exception:
        return False


def question(text: str) -> Callable[[Callable[[], object]], None]:
    return lambda check: QUESTIONS.__setitem__(text, check)


def conv(channels: int = 8, kind: type[nn.Conv2d] = nn.Conv2d) -> nn.Conv2d:
    return kind(channels, 8, 3, padding=1)


def replaced(*layers: nn.Module) -> nn.Sequential:
    return BSConvU_Replacer().apply(nn.Sequential(*layers))


@question("a replaced layer keeps device and dtype")
def _() -> object:
    kept = [
        {(p.device.type, p.dtype) for p in replaced(conv().to(to)).parameters()}
        for to in (torch.float64, "meta")
    ]
    return kept == [{("cpu", torch.float64)}, {("meta", torch.float32)}]


@question("... `requires_grad`, `eval()` and hooks")
def _() -> object:
    calls = []
    hooked = conv().requires_grad_(False).eval()
    hooked.register_forward_hook(lambda *_: calls.append(1))
    model = replaced(hooked)
    model(torch.rand(1, 8, 4, 4))
    frozen = not any(p.requires_grad for p in model.parameters())
    return frozen and calls and not model[0].training


@question("a convolution used twice stays one")
def _() -> object:
    shared = conv()
    model = replaced(shared, nn.ReLU(), shared)
    return type(model[0]) is not nn.Conv2d and model[0] is model[2]


@question("subclasses of `Conv2d` are left alone")
def _() -> object:
    class Own(nn.Conv2d):
        pass

    return type(replaced(conv(kind=Own), conv())[0]) is Own


@question("a layer that would grow is left dense")
def _() -> object:
    before = sum(p.numel() for p in conv(1).parameters())
    return sum(p.numel() for p in replaced(conv(1), conv())[0].parameters()) <= before


@question("`plan()`: what would happen, and why")
def _() -> object:
    return BSConvU_Replacer().plan(nn.Sequential(conv()))


@question('starts from trained weights (`init="project"`)')
def _() -> object:
    return BSConvU_Replacer(init="project").apply(nn.Sequential(conv()))


@question("`model.reg_loss` after pickling, and behind `DataParallel`")
def _() -> object:
    model = BSConvS_Replacer().apply(nn.Sequential(conv(16)))
    again = pickle.loads(pickle.dumps(model)).reg_loss(alpha=0.1)
    function = getattr(bsconv.pytorch, "reg_loss", None)
    return again > 0 and function and function(nn.DataParallel(model), alpha=0.1) > 0


@question("profiling leaves BatchNorm statistics alone")
def _() -> object:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8))
    before = model[1].running_mean.clone()
    ModelProfiler(model, (1, 3, 8, 8))
    return torch.equal(model[1].running_mean, before)


@question("MobileNets and EfficientNets of torchvision, pytorchcv and timm")
def _() -> object:
    import torchvision

    model = torchvision.models.mobilenet_v2()
    return bsconv.pytorch.modify_mobilenet(model).reg_loss(alpha=0.1) > 0


@question("trained weights of its own")
def _() -> object:
    return get_model("cifar_resnet20", num_classes=10, pretrained="cifar10")
