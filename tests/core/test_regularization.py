"""The penalty against NumPy, and its way through copies, wrappers, dtypes and devices."""

import copy
import pickle

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.utils import prune
from torchvision.models.feature_extraction import create_feature_extractor

from bsconv import pytorch as bp
from bsconv.pytorch.regularization import (
    OrthonormalBasis,
    OrthonormalConv2d,
    orthonormality_penalty,
)
from helpers.exact_errors import raises_exactly
from helpers.precision import numbers


class Net(bp.BSConvS_ModelRegLossMixin, nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = bp.BSConvU(3, 8, 3)
        self.second = bp.BSConvS(8, 16, 3)
        self.third = nn.Sequential(bp.BSConvS(16, 16, 3, p=0.5), nn.ReLU())


def numpy_penalty(basis: torch.Tensor) -> float:
    matrix = basis.detach().double().numpy()
    return float(np.linalg.norm(matrix @ matrix.T - np.eye(len(matrix)), "fro"))


def test_reg_loss_is_alpha_times_the_sum_over_layers():
    model = Net()
    expected = sum(numpy_penalty(layer.basis()) for layer in (model.second, model.third[0]))
    for alpha in (0.1, 0.7, 0):
        for loss in (model.reg_loss(alpha), model.reg_loss(alpha=alpha), bp.reg_loss(model, alpha)):
            torch.testing.assert_close(loss.item(), alpha * expected)
    torch.testing.assert_close(model.reg_loss().item(), 0.1 * expected)


def test_layers_of_any_shape_and_dtype_add_up_as_if_each_were_alone():
    shapes = [(16, 8), (16, 16), (16, 16), (8, 8), (16, 16)]
    layers = [bp.BSConvS(*channels, 3, p=0.5) for channels in shapes]
    layers += [bp.BSConvS1d(16, 8, 3), bp.BSConvS3d(16, 8, 3)]
    nn.init.dirac_(layers[1].pw1.weight)  # at its optimum
    layers[2].double()
    layers[3].bfloat16()
    weights = [layer.pw1.weight for layer in layers]
    alone = sum(orthonormality_penalty(layer.basis()) for layer in layers)
    together = bp.reg_loss(nn.ModuleList(layers), alpha=1)
    torch.testing.assert_close(together, alone)
    expected = torch.autograd.grad(alone, weights)
    torch.testing.assert_close(torch.autograd.grad(together, weights), expected)


def test_without_a_layer_to_penalise_it_is_a_zero_tensor_on_the_models_device():
    loss = bp.reg_loss(nn.Linear(2, 2, device="meta"))
    assert loss.device.type == "meta"
    loss = torch.ones((), requires_grad=True) + bp.reg_loss(nn.ReLU())
    assert loss == 1
    loss.backward()
    model = bp.BSConvU_Replacer().apply(nn.Sequential(nn.Conv2d(8, 8, 3), nn.ReLU()))
    assert copy.deepcopy(model).reg_loss(0.1) == model.reg_loss(alpha=0.1) == 0  # one loop for both


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_half_precision_does_not_blur_the_penalty(dtype):
    layer = bp.BSConvS(64, 8, 3, dtype=dtype)
    loss = bp.reg_loss(layer, alpha=1)
    assert loss.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    torch.testing.assert_close(loss.item(), numpy_penalty(layer.basis()), rtol=1e-6, atol=0)
    loss.backward()
    assert layer.pw1.weight.grad.dtype == dtype


def test_autocast_does_not_blur_the_penalty():
    layer = bp.BSConvS(64, 8, 3)
    with torch.autocast("cpu", torch.bfloat16):
        loss = bp.reg_loss(layer)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, bp.reg_loss(layer), rtol=0, atol=0)


def test_any_layer_with_a_basis_can_take_part():
    class Bottleneck(OrthonormalBasis):
        def __init__(self) -> None:
            super().__init__()
            self.project = nn.Conv2d(9, 4, 1)

        def basis(self):
            return self.project.weight.flatten(1)

    block = Bottleneck()
    torch.testing.assert_close(bp.reg_loss(block, 1).item(), numpy_penalty(block.basis()))
    with raises_exactly("OrthonormalBasis needs a method basis()", NotImplementedError):
        bp.reg_loss(OrthonormalBasis())


def test_an_orthonormal_conv_computes_what_a_conv_computes_and_is_penalised():
    plain = nn.Conv2d(12, 4, 1, stride=2, bias=False)
    penalised = OrthonormalConv2d(12, 4, 1, stride=2, bias=False)
    penalised.load_state_dict(plain.state_dict())
    images = torch.rand(2, 12, 5, 5)
    torch.testing.assert_close(penalised(images), plain(images), rtol=0, atol=0)
    expected = 0.1 * orthonormality_penalty(plain.weight.flatten(1))
    torch.testing.assert_close(bp.reg_loss(penalised), expected)
    assert float(bp.reg_loss(plain)) == 0
    assert "OrthonormalConv2d(12, 4, kernel_size=(1, 1)" in repr(penalised)


