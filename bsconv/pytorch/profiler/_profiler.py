"""What a model costs: parameters, FLOPs, MACs and activations, layer by layer."""

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import astuple, fields
from typing import Any

import torch
from torch import nn
from torch.nn.modules.lazy import LazyModuleMixin

from ...basics.errors import described
from ...basics.tables import CsvTable, Row, Table
from .._tools.convs import is_size
from .._tools.model_tree import check_module, tensors_in, unwrapped
from ._costs import Call, LayerProfile
from ._dry_run import dry_run

COLUMNS = [field.name for field in fields(LayerProfile)]


class ModelProfiler(Table, CsvTable):
    """Counts parameters, FLOPs, MACs and activations of a model; prints as a table.

    MACs are the multiply-accumulates of convolutions, transposed ones included, and linear layers;
    activations their output elements (Radosavovic et al., Designing Network Design Spaces, CVPR
    2020, section 3.1). FLOPs are those of the published tables of BSConv: one for each MAC, one per
    output for a bias, 2 per element for BatchNorm (1 without affine), 1 for ReLU, 1 per input
    element for pooling, else none. All are of the whole batch, one image in the published tables.

    Subclasses count as their base does. Only calls of modules count, neither functions nor
    operators (``F.relu``, ``F.conv2d``, ``+``), nor weights used without calling their layer, as in
    torch.nn.MultiheadAttention. Shared parameters count once, each call of a layer costs.

    The model runs once, on zeros of its dtype, in eval mode, on the meta device if possible, and
    ends as it was. DataParallel, DistributedDataParallel and torch.compile are looked through.

    Args:
        input_size: of the input, batch first; for a model with several inputs, a list of sizes.
        input_device: where the input of a run on the real device lies; the model's, unless given.
        example_inputs: in place of sizes, what the model takes: a tuple of its arguments, a dict of
            its keyword arguments, or its one argument, such as a detector's list of images.

    Attributes:
        rows: a :class:`LayerProfile` for each layer, in the order of ``named_modules``; they add up
            to the totals.
        free_types: types of layers that were called and may compute something, yet count no FLOPs.
        input_size: as given; of example inputs, the sizes of their tensors.

    Raises TypeError if ``model`` is not a module, ValueError for an ``input_size`` that is no size
    or that the model cannot run on, for an unknown device, and for lazy or scripted layers.

    >>> ModelProfiler(get_model("cifar_resnet20", 10), (1, 3, 32, 32)).total_parameter_count
    272480
    """

    header = ("layer", "type", "calls", "parameters", "FLOPs", "MACs", "activations", "output")

    def __init__(
        self,
        model: nn.Module,
        input_size: Sequence[int] | Sequence[Sequence[int]] = (1, 3, 224, 224),
        input_device: torch.device | str | None = None,
        *,
        example_inputs: Any = None,
    ) -> None:
        given: Any = _checked_sizes(input_size)
        argument, sizes = "input_size", given
        if example_inputs is not None:
            given = _as_call(example_inputs)
            argument, sizes = "example_inputs", [tuple(one.shape) for one in tensors_in(given)]
            input_size = sizes
        device = _checked_device(input_device)
        wrapped = _checked_model(model)
        kind = type(wrapped).__name__
        try:
            counters = dry_run(wrapped, given, device)
        except Exception as error:
            got = f"got {argument}={input_size!r}, which it fails on ({described(error)})"
            raise ValueError(f"{argument} needs to be what {kind} takes, {got}") from error
        self.input_size = input_size
        self.rows = tuple(counter.row() for counter in counters)
        free = {type(counter.layer).__name__ for counter in counters if counter.is_free}
        self.free_types = tuple(sorted(free))
        self._title = f"{kind} on {' and '.join(map(_shape_text, sizes))}"

    @property
    def total_parameter_count(self) -> int:
        """Of the whole model, layers that are never called included; shared ones once."""
        return sum(row.parameters for row in self.rows)

    @property
    def total_flop_count(self) -> int:
        """As the published tables count them."""
        return sum(row.flops for row in self.rows)

    @property
    def total_mac_count(self) -> int:
        """Multiply-accumulates of convolutions and linear layers."""
        return sum(row.macs for row in self.rows)

    @property
    def total_activation_count(self) -> int:
        """Outputs of convolutions and linear layers."""
        return sum(row.activations for row in self.rows)

    @property
    def summary(self) -> str:
        """The totals and the free types, in one line."""
        free = ", ".join(self.free_types) or "no type of layer"
        return (
            f"{self._title}: {self.total_parameter_count:,} parameters, "
            f"{self.total_flop_count:,} FLOPs, {self.total_mac_count:,} MACs, "
            f"{self.total_activation_count:,} activations; counted as free: {free}"
        )

    def print_results(self) -> None:
        """Prints the table and the summary."""
        print(self)

    def to_dataframe(self) -> Any:
        """The rows as a ``pandas.DataFrame``, a column per field; ImportError without pandas."""
        try:
            pandas = importlib.import_module("pandas")
        except ImportError as error:
            raise ImportError("to_dataframe needs pandas: pip install pandas") from error
        return pandas.DataFrame([astuple(row) for row in self.rows], columns=COLUMNS)

    def _csv_rows(self) -> tuple[Sequence[str], Sequence[Sequence[Any]]]:
        return COLUMNS, [(*astuple(row)[:-1], _shape_text(row.output_shape)) for row in self.rows]

    def _table_rows(self) -> list[Row]:
        return [(name or "(root)", *rest) for name, *rest in self._csv_rows()[1]]


def _checked_sizes(input_size: Any) -> list[tuple[int, ...]]:
    def is_shape(value: Any) -> bool:
        return isinstance(value, Sequence) and len(value) > 0 and all(map(is_size, value))

    sizes = [input_size] if is_shape(input_size) else input_size
    if not isinstance(sizes, Sequence) or not sizes or not all(map(is_shape, sizes)):
        needed = "a size in positive whole numbers, such as (1, 3, 224, 224), or a list of sizes"
        raise ValueError(f"input_size needs to be {needed}, got input_size={input_size!r}")
    return [tuple(size) for size in sizes]


def _as_call(inputs: Any) -> Call:
    if isinstance(inputs, Mapping):
        return (), dict(inputs)
    return (inputs if isinstance(inputs, tuple) else (inputs,)), {}


def _checked_device(device: torch.device | str | None) -> torch.device | None:
    try:
        return None if device is None else torch.device(device)
    except RuntimeError as error:
        rule = "input_device needs to be a device such as 'cpu' or 'cuda'"
        raise ValueError(f"{rule}, got input_device={device!r}") from error


def _checked_model(model: nn.Module) -> nn.Module:
    """``model``, or what it wraps."""
    check_module(model)
    model = unwrapped(model)
    modules = list(model.modules())
    if any(isinstance(module, torch.jit.ScriptModule) for module in modules):
        raise ValueError("model has scripted parts, whose layers cannot be seen: script it later")
    if any(isinstance(m, LazyModuleMixin) and m.has_uninitialized_params() for m in modules):
        raise ValueError("model has lazy layers, whose size is not known yet: call it once before")
    return model


def _shape_text(shape: Sequence[int] | None) -> str:
    return "x".join(map(str, shape or ()))
