"""What each form of a layer would do to the answer of a network, before any is chosen."""

from typing import NamedTuple

from torch import Tensor

from ..decomposition import blueprint_factors, subspace_factors
from ._costs import DENSE, Form, Geometry
from ._dense import Dense
from ._forms import Factors, dense
from ._least_squares import fit_blueprints, fit_subspace
from ._moments import Moments, Patches
from ._shared_blueprints import fit_shared_from

# shares of the cost of the dense layer for which there is a rank
SHARES = (0.05, 0.08, 0.12, 0.16, 0.2, 0.25, 0.3, 0.36, 0.44, 0.54, 0.66, 0.8)
FEW_SHARES = (0.08, 0.16, 0.3)  # for BSConv-S, which is slow to fit and seldom chosen
WIDE = 100  # input channels from which on there are fewer ranks, and no BSConv-U and -S
TABLE_STEPS = 20


class Option(NamedTuple):
    """A form that a layer can have."""

    form: Form
    cost: float
    damage: float


def candidates(geometry: Geometry, align: int, *, by_macs: bool) -> list[Form]:
    """Forms that cost less than the dense layer, ranks being multiples of ``align``."""
    cost = geometry.macs if by_macs else geometry.parameters
    limit = cost(DENSE)
    narrow = geometry.inputs <= WIDE
    forms = [Form("u")] if narrow else []
    for kind, shares in (("s", FEW_SHARES if narrow else ()), ("cp", SHARES[:: 2 - narrow])):
        one = cost(Form(kind, 2)) - cost(Form(kind, 1))
        fixed = cost(Form(kind, 1)) - one
        ranks = {max(1, round((share * limit - fixed) / one / align)) * align for share in shares}
        most = min(geometry.inputs, geometry.outputs) if kind == "s" else limit
        forms += [Form(kind, rank) for rank in sorted(ranks) if rank < most]
    return [form for form in forms if cost(form) < limit]


def damages(dense: Dense, name: str, rows: Tensor, forms: list[Form]) -> dict[Form, float]:
    """For each form what the answer loses if the layer alone takes it (see ``sensitivities``)."""
    kernel = dense.kernels[name]
    patches = Patches(rows, centered=dense.has_constant[name])
    target = patches.steady @ kernel.flatten(1).T
    known = Moments(patches.steady, target, patches.mean, kernel.flatten(1) @ patches.mean)
    sensitivity = dense.sensitivities.get(name)
    metric = None if sensitivity is None else sensitivity.metric
    found = {DENSE: 0.0}
    for form in forms:
        missing = (_fitted(form, known, kernel, metric) - kernel).flatten(1)
        errors = missing @ patches.covariance @ missing.T
        if sensitivity is None:
            energy = (kernel.flatten(1) @ patches.covariance * kernel.flatten(1)).sum()
            found[form] = float(errors.trace() / energy)
        else:
            found[form] = sensitivity.scale * float((errors * sensitivity.metric).sum())
    return found


def _fitted(form: Form, known: Moments, kernel: Tensor, metric: Tensor | None) -> Tensor:
    """The dense kernel of the best fit of that form."""
    factors: Factors
    if form.kind == "cp":
        assert form.rank is not None
        factors = fit_shared_from(known, kernel, form.rank, metric, TABLE_STEPS)
    elif form.kind == "u":
        factors = fit_blueprints(known, blueprint_factors(kernel), metric, 2)
    else:
        assert form.rank is not None
        factors = fit_subspace(known, subspace_factors(kernel, form.rank), metric, 2)
    return dense(factors)
