"""Runs that differ in their seed, summed up; and which of them may be compared."""

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from ..config import RECIPES, TrainConfig
from ..model_sources import architecture
from ..own_code import is_code
from ._record import Record, deciding, recipe_of
from .published import VARIANTS, family_and_variant


@dataclass(frozen=True)
class Summary:
    """Last-epoch accuracies of runs that differ only in seed, machine and execution.

    ``config`` is that of the first run. Execution is how steps were computed: device, precision,
    plans, torch.compile.
    """

    config: TrainConfig
    parameters: int
    runs: tuple[Record, ...]

    @property
    def top1(self) -> list[float]:
        return [run.epochs[-1].test_top1 for run in self.runs]

    @property
    def mean(self) -> float:
        return sum(self.top1) / len(self.top1)

    @property
    def lowest(self) -> float:
        return min(self.top1)

    @property
    def highest(self) -> float:
        return max(self.top1)

    @property
    def architecture(self) -> str:
        """The name that ``get_model`` has for the network, or that of the run where it has none."""
        config = self.config
        if config.bsconv is None:
            return config.model.lower()
        name = architecture(config.model)
        # of these get_model has the variants that the replacers make
        residual = name is not None and name.is_cifar and not name.is_mobilenet
        if name is None or not residual or config.with_bn != (config.bsconv == "s"):
            return self.config.network
        share = Fraction(config.p).limit_denominator(100)
        return str(dataclasses.replace(name, variant=config.bsconv, p=share))

    @property
    def family(self) -> str:
        """The dense network that this one is, or is a variant of."""
        return family_and_variant(self.config.model)[0]

    @property
    def variant(self) -> str:
        """One of ``VARIANTS``; of code of the user's, which may be anything, what it is called."""
        if is_code(self.config.model):
            return self.config.network
        if self.config.bsconv is not None:
            return f"BSConv-{self.config.bsconv.upper()}"
        return family_and_variant(self.config.model)[1]

    @property
    def recipe(self) -> str:
        """The recipe by name; a recipe that has changed since has a name of its own."""
        return recipe_of(self.config)[0]

    @property
    def own_settings(self) -> tuple[str, ...]:
        """How the runs differ from their recipe, in words; mostly not at all."""
        return tuple(_in_words(*item) for item in recipe_of(self.config)[1].items())

    @property
    def precision(self) -> str:
        """Of the runs' steps, such as ``"float32"`` or ``"bfloat16 and float32"``."""
        return " and ".join(sorted({run.config.precision for run in self.runs}))

    @property
    def length(self) -> str:
        """How long the runs are, and how they differ: fewer images, another start."""
        return ", ".join((counted(self.config.epochs, "epoch"), *self.own_settings))

    @property
    def schedule(self) -> str:
        """``length``, and the precision where it is not the usual one."""
        usual = self.precision in ("float32", "auto")
        return self.length if usual else f"{self.length}, {self.precision}"

    def __str__(self) -> str:
        config = self.config
        what = f"{config.network} on {config.dataset}, recipe {self.recipe}, {self.schedule}"
        extremes = f"{self.lowest:.2f} to {self.highest:.2f}"
        return f"{what}: {self.mean:.2f} % ({extremes}, {counted(len(self.runs), 'run')})"


def counted(number: int, what: str) -> str:
    """Such as ``1 run`` and ``3 runs``."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _in_words(setting: str, value: object) -> str:
    if setting == "train_limit":
        return f"{value:,} images"
    if setting == "weights":
        return f"from {Path(str(value)).stem.replace('_', ' ')}"
    return f"{setting.replace('_', ' ')} {value}"


def summarize(records: Iterable[Record]) -> list[Summary]:
    """One summary for each model, data set and schedule, in the order in which they first come."""
    groups: dict[TrainConfig, list[Record]] = {}
    for record in records:
        groups.setdefault(deciding(record.config), []).append(record)
    return [Summary(runs[0].config, runs[0].parameters, tuple(runs)) for runs in groups.values()]


def variants_of(
    family: str, summaries: Sequence[Summary], dataset: str = "cifar10"
) -> dict[str, Summary]:
    """The recorded variants of a network that may be compared: all of one recipe and one length.

    Runs with settings of their own, and networks that ``get_model`` has no name for, are left out.
    Of several recipes and lengths, the one with the most variants counts, then the most runs of
    each, then the longest, then today's.
    """
    together: dict[tuple[int, str], list[Summary]] = {}
    for summary in summaries:
        named = summary.config.bsconv is None or summary.architecture != summary.config.network
        about = (summary.family, summary.config.dataset, summary.own_settings)
        if named and about == (family, dataset, ()):
            together.setdefault((summary.config.epochs, summary.recipe), []).append(summary)
    found = {key: by_variant(group) for key, group in together.items()}

    def order(key: tuple[int, str]) -> tuple[int, int, int, bool]:
        runs = min((len(one.runs) for one in found[key].values()), default=0)
        return len(found[key]), runs, key[0], key[1] in RECIPES

    return found[max(found, key=order)] if found else {}


def by_variant(summaries: Iterable[Summary]) -> dict[str, Summary]:
    """One of each of ``VARIANTS``, in their order; of several shares p, the smallest network."""
    found: dict[str, Summary] = {}
    for one in sorted(summaries, key=lambda one: one.parameters):
        found.setdefault(one.variant, one)
    return {name: found[name] for name in VARIANTS if name in found}
