"""Kernels of any form that reproduce the *outputs* of a layer: least squares, tensors only.

The error is a function of the weights of the form; for BSConv-CP, the best mixing follows from the
other weights in closed form. The matrices of second derivatives are close to Kronecker products of
small ones, which give coordinates in which a quasi-Newton method (L-BFGS) needs few steps.
Alternating least squares takes at least ten times as long.

Parts are matrices named by the convolutions that hold them: "pw" and "dw" of BSConv-U, "pw1", "pw2"
and "dw" of -S and -CP, "" of a dense layer. Rows of "dw" are blueprints (K*K), of kernels filters
(M*K*K).
"""

import torch
from torch import Tensor

from ..decomposition import blueprint_factors, subspace_factors
from .form import Form

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
    if kind == "dense":
        return parts[""]
    return parts["pw2"] @ _rows(kind, parts) if kind == "cp" else _rows(kind, parts)


def balanced(kind: str, parts: Parts) -> Parts:
    """The same kernel from factors of one norm, so that they train at the same rate."""
    if kind not in ("u", "cp"):  # BSConv-S keeps its orthonormal basis
        return parts
    rows = {name: part.T if name == "pw2" else part for name, part in parts.items()}
    norms = torch.stack([part.norm(dim=1) for part in rows.values()])
    size = norms.log().mean(0).exp()
    scales = (size / norms).where(size > 0, 1.0)[:, :, None]
    rows = {name: part * scale for (name, part), scale in zip(rows.items(), scales, strict=True)}
    return {name: part.T if name == "pw2" else part for name, part in rows.items()}


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
        elif len(self.space) == 1:  # a product of two matrices, for which the start is the best
            steps = 0
        return self.improve(form.kind, self._start(form, kernel), cross, steps)

    def improve(self, kind: str, parts: Parts, cross: Tensor, steps: int = LATER_STEPS) -> Parts:
        """Parts of the same form with a smaller error, close to those at hand."""
        target, last = (cross / self.unit).to(self.gram), LAST[kind]
        largest = target.abs().amax()
        level = largest.where(largest > 0, 1.0)
        target = target / level
        parts = {name: part.to(self.gram) for name, part in parts.items()}
        parts = self._tidy(kind, parts | {last: parts[last] / level}, target)
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
            points.values(), max_iter=steps // (1 + self.is_large), tolerance_grad=0.0,
            tolerance_change=0.0, history_size=10, line_search_fn="strong_wolfe",
        )  # fmt: skip
        optimizer.step(closure)  # type: ignore[no-untyped-call]
        found = self._tidy(kind, {name: part.detach() for name, part in at().items()}, target)
        found[last] = found[last] * level
        return {name: part.double().contiguous() for name, part in found.items()}

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
        blueprints, norm = _unit(parts["dw"])
        parts = parts | {"dw": blueprints}
        if kind == "cp":
            parts["pw1"], _ = _unit(parts["pw1"])
            return parts | {"pw2": self._loss(kind, _rows(kind, parts), target)[2]}
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
        slices = kernel.to(depth).view(len(kernel), len(depth), len(space))
        seen = torch.einsum("nmp,mb,pc->nbc", slices, depth, space)
        if form.kind == "cp":
            parts = _nested(torch.einsum("nbc,na->abc", seen, _root(self.metric)), form.rank)
        elif form.kind == "u":
            free = blueprint_factors(seen)
            parts = {"pw": free.weights, "dw": free.blueprints}
        else:
            inside = subspace_factors(seen, form.rank)
            parts = {"pw1": inside.basis, "pw2": inside.mixing, "dw": inside.blueprints}
        for name, root in ((FIRST[form.kind], depth), ("dw", space)):
            rows = parts[name].to(root)
            parts[name] = torch.linalg.solve_triangular(root, rows, upper=False, left=False)
        return parts


def _weights(kind: str, parts: Parts) -> Tensor:
    return parts["pw2"] @ parts["pw1"] if kind == "s" else parts[FIRST[kind]]


def _rows(kind: str, parts: Parts) -> Tensor:
    return (_weights(kind, parts)[:, :, None] * parts["dw"][:, None]).flatten(1)


def _unit(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Rows of norm one, and what each was divided by."""
    norm = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    norm = norm.where(norm > 0, 1.0)
    return rows / norm, norm


def _nested(kernel: Tensor, count: int) -> Parts:
    """Singular vectors of each slice along the principal axes of the filters, the largest first."""
    flat = kernel.flatten(1)
    axes = torch.linalg.eigh(flat @ flat.T).eigenvectors
    slices = (axes.T @ flat).view_as(kernel)
    weights, sizes, blueprints = torch.linalg.svd(slices, full_matrices=False)
    order = sizes.flatten().argsort(descending=True)
    order = order.repeat(1 + count // len(order))[:count]
    at, rank = torch.unravel_index(order, sizes.shape)
    return {"pw1": weights[at, :, rank], "dw": blueprints[at, rank], "pw2": axes[:, at]}


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
