from typing import NamedTuple
import torch
from torch import Tensor, nn
from ..modules import _BlueprintConv2d
from .._tools.convs import conv_arguments, memory_format_of

class CPFactors(NamedTuple):
    mixing: Tensor
    weights: Tensor
    blueprints: Tensor

class BSConvCP(_BlueprintConv2d):
    _plans = ("factored",)
    def __init__(self, in_channels, out_channels, kernel_size, stride=1, padding=0, dilation=1, bias=True, padding_mode="zeros", blueprints=1, *, device=None, dtype=None):
        super().__init__()
        f = dict(device=device, dtype=dtype)
        self.pw1 = nn.Conv2d(in_channels, blueprints, 1, bias=False, **f)
        self.dw = nn.Conv2d(blueprints, blueprints, kernel_size, stride, padding, dilation, groups=blueprints, bias=False, padding_mode=padding_mode, **f)
        self.pw2 = nn.Conv2d(blueprints, out_channels, 1, bias=bias, **f)
    @classmethod
    def like(cls, conv, *, make=None, **options):
        new = cls(conv.in_channels, conv.out_channels, **conv_arguments(conv), **options).to(memory_format=memory_format_of(conv.weight))
        return new.train(conv.training)
    @property
    def out_channels(self): return self.pw2.out_channels

def _from_conv2d(cls, conv, *, blueprints):
    from ._shared_blueprints import fit_shared_from
    from ._moments import Moments
    layer = cls.like(conv, blueprints=blueprints)
    k = conv.weight.detach().double(); n = k[0].numel(); eye = torch.eye(n).double()
    f = fit_shared_from(Moments(eye, k.flatten(1).T, torch.zeros(n).double(), torch.zeros(len(k)).double()), k, blueprints, None, 4)
    with torch.no_grad():
        layer.pw2.weight.copy_(f.mixing[:, :, None, None]); layer.pw1.weight.copy_(f.weights[:, :, None, None]); layer.dw.weight.copy_(f.blueprints[:, None])
        if conv.bias is not None: layer.pw2.bias.copy_(conv.bias)
    return layer
BSConvCP.from_conv2d = classmethod(_from_conv2d)
