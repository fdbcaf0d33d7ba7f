"""Which BatchNorms of a model follow a convolution and nothing else, and their folding into it."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

from torch import Tensor, fx, nn

from .._layer_plans import is_plain
from .._tools.convs import BATCH_NORMS, BatchNorm
from .._tools.joining import normed
from .._tools.model_tree import exchange, places, watching
from .._tools.obstacles import has_hooks, why_not_plain
from ..modules import BLUEPRINT_LAYERS
from ..regularization import OrthonormalConv2d

Pair = tuple[nn.Module, BatchNorm]  # a convolution or BSConv layer; the norm that alone follows it


def fold_norms(model: nn.Module, example: Tensor) -> set[int]:
    """The ids of the layers that a BatchNorm went into; in its place is an Identity."""
    pairs = foldable_pairs(model, example)
    for conv, norm in pairs:
        last: Any = _last(conv)
        folded = normed(last, norm).to(last.weight.dtype)
        # new parameters, as the old ones may be shared with layers that keep them
        last.weight, last.bias = folded.weight, folded.bias
    gone = {id(norm): nn.Identity().eval() for _, norm in pairs}
    exchange(model, [place for place in places(model, ()) if id(place.module) in gone], gone)
    return {id(conv) for conv, _ in pairs}


def foldable_pairs(model: nn.Module, example: Tensor) -> list[Pair]:
    """The pairs whose BatchNorm may go into the convolution, in an eval-mode ``model``."""
    found = [(root, *pair) for root, graph in _traces(model) for pair in _pairs(root, graph)]
    calls: Counter[int] = Counter()  # a layer that is also called from elsewhere stays as it is

    def count(module: nn.Module, inputs: object) -> None:
        calls[id(module)] += 1

    with watching(((module, count) for module in model.modules()), before=True):
        model(example.clone())
    return [
        (conv, norm)
        for root, conv, norm in found
        if 0 < calls[id(root)] == calls[id(conv)] == calls[id(norm)]
    ]


def is_unmodified(layer: nn.Module) -> bool:
    """Whether a BSConv layer computes its parts in turn and nothing else."""
    return _has_own_forward(layer) and all(map(is_plain, layer.children()))


def _has_own_forward(layer: nn.Module) -> bool:
    return type(layer) in BLUEPRINT_LAYERS and "forward" not in vars(layer)


def is_fixed(norm: nn.Module) -> bool:
    """Whether ``norm`` is a BatchNorm that computes the same for each image: scale and shift."""
    return type(norm) in BATCH_NORMS and not norm.training and norm.running_mean is not None


class _Tracer(fx.Tracer):
    """Follows the calls of modules; those whose inside it cannot follow are kept in ``opaque``."""

    def __init__(self) -> None:
        super().__init__()
        self.opaque: list[nn.Module] = []

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        known = isinstance(m, (*BLUEPRINT_LAYERS, OrthonormalConv2d))
        return known or super().is_leaf_module(m, module_qualified_name)

    def call_module(self, m: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        known = len(self.graph.nodes)
        try:
            return super().call_module(m, forward, args, kwargs)
        except Exception:
            for node in reversed(list(self.graph.nodes)[known:]):
                self.graph.erase_node(node)
            self.opaque.append(m)
            return self.create_proxy("call_module", self.path_of_module(m), args, kwargs)


def _traces(model: nn.Module) -> Iterator[tuple[nn.Module, fx.Graph]]:
    """Graphs of the model and of the parts that its own graph does not look into."""
    waiting, seen = [model], {id(model)}
    while waiting:
        root = waiting.pop()
        tracer = _Tracer()
        inside = tracer.opaque
        try:
            yield root, tracer.trace(root)
        except Exception:
            inside = list(root.children())
        for module in inside:
            if id(module) not in seen and not isinstance(module, BLUEPRINT_LAYERS):
                waiting.append(module)
                seen.add(id(module))


def _pairs(root: nn.Module, graph: fx.Graph) -> Iterator[Pair]:
    modules = dict(root.named_modules(remove_duplicate=False))
    called = {node: modules[str(node.target)] for node in graph.nodes if node.op == "call_module"}
    times = Counter(map(id, called.values()))
    for node, conv in called.items():
        norm: Any = called.get(next(iter(node.users))) if len(node.users) == 1 else None
        alone = times[id(conv)] == times[id(norm)] == 1
        if alone and is_fixed(norm) and _fits(conv) and not has_hooks(norm, movable=True):
            yield conv, norm


def _fits(module: nn.Module) -> bool:
    """Whether it is a convolution, or ends in one, with nothing between that and its output."""
    if has_hooks(module, movable=True):
        return False
    if isinstance(module, BLUEPRINT_LAYERS):
        return _has_own_forward(module) and _fits(_last(module))
    groups = getattr(module, "groups", 1)
    return type(module) is OrthonormalConv2d or not why_not_plain(module, groups)


def _last(module: nn.Module) -> nn.Module:
    """The convolution that computes the output of a convolution or BSConv layer."""
    return list(module.children())[-1] if isinstance(module, BLUEPRINT_LAYERS) else module
