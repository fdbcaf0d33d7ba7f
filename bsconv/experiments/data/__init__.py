"""CIFAR-10, CIFAR-100, a synthetic set or a folder of images, as tensors."""

from ._archives import data_folder
from ._augmentation import augment, to_float
from ._image_dataset import DatasetNotFoundError, ImageDataset
from ._image_files import ImageFiles, batches_of, fitted, image_files, or_fault, read_image
from ._load import load_dataset

__all__ = [
    "DatasetNotFoundError", "ImageDataset", "ImageFiles", "augment", "batches_of", "data_folder",
    "fitted", "image_files", "load_dataset", "or_fault", "read_image", "to_float",
]  # fmt: skip
