"""Records of finished runs, summed up over seeds and compared with the published numbers."""

from ._record import EXECUTION, FORMAT, Record, load_records, recipe_of, results_folder
from ._summary import Summary, by_variant, summarize, variants_of
from ._table import ResultsTable
from .published import PUBLISHED_EPOCHS, PublishedResult, published_results, published_variants

__all__ = [
    "EXECUTION", "FORMAT", "PUBLISHED_EPOCHS", "PublishedResult", "Record", "ResultsTable",
    "Summary", "by_variant", "load_records", "published_results", "published_variants",
    "recipe_of", "results_folder", "summarize", "variants_of",
]  # fmt: skip
