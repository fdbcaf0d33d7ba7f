"""Kernels of any form that reproduce the *outputs* of a layer: least squares, tensors only.

The error is a function of the weights of the form; for BSConv-CP, the best mixing follows from the
other weights in closed form. The matrices of second derivatives are close to Kronecker products of
small ones, which give coordinates in which a quasi-Newton method (L-BFGS) needs few steps.
Alternating least squares takes at least ten times as long.

A layer's weights are named by the convolutions that hold them: "pw" and "dw" of BSConv-U, "pw1",
"pw2" and "dw" of -S and -CP, "" of a dense one.
"""

import torch
from torch import Tensor

from .._tools.convs import with_ones
from ..decomposition import blueprint_factors, subspace_factors
from ._forms import Form

STEPS = 60
FEW_STEPS = 30  # that BSConv-U and -S need at most
LATER_STEPS = 6  # each time the targets have changed
TABLE_STEPS = 20
STEADY = 1e-6  # share of the mean diagonal that is added to small matrices
LARGE = 1500  # entries; larger patches are fitted in float32, in half the steps

FIRST = {"u": "pw", "s": "pw1", "cp": "pw1"}  # takes the input
LAST = {"u": "pw", "s": "pw2", "cp": "pw2"}  # has the scale of the outputs

Parts = dict[str, Tensor]


def dense_kernel(kind: str, parts: Parts) -> Tensor:
    """The dense kernel (N, M, Kh, Kw) of a form's parts."""
    if kind == "dense":
        return parts[""]
    rows = with_ones(_weights(kind, parts), parts["dw"].dim() + 1) * parts["dw"][:, None]
    return torch.tensordot(parts["pw2"], rows, 1) if kind == "cp" else rows


def balanced(kind: str, parts: Parts) -> Parts:
    """The same kernel; in each channel of BSConv-U and -CP, all factors have the same norm.

    Training then moves them at the same rate. BSConv-S keeps its orthonormal basis.
    """
    if kind not in ("u", "cp"):
        return parts
    axes = {name: part.dim() - 1 if name == "pw2" else 0 for name, part in parts.items()}
    norms = [p.movedim(axes[n], 0).flatten(1).norm(dim=1) for n, p in parts.items()]
    size = torch.stack(norms).log().mean(0).exp()
    scaled = {}
    for (name, part), norm in zip(parts.items(), norms, strict=True):
        scale = (size / norm).where(size > 0, 1.0)
        scaled[name] = (part.movedim(axes[name], -1) * scale).movedim(-1, axes[name])
    return scaled


