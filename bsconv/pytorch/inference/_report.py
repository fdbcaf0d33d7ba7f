"""What optimize_for_inference did, layer by layer and engine by engine, as tables and as data."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ...basics.tables import Row, Table, html_table, text_table

GIVEN = "given"
ENGINE_HEADER = ("engine", "ms", "set-up in s", "note")


@dataclass(frozen=True)
class OptimizedLayer:
    """One layer that is computed in another way than before.

    ``plan`` is one of :func:`bsconv.pytorch.inference.optimize_for_inference`. ``norms_folded``
    counts the BatchNorms in its weights. ``seconds`` are those of each plan that a BSConv layer can
    have, on its input in the example.

    >>> fast = optimize_for_inference(BSConvU(16, 32, 3), torch.rand(1, 16, 8, 8), engines="eager")
    >>> [(layer.plan, layer.seconds) for layer in fast.report.layers]  # doctest: +ELLIPSIS
    [...]
    """

    name: str
    kind: str
    plan: str
    norms_folded: int
    seconds: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class EngineResult:
    """One call of the model in an engine, on the example; "given" is the model as it was given.

    ``seconds`` is None where ``why_not`` says why the engine could not be measured.
    ``setup_seconds`` went into preparing it, measurements of layers included.
    """

    engine: str
    seconds: float | None
    setup_seconds: float = 0.0
    why_not: str = ""


@dataclass(frozen=True)
class InferenceReport(Table):
    """What became of a model, which ``engine`` runs now.

    ``difference`` is the largest difference of an output, relative to the largest output, before
    numbers were shortened to another ``dtype``.

    >>> fast = optimize_for_inference(BSConvU(16, 32, 3), torch.rand(1, 16, 8, 8), engines="eager")
    >>> fast.report.input_size
    (1, 16, 8, 8)
    """

    header = ("layer", "was", "computed as", "BatchNorms folded", "ms by plan")

    layers: tuple[OptimizedLayer, ...]
    engines: tuple[EngineResult, ...]
    engine: str
    input_size: tuple[int, ...]
    dtype: str
    memory_format: str
    difference: float

    def seconds_of(self, engine: str) -> float | None:
        """One call in ``engine``; None where it was not measured."""
        return next((row.seconds for row in self.engines if row.engine == engine), None)

    @property
    def seconds_before(self) -> float:
        """One call of the model as it was given, in eval mode."""
        return self.seconds_of(GIVEN) or math.nan

    @property
    def seconds(self) -> float:
        """One call of the result."""
        return self.seconds_of(self.engine) or math.nan

    @property
    def compiled(self) -> bool:
        return self.engine == "compiled"

    @property
    def lost(self) -> str:
        """Which engines could not be used here, and why; empty if none."""
        return "; ".join(f"{row.engine}: {row.why_not}" for row in self.engines if row.why_not)

    @property
    def setup_seconds(self) -> float:
        return sum(row.setup_seconds for row in self.engines)

    @property
    def norms_folded(self) -> int:
        return sum(layer.norms_folded for layer in self.layers)

    @property
    def summary(self) -> str:
        """How the model is computed now, what that gained, and what could not be used."""
        size = "x".join(map(str, self.input_size))
        gain = self.seconds_before / self.seconds
        line = (
            f"{size} in {self.dtype}, {self.memory_format}, {self.engine}: "
            f"{_milliseconds(self.seconds_before)} ms before, {_milliseconds(self.seconds)} ms "
            f"after ({gain:.1f} times as fast); {self.norms_folded} BatchNorms folded; "
            f"outputs equal to {self.difference:.0e} of the largest"
        )
        return f"{line}; {self.lost}" if self.lost else line

    def __str__(self) -> str:
        return f"{text_table(ENGINE_HEADER, self._engine_rows())}\n\n{super().__str__()}"

    def _repr_html_(self) -> str:
        engines = html_table(ENGINE_HEADER, self._engine_rows(), caption="engines")
        return engines + super()._repr_html_()

    def _engine_rows(self) -> Sequence[Row]:
        notes = {one.engine: one.why_not for one in self.engines} | {self.engine: "taken"}
        rows = ((one.engine, _milliseconds(one.seconds), one.setup_seconds) for one in self.engines)
        return [(engine, ms, f"{setup:.1f}", notes[engine]) for engine, ms, setup in rows]

    def _table_rows(self) -> Sequence[Row]:
        def row(layer: OptimizedLayer) -> Row:
            plans = ", ".join(f"{plan} {_milliseconds(s)}" for plan, s in layer.seconds.items())
            return layer.name or "(root)", layer.kind, layer.plan, layer.norms_folded, plans

        return list(map(row, self.layers))


def _milliseconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{1e3 * seconds:.3g}"
