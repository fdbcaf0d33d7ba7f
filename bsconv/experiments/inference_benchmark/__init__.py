"""How long a network and its BSConv variants take for inference here: measured in turns."""

from ._measurement import AS_GIVEN, Measurement
from ._memory import peak_bytes
from ._run import DTYPES, benchmark_inference
from ._table import InferenceBenchmark, Setting
from ._turns import Stopwatch, measure_in_turns
from ._variants import VARIANTS, build_variants

__all__ = [
    "AS_GIVEN",
    "DTYPES",
    "VARIANTS",
    "InferenceBenchmark",
    "Measurement",
    "Setting",
    "Stopwatch",
    "benchmark_inference",
    "build_variants",
    "measure_in_turns",
    "peak_bytes",
]