class Fit:
    """The error tr(S (K - K*) G (K - K*)^T) of kernels K, for covariance G and metric S."""

    def __init__(self, gram: Tensor, metric: Tensor, channels: int) -> None:
        self.is_large = len(gram) > LARGE
        dtype = torch.float32 if self.is_large else torch.float64
        # in units of about one, so that float32 holds their squares
        self.unit = gram.diagonal().mean()
        self.gram, self.metric = (gram / self.unit).to(dtype), metric.to(dtype)
        size = len(gram) // channels
        blocks = self.gram.view(channels, size, channels, size)
        self.depth = torch.einsum("apbp->ab", blocks) / size
        space = torch.einsum("apaq->pq", blocks) / channels
        self.space = space / space.diagonal().mean()
        self.depth_root, self.space_root = _root(self.depth), _root(self.space)

    def find(self, form: Form, kernel: Tensor, cross: Tensor, steps: int = STEPS) -> Parts:
        """Parts with a small error for the moments ``cross``, of which ``kernel`` is the best."""
        if form.kind == "dense":
            return {"": kernel}
        if form.kind != "cp":
            steps = min(steps, FEW_STEPS)
        return self.improve(form.kind, self._start(form, kernel), cross, steps)

    def improve(self, kind: str, parts: Parts, cross: Tensor, steps: int = LATER_STEPS) -> Parts:
        """Parts of the same form with a smaller error, close to those at hand."""
        target = (cross / self.unit).to(self.gram)
        largest = target.abs().amax()
        level = largest.where(largest > 0, 1.0)
        last = LAST[kind]
        flat = {name: part.flatten(1).to(self.gram) for name, part in parts.items()}
        flat[last] = flat[last] / level
        found = self._descend(kind, flat, target / level, steps // (1 + self.is_large))
        found[last] = found[last] * level
        return {n: part.double().view_as(parts[n]).contiguous() for n, part in found.items()}

    def _descend(self, kind: str, parts: Parts, target: Tensor, steps: int) -> Parts:
        """L-BFGS in coordinates in which the second derivatives are about the identity."""
        parts = self._tidy(kind, parts, target)
        roots = self._roots(kind, parts)
        points = {
            name: (left.mT @ parts[name] @ right).requires_grad_()
            for name, (left, right) in roots.items()
        }

        def at() -> Parts:
            return {name: _divided(point, *roots[name]) for name, point in points.items()}

        @torch.enable_grad()
        def closure() -> Tensor:
            optimizer.zero_grad()
            rows = _rows(kind, at())
            loss, slope, _ = self._loss(kind, rows.detach(), target)
            torch.autograd.backward(rows, slope)
            return loss

        optimizer = torch.optim.LBFGS(
            points.values(),
            max_iter=steps,
            tolerance_grad=0.0,
            tolerance_change=0.0,
            history_size=10,
            line_search_fn="strong_wolfe",
        )
        optimizer.step(closure)  # type: ignore[no-untyped-call]
        return self._tidy(kind, {name: part.detach() for name, part in at().items()}, target)

    @torch.no_grad()
    def _loss(self, kind: str, rows: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The loss for ``rows`` (R, M*K*K), its derivative, and the best mixing of them (N, R)."""
        half = rows @ self.gram
        mixing, share, wanted = self.metric, self.metric, self.metric @ target
        pairs = half @ rows.T
        if kind == "cp":
            mixing = torch.cholesky_solve(rows @ target.T, _root(pairs)).T
            share, wanted = mixing.T @ self.metric @ mixing, mixing.T @ wanted
        loss = (share * pairs).sum() / 2 - (wanted * rows).sum()
        return loss, share @ half - wanted, mixing

    def _tidy(self, kind: str, parts: Parts, target: Tensor) -> Parts:
        """The same kernel from unit blueprints and an orthonormal basis, or the best mixing."""
        norm = torch.linalg.vector_norm(parts["dw"], dim=1, keepdim=True)
        norm = norm.where(norm > 0, 1.0)
        parts = {**parts, "dw": parts["dw"] / norm}
        if kind == "cp":
            size = torch.linalg.vector_norm(parts["pw1"], dim=1, keepdim=True)
            parts["pw1"] = parts["pw1"] / size.where(size > 0, 1.0)
            parts["pw2"] = self._loss(kind, _rows(kind, parts), target)[2]
            return parts
        if kind == "s":
            basis, inside = torch.linalg.qr(parts["pw1"].T)
            parts |= {"pw1": basis.T, "pw2": parts["pw2"] @ inside.T}
        return parts | {LAST[kind]: parts[LAST[kind]] * norm}

    def _roots(self, kind: str, parts: Parts) -> dict[str, tuple[Tensor, Tensor]]:
        """For each part the roots of two matrices whose product is about its second derivative."""
        weights, blueprints, share = _weights(kind, parts), parts["dw"], self.metric
        if kind == "cp":
            share = parts["pw2"].T @ share @ parts["pw2"]
        outer = share * (blueprints @ self.space @ blueprints.T)
        roots = {"dw": (_root(share * (weights @ self.depth @ weights.T)), self.space_root)}
        if kind != "s":
            return {**roots, FIRST[kind]: (_root(outer), self.depth_root)}
        basis, inner = parts["pw1"], parts["pw2"]
        roots["pw1"] = _root(inner.T @ outer @ inner), self.depth_root
        roots["pw2"] = _root(outer), _root(basis @ self.depth @ basis.T)
        return roots

    def _start(self, form: Form, kernel: Tensor) -> Parts:
        """Parts from singular vectors of the kernel, weighted by the data and the answer."""
        depth, space = self.depth_root, self.space_root
        seen = torch.einsum("nmp,mb,pc->nbc", kernel.flatten(2).to(depth), depth, space)
        if form.kind == "cp":
            assert form.rank is not None
            seen = torch.einsum("nbc,na->abc", seen, _root(self.metric))
            parts = _nested(seen, form.rank)
        elif form.kind == "u":
            free = blueprint_factors(seen.view_as(kernel))
            parts = {"pw": free.weights, "dw": free.blueprints}
        else:
            assert form.rank is not None
            inside = subspace_factors(seen.view_as(kernel), form.rank)
            parts = {"pw1": inside.basis, "pw2": inside.mixing, "dw": inside.blueprints}
        for name, root in ((FIRST[form.kind], depth), ("dw", space)):
            rows = parts[name].flatten(1).to(root)
            parts[name] = torch.linalg.solve_triangular(root, rows, upper=False, left=False)
        return {**parts, "dw": parts["dw"].view(-1, *kernel.shape[2:])}


def _weights(kind: str, parts: Parts) -> Tensor:
    return parts["pw2"] @ parts["pw1"] if kind == "s" else parts[FIRST[kind]]


def _rows(kind: str, parts: Parts) -> Tensor:
    return (_weights(kind, parts)[:, :, None] * parts["dw"][:, None]).flatten(1)


def _nested(kernel: Tensor, count: int) -> Parts:
    """Singular vectors of each slice along the principal axes of the filters, the largest first."""
    flat = kernel.flatten(1)
    axes = torch.linalg.eigh(flat @ flat.T).eigenvectors
    slices = (axes.T @ flat).view_as(kernel)
    weights, sizes, blueprints = torch.linalg.svd(slices, full_matrices=False)
    order = sizes.flatten().argsort(descending=True)
    order = order.repeat(1 + count // len(order))[:count]
    filters, rank = order // sizes.shape[1], order % sizes.shape[1]
    return {
        "pw1": weights[filters, :, rank],
        "dw": blueprints[filters, rank],
        "pw2": axes[:, filters],
    }


def _root(matrix: Tensor) -> Tensor:
    """The Cholesky factor of a matrix that may be singular by rounding."""
    matrix = matrix.clone()
    scale = matrix.diagonal().mean()
    share = max(STEADY, len(matrix) * torch.finfo(matrix.dtype).eps)
    matrix.diagonal().add_(share * scale + (scale == 0))
    return torch.linalg.cholesky(matrix)


def _divided(rows: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """``L^-T x R^-1`` for roots L and R."""
    rows = torch.linalg.solve_triangular(right, rows, upper=False, left=False)
    return torch.linalg.solve_triangular(left.mT, rows, upper=True)
