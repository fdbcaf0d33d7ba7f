"""Training for image classification."""

from ..config import TrainConfig
from ._inputs import answers, check_classes, check_fit, find_dataset, logits_of, model_input
from ._models import check_model, model_by_name, read_start, settled, trained_model
from ._processes import PeerFailed, Terminated, find_device, terminable
from ._run_folder import EpochMetrics, History, read_history
from ._train import evaluate, train

__all__ = [
    "EpochMetrics", "History", "PeerFailed", "Terminated", "TrainConfig", "answers",
    "check_classes", "check_fit", "check_model", "evaluate", "find_dataset", "find_device",
    "logits_of", "model_by_name", "model_input", "read_history", "read_start", "settled",
    "terminable", "train", "trained_model",
]  # fmt: skip
