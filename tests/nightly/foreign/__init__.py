"""Replacers on the models of torchvision, pytorchcv and timm."""
