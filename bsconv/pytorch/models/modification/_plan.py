"""What modify_mobilenet would do, or has done, block by block."""

from collections import Counter
from dataclasses import astuple, dataclass
from typing import Literal

from ....basics.tables import Table

Action = Literal["replaced", "penalised", "done", "kept"]
SUMMARY: dict[Action, str] = {  # in this order
    "replaced": "become BSConv-U",
    "penalised": "get the penalty on their projection",
    "done": "are BSConv already",
    "kept": "are kept as they are",
}


@dataclass(frozen=True)
class BlockPlan:
    """One block of a MobileNet: what it is recognised as, and what happens to it.

    ``names`` are all paths that lead to it ("" is the root). ``action`` is "replaced" for a block
    that becomes BSConv-U, "penalised" for one that keeps its layers and gets the penalty on the
    convolution named ``projection``, "done" for one that has either already, "kept" for one that
    BSConv doesn't change. ``share_kept`` is the share of the sum of squares of the block's dense
    kernel that projected weights keep, in [0, 1]; None for others.
    """

    names: tuple[str, ...]
    kind: str
    action: Action
    description: str
    parameters_before: int
    parameters_after: int
    projection: str = ""
    share_kept: float | None = None


@dataclass(frozen=True)
class ModificationPlan(Table):
    """The blocks of a model in the order of their names; prints as a table, in Jupyter too.

    ``parameters_before`` and ``parameters_after`` count the whole model, shared parameters once.
    """

    header = ("block", "recognised as", "what happens", "before", "after")

    blocks: tuple[BlockPlan, ...]
    parameters_before: int
    parameters_after: int

    @property
    def changed(self) -> tuple[BlockPlan, ...]:
        return tuple(one for one in self.blocks if one.action in ("replaced", "penalised"))

    @property
    def summary(self) -> str:
        """One line: what happens to how many blocks, and the model's parameters."""
        counts = Counter(block.action for block in self.blocks)
        said = [f"{counts[action]} {what}" for action, what in SUMMARY.items() if counts[action]]
        return (
            f"{'' if self.changed else 'nothing left to do: '}"
            f"of {len(self.blocks)} known blocks {', '.join(said)}; parameters of the model: "
            f"{self.parameters_before:,} before, {self.parameters_after:,} after"
        )

    def _table_rows(self) -> list[tuple[str | int, ...]]:
        return [
            (", ".join(name or "(root)" for name in names), kind, said, before, after)
            for names, kind, _, said, before, after, *_ in map(astuple, self.blocks)
        ]
