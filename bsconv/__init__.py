"""Blueprint Separable Convolutions (BSConv) for PyTorch; the library is ``bsconv.pytorch``."""

__version__ = "1.0.0.dev0"
