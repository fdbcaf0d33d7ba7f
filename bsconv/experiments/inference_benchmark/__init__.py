"""How long a network and its BSConv variants take for inference here: measured in turns."""

from ._measurement import AS_GIVEN, Measurement
from ._run import DTYPES, benchmark_inference
from ._table import InferenceBenchmark, Setting
from ._variants import VARIANTS, build_variants

__all__ = [
    "AS_GIVEN",
    "DTYPES",
    "VARIANTS",
    "InferenceBenchmark",
    "Measurement",
    "Setting",
    "benchmark_inference",
    "build_variants",
]
