"""How long a network and its BSConv variants take for inference here: measured in turns."""

from ._report import AS_GIVEN, InferenceBenchmark, Measurement, Setting
from ._run import benchmark_inference, build_variants, measured_roof, with_shared_blueprints

__all__ = [
    "AS_GIVEN", "InferenceBenchmark", "Measurement", "Setting", "benchmark_inference",
    "build_variants", "measured_roof", "with_shared_blueprints",
]  # fmt: skip