@pytest.mark.usefixtures("process_group")
def test_sharded_weights_count_as_whole_ones():
    model = nn.Sequential(bp.BSConvS(8, 8, 3), bp.BSConvS(8, 8, 3))
    expected = bp.reg_loss(model)
    expected.backward()
    gradients = [layer.pw1.weight.grad.clone() for layer in model]
    model.zero_grad()
    fully_shard(model, mesh=init_device_mesh("cpu", (1,)))
    loss = bp.reg_loss(model)
    loss.backward()
    found = [layer.pw1.weight.grad.full_tensor() for layer in model]
    assert type(loss) is torch.Tensor
    torch.testing.assert_close([loss, *found], [expected, *gradients])


@pytest.mark.parametrize(
    "offload",
    [
        lambda model: model[0].to("meta"),
        lambda model: setattr(model.to("meta")[0], "_hf_hook", None),  # as accelerate leaves it
    ],
)
def test_offloaded_weights_are_refused(offload):
    model = nn.Sequential(bp.BSConvS(8, 8, 3), bp.BSConvS(8, 8, 3))
    offload(model)
    with pytest.raises(ValueError, match=r"^reg_loss needs weights at hand, got a basis offloaded"):
        bp.reg_loss(model)


def test_layers_that_share_a_basis_count_once() -> None:
    first, second = bp.BSConvS(16, 16, 3), bp.BSConvS(16, 16, 3)
    second.pw1.weight = first.pw1.weight
    torch.testing.assert_close(bp.reg_loss(nn.Sequential(first, second)), bp.reg_loss(first))


def test_a_compiled_model_with_the_penalty_can_be_copied() -> None:
    compiled = torch.compile(nn.Sequential(nn.Conv2d(3, 16, 3)), backend="eager")
    model = bp.BSConvS_Replacer().apply(compiled)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        torch.testing.assert_close(twin.reg_loss(), model.reg_loss())


# ------------------------------------------------------------ gradients against finite differences


@pytest.mark.parametrize(
    "basis",
    [
        numbers("ordinary", 3, 5),
        100 * numbers("ordinary", 3, 5),
        torch.eye(3, 5),  # to the last bit orthonormal: both sides are zero
        torch.tensor([[0, -1.0, 0, 0], [0, 0, 0, 1.0]]),
        numbers("rank-deficient", 4, 6),
        torch.zeros(2, 4),
    ],
    ids=["ordinary", "large", "orthonormal", "permuted", "rank-deficient", "zero"],
)
def test_the_penalty(basis: Tensor) -> None:
    assert torch.autograd.gradcheck(orthonormality_penalty, basis.double().requires_grad_())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_gradient_of_the_penalty_is_bounded_where_only_rounding_is_left(dtype):
    """At orthonormal rows the penalty has a kink: its slope is that of rounding, but no larger."""
    rows = torch.linalg.qr(torch.randn(64, 16, dtype=dtype)).Q.T.contiguous().requires_grad_()
    penalty = orthonormality_penalty(rows)
    penalty.backward()
    assert penalty < 100 * torch.finfo(dtype).eps
    # || 2 E B || / || E || is at most twice the largest singular value, which is one
    assert rows.grad.norm() < 2 * (1 + 1e-3)


@pytest.mark.parametrize("with_bn", [False, True])
@pytest.mark.parametrize(
    "take_apart",
    [
        torch.fx.symbolic_trace,
        torch.jit.script,
        lambda model: nn.Sequential(create_feature_extractor(model, ["1.dw"]), nn.ReLU()),
        lambda model: torch.export.export(model, (torch.rand(2, 8, 9, 9),)).module(),
    ],
)
@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
def test_layers_that_others_took_apart_do_not_pass_for_none(take_apart, with_bn):
    other = bp.BSConvCP(8, 8, 3, padding=1, blueprints=4)
    model = nn.Sequential(other, bp.BSConvS(8, 16, 3, with_bn=with_bn), nn.ReLU()).eval()
    with pytest.raises(ValueError, match=r"^reg_loss needs BSConv-S layers, got parts of them"):
        bp.reg_loss(take_apart(model))
    others = nn.Sequential(bp.BSConvU(8, 8, 3), bp.BSConvCP(8, 8, 3, blueprints=4)).eval()
    if take_apart is torch.fx.symbolic_trace:
        assert bp.reg_loss(take_apart(others)) == 0


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
@pytest.mark.parametrize(
    "change", [nn.utils.weight_norm, lambda pw1: prune.l1_unstructured(pw1, "weight", 0.3)]
)
def test_weights_that_hooks_compute_are_those_of_now(change):
    layer = bp.BSConvS(16, 8, 3, p=0.5)
    change(layer.pw1)
    with torch.no_grad():
        layer(torch.rand(1, 16, 5, 5))
        parameters = dict(layer.pw1.named_parameters())
        source = parameters.get("weight_orig", parameters.get("weight_g"))
        source.mul_(3)
    found = bp.reg_loss(layer, alpha=1)
    found.backward()
    assert source.grad is not None
    layer(torch.rand(1, 16, 5, 5))
    torch.testing.assert_close(found.item(), numpy_penalty(layer.pw1.weight.flatten(1)))
