"""Training for image classification."""

from ..config import RECIPES, Recipe, TrainConfig
from ._history import EpochMetrics, History
from ._train import evaluate, train

__all__ = ["RECIPES", "EpochMetrics", "History", "Recipe", "TrainConfig", "evaluate", "train"]
