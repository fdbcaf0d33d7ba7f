"""BSConv-U and BSConv-S in one and three dimensions: the same code with other convolutions."""

from torch import nn

from .modules import BSConvS, BSConvU


class BSConvU1d(BSConvU):
    """:class:`BSConvU` for signals (B, C, T): takes the place of a torch.nn.Conv1d."""

    _conv, _norm = nn.Conv1d, nn.BatchNorm1d


class BSConvS1d(BSConvS):
    """:class:`BSConvS` for signals (B, C, T): takes the place of a torch.nn.Conv1d."""

    _conv, _norm = nn.Conv1d, nn.BatchNorm1d


class BSConvU3d(BSConvU):
    """:class:`BSConvU` for volumes (B, C, D, H, W): takes the place of a torch.nn.Conv3d."""

    _conv, _norm = nn.Conv3d, nn.BatchNorm3d


class BSConvS3d(BSConvS):
    """:class:`BSConvS` for volumes (B, C, D, H, W): takes the place of a torch.nn.Conv3d."""

    _conv, _norm = nn.Conv3d, nn.BatchNorm3d


OTHER_DIMENSIONS = (BSConvU1d, BSConvS1d, BSConvU3d, BSConvS3d)
