"""What users choose, checked once for all that they call."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, get_args

from .._tools.convs import IntOrTuple
from ._samples import Sampler

PLACES = 40_000  # that are looked at in a layer, in all images together
FEWEST_POSITIONS = 64

Cost = Literal["macs", "parameters", "time"]
Kind = Literal["u", "s", "cp"]
Method = Literal["weights", "batch_norm", "outputs"]
Prepare = Callable[..., Callable[[], object]]
Word = TypeVar("Word", bound=str)


def one_of(argument: str, value: Word, known: tuple[Word, ...]) -> Word:
    if value not in known:
        names = ", ".join(map(repr, known))
        raise ValueError(f"{argument} needs to be one of {names}, got {argument}={value!r}")
    return value


def check_positive(**sizes: int) -> None:
    """Raises ValueError that names the argument."""
    for name, number in sizes.items():
        if type(number) is not int or number < 1:
            raise ValueError(f"{name} needs to be at least 1, got {name}={number!r}")


@dataclass(frozen=True)
class Options:
    """What decides about layers and their fits, see :func:`project_pretrained`."""

    of: Cost
    align: int
    prepare: Prepare | None
    kernel_sizes: Sequence[IntOrTuple] | None
    exclude: Sequence[str]
    dimensions: Sequence[int]
    batch_size: int
    positions: int | None
    limit: int
    progress: bool

    def __post_init__(self) -> None:
        names = ("batch_size", "positions", "limit", "align")
        check_positive(**{n: v for n in names if (v := getattr(self, n)) is not None})
        one_of("of", self.of, get_args(Cost))

    @property
    def selection(self) -> dict[str, Any]:
        """Which layers, as replacers are told."""
        return {"exclude": self.exclude, "dimensions": self.dimensions}

    def sampler(self, images: int) -> Sampler:
        least = -(-PLACES // images)
        return Sampler(self.batch_size, self.positions or max(FEWEST_POSITIONS, least))
