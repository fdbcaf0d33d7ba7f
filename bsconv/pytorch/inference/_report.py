"""What optimize_for_inference did, layer by layer, as a table and as data."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from .._tools.tables import Table


@dataclass(frozen=True)
class OptimizedLayer:
    """One layer that is computed in another way than before.

    ``form`` says how; see :func:`bsconv.pytorch.inference.optimize_for_inference`. ``norms_folded``
    counts the BatchNorms that are part of its weights now. ``seconds`` are those of each form that
    a BSConv layer can have, on its input in the example; empty for other layers.
    """

    name: str
    kind: str
    form: str
    norms_folded: int
    seconds: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class InferenceReport(Table):
    """What became of a model, and the seconds of one call before and after, on the example.

    ``seconds_before`` is the model as it was given, in eval mode. ``seconds_eager`` is the result
    without torch.compile, ``seconds_compiled`` with it, None where it was not tried or failed.
    ``difference`` is the largest difference of an output, relative to the largest output, before
    numbers were shortened to another ``dtype``. ``lost`` says what could not be had here, and why.
    """

    header = ("layer", "was", "computed as", "BatchNorms folded", "ms by form")

    layers: tuple[OptimizedLayer, ...]
    input_size: tuple[int, ...]
    dtype: str
    memory_format: str
    difference: float
    seconds_before: float
    seconds_eager: float
    seconds_compiled: float | None
    compiled: bool
    lost: str

    @property
    def seconds(self) -> float:
        """Those of one call of the result."""
        compiled = self.seconds_compiled
        return compiled if self.compiled and compiled is not None else self.seconds_eager

    @property
    def norms_folded(self) -> int:
        return sum(layer.norms_folded for layer in self.layers)

    @property
    def summary(self) -> str:
        """How the model is computed now, what that gained, and what was not to be had."""
        how = "compiled" if self.compiled else "eager"
        size = "x".join(map(str, self.input_size))
        gain = self.seconds_before / self.seconds
        line = (
            f"{size} in {self.dtype}, {self.memory_format}, {how}: "
            f"{_milliseconds(self.seconds_before)} ms before, {_milliseconds(self.seconds)} ms "
            f"after ({gain:.1f} times as fast); {self.norms_folded} BatchNorms folded; "
            f"outputs equal to {self.difference:.0e} of the largest"
        )
        return f"{line}; {self.lost}" if self.lost else line

    def _table_rows(self) -> list[tuple[str | int, ...]]:
        return [
            (
                *(layer.name or "(root)", layer.kind, layer.form, layer.norms_folded),
                ", ".join(
                    f"{form} {_milliseconds(seconds)}" for form, seconds in layer.seconds.items()
                ),
            )
            for layer in self.layers
        ]


def _milliseconds(seconds: float) -> str:
    return f"{1e3 * seconds:.3g}"
