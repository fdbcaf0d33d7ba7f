"""The penalty of BSConv-S: alpha times the sum of ||W_B W_B^T - I||_F (paper, section 3)."""

import functools
from collections import defaultdict
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from ._tools.convs import check_shape, check_sizes
from ._tools.model_tree import check_module
from ._tools.numerics import without_autocast


class OrthonormalBasis(nn.Module):
    """A layer with a basis whose rows the training keeps close to orthonormal."""

    def basis(self) -> Tensor:
        """The matrix W_B, shape (mid_channels, in_channels)."""
        raise NotImplementedError(f"{type(self).__name__} needs a method basis()")


class OrthonormalConv2d(nn.Conv2d, OrthonormalBasis):
    """A pointwise convolution whose weights training keeps close to orthonormal.

    As their projection, it makes the linear bottlenecks of MobileNetV2, MobileNetV3 and
    EfficientNet BSConv-S (paper, section 4.2). Raises ValueError unless it is 1x1 in one group.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        check_sizes(type(self).__name__, nn.Conv2d, *args, **kwargs)
        super().__init__(*args, **kwargs)
        if self.kernel_size != (1, 1) or self.groups != 1:
            got = f"kernel_size={self.kernel_size}, groups={self.groups}"
            raise ValueError(f"OrthonormalConv2d needs kernel_size=1 and groups=1, got {got}")

    def basis(self) -> Tensor:
        """The weights as a matrix, shape (out_channels, in_channels)."""
        return self.weight.flatten(1)


def orthonormality_penalty(basis: Tensor) -> Tensor:
    """Distance of the rows of ``basis``, shape (mid, in), from orthonormal: ``||B B^T - I||_F``.

    A scalar in float32, under autocast, too, or in float64 for a float64 basis. Zero, with gradient
    zero, where the rows are orthonormal. Raises ValueError if ``basis`` is not a matrix.
    """
    return _penalties([basis])[0]


def reg_loss(model: nn.Module, alpha: float = 0.1) -> Tensor:
    """``alpha`` times the summed penalties of all BSConv-S layers in ``model``: a scalar tensor.

    Add it to the training loss: ``loss += bsconv.pytorch.reg_loss(model, alpha=0.1)``. A layer that
    is used several times counts once, and so do layers that share their basis. Zero, on the model's
    device, if no layer has a basis. Wrappers (DataParallel, DistributedDataParallel, fully_shard,
    torch.compile) make no difference. Raises ValueError for a basis offloaded to the meta device,
    and for a model of which torch.fx, torch.jit or torch.export left only the layers' parts.

    >>> reg_loss(BSConvS(16, 32, 3), alpha=0.1) > 0
    tensor(True)
    """
    check_module(model)
    owners: dict[tuple[int, ...], OrthonormalBasis] = {}
    for module in model.modules():
        if isinstance(module, OrthonormalBasis):
            weights = module._modules.get("pw1", module).parameters()  # type: ignore[union-attr]
            owners[tuple(id(one) for one in weights if one.dim() > 1) or (id(module),)] = module
    # layers of like shape in one product: dozens of tiny ones would cost a few percent of a step
    by_shape: defaultdict[tuple[Any, ...], list[Tensor]] = defaultdict(list)
    for module in owners.values():
        basis = module.basis()
        if hasattr(basis, "full_tensor"):  # sharded by FSDP
            basis = basis.full_tensor()
        by_shape[basis.shape, basis.dtype, basis.device].append(basis)
    if not by_shape:
        parts = ["pw1", "pw2", "dw"]  # in their order, which is another one in BSConv-CP
        inside = ([n for n, _ in m.named_children() if n in parts] for m in model.modules())
        if parts in inside:
            raise ValueError("reg_loss needs BSConv-S layers, got parts of them, as from torch.fx")
        tensors = chain(model.parameters(), model.buffers(), [torch.empty(0)])
        return torch.zeros((), device=next(tensors).device)
    penalties = [_penalties(bases) for bases in by_shape.values()]
    on_meta = [some.is_meta for some in penalties]  # all of a model that was made there
    hooked = ("_hf_hook" in vars(module) for module in model.modules())  # of accelerate
    if any(on_meta) and (not all(on_meta) or any(hooked)):
        raise ValueError("reg_loss needs weights at hand, got a basis offloaded to the meta device")
    device = penalties[0].device  # a model may be spread over several
    return alpha * torch.cat([some.to(device) for some in penalties]).sum()


class BSConvS_ModelRegLossMixin:
    """Gives a class the method ``reg_loss``: a base class next to ``nn.Module``.

    >>> class Net(nn.Sequential, BSConvS_ModelRegLossMixin): ...
    >>> Net(BSConvS(16, 32, 3)).reg_loss(alpha=0.1) > 0
    tensor(True)
    """

    def reg_loss(self, alpha: float = 0.1) -> Tensor:
        """The same as the function :func:`reg_loss` of this model."""
        return reg_loss(self, alpha)  # type: ignore[arg-type]


def check_reg_loss(model: nn.Module) -> None:
    """Raises ValueError for a model that has a ``reg_loss`` of another kind."""
    attached = getattr(getattr(model, "reg_loss", None), "func", None) is reg_loss
    ours = attached or isinstance(model, BSConvS_ModelRegLossMixin)
    if hasattr(model, "reg_loss") and not ours:
        rule = "has a reg_loss of its own, which the penalty of BSConv-S would hide"
        ways = "rename it, or change the model's children and call bsconv.pytorch.reg_loss"
        raise ValueError(f"{type(model).__name__} {rule}: {ways}(model, alpha)")


def attach_reg_loss(model: nn.Module) -> None:
    """Gives ``model`` the method ``reg_loss`` if it has none yet."""
    if not hasattr(model, "reg_loss"):
        # a partial, unlike a bound method, follows the model through pickle and deepcopy
        owner = getattr(model, "_orig_mod", model)  # torch.compile's wrapper asks its model
        owner.reg_loss = functools.partial(reg_loss, owner)


def _penalties(matrices: list[Tensor]) -> Tensor:
    """The penalty of each of some bases of one shape (mid, in)."""
    check_shape("basis", "(mid, in)", matrices[0], 2)
    dtype = torch.promote_types(matrices[0].dtype, torch.float32)
    with without_autocast(matrices[0].device.type):
        bases = torch.stack(matrices).to(dtype)
        grams = bases @ bases.mT
        errors = grams - torch.eye(grams.shape[-1], dtype=dtype, device=bases.device)
        # squares of large errors would be infinite, and their gradient zero
        largest = errors.detach().abs().amax((1, 2), keepdim=True)
        unit = torch.where(largest > 0, largest, 1.0)
        # row by row: a sum of millions of squares would lose digits
        rows = torch.linalg.vector_norm(errors / unit, dim=2)
        return torch.linalg.vector_norm(rows, dim=1) * unit[:, 0, 0]
