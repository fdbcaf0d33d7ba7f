"""BSConv layers as dense convolutions."""

from collections import OrderedDict

import pytest
import torch
import torchvision
from torch import nn

from bsconv.pytorch import BSConvS, BSConvS_Replacer, BSConvU, BSConvU_Replacer, collapse
from helpers.inference_cases import IMAGES, assert_equal, in_eval_mode, trained


def test_collapse_gives_dense_convolutions() -> None:
    model = torchvision.models.resnet18(num_classes=10)
    dense = model.state_dict()
    BSConvU_Replacer(exclude=("layer1", "layer3")).apply(model)
    model = trained(BSConvS_Replacer().apply(model))
    collapsed = collapse(model)
    assert not [module for module in collapsed.modules() if isinstance(module, (BSConvU, BSConvS))]
    assert [module for module in model.modules() if isinstance(module, BSConvU)]
    assert collapsed.training
    state = collapsed.state_dict()
    assert [(k, v.shape) for k, v in state.items()] == [(k, v.shape) for k, v in dense.items()]
    images = torch.randn(IMAGES)
    assert_equal(in_eval_mode(collapsed, images), in_eval_mode(model, images))


def test_collapse_names_what_stays_and_why() -> None:
    hooked = BSConvU(4, 4, 3)
    hooked.pw.register_forward_hook(lambda module, inputs, output: None)
    shared = BSConvU(4, 4, 1)
    layers = OrderedDict(
        padded=BSConvU(3, 4, 3, padding=1, with_bn=True), unpadded=BSConvU(4, 4, 3, with_bn=True),
        hooked=hooked, shared=shared, again=shared, last=BSConvU(4, 4, 1),
    )  # fmt: skip
    model = trained(nn.Sequential(layers)).eval()
    with pytest.warns(UserWarning, match="stay as they are") as caught:
        collapsed = collapse(model)
    assert [str(warning.message) for warning in caught] == [
        "layers that stay as they are: padded: BSConvU with BatchNorm before a zero-padded "
        "depthwise convolution equals no single convolution: its padding follows BatchNorm's "
        "shift, got padding=(1, 1); hooked: it is a subclass, or holds hooks or other modules than "
        "plain convolutions"
    ]
    kinds = [type(module).__name__ for module in collapsed]
    assert kinds == ["BSConvU", "Conv2d", "BSConvU", "Conv2d", "Conv2d", "Conv2d"]
    assert collapsed[3] is collapsed[4]
    images = torch.randn(IMAGES)
    assert_equal(collapsed(images), model(images))
    with pytest.warns(UserWarning, match="normalises by its batch"):
        collapse(model.train())


def test_collapse_of_a_root_and_of_nothing() -> None:
    root = BSConvU(3, 4, 3)
    collapsed = collapse(root)
    assert type(collapsed) is nn.Conv2d
    images = torch.randn(IMAGES)
    torch.testing.assert_close(collapsed(images), root(images))
    root.pw.register_forward_hook(lambda module, inputs, output: None)
    with pytest.warns(UserWarning, match=r"^layers that stay as they are: \(root\): it is a sub"):
        assert type(collapse(root)) is BSConvU
    with pytest.warns(UserWarning, match=r"^there is no BSConv layer$") as caught:
        collapse(nn.ReLU())
    assert caught[0].filename == __file__, "warnings point at the caller"
