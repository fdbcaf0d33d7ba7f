"""Random crop, flip and cutout for a batch of uint8 images, on the device where they lie."""

import torch
from torch import Tensor
from torch.nn import functional


def to_float(images: Tensor) -> Tensor:
    """uint8 images as float32 in [0, 1]."""
    if images.dtype != torch.uint8:
        raise ValueError(f"to_float needs uint8 images, got {images.dtype}")
    return images.float().div_(255)


def augment(
    images: Tensor,
    generator: torch.Generator,
    *,
    crop_padding: int = 4,
    flip: bool = True,
    cutout: int = 0,
) -> Tensor:
    """A new batch [N, C, H, W] in which every image has its own random crop, flip and cutout.

    Each image is padded with ``crop_padding`` zeros and cropped back to its size at any place,
    mirrored left to right in half of the cases (``flip``), and loses a square of ``cutout`` x
    ``cutout`` pixels, which may stick out. ``generator`` may live on another device.
    """
    count, channels, height, width = images.shape

    def draw(end: int) -> Tensor:
        """One number of 0 ... end - 1 for each image, as a column [N, 1]."""
        drawn = torch.randint(end, (count, 1), generator=generator, device=generator.device)
        return drawn.to(images.device)

    row = torch.arange(height, device=images.device)
    column = torch.arange(width, device=images.device)

    rows = row.expand(count, height)
    columns = column.expand(count, width)
    if crop_padding:
        images = functional.pad(images, [crop_padding] * 4)
        rows = rows + draw(2 * crop_padding + 1)
        columns = columns + draw(2 * crop_padding + 1)
    if flip:
        columns = torch.where(draw(2) == 1, columns.flip(1), columns)
    # one gather for all images: pixel (y, x) lies at y * row length + x
    pixels = rows[:, :, None] * images.shape[-1] + columns[:, None, :]
    pixels = pixels.view(count, 1, height * width).expand(-1, channels, -1)
    images = images.flatten(2).gather(2, pixels).view(count, channels, height, width)
    if cutout:
        y = row - (draw(height) - cutout // 2)  # from the upper left corner of the square
        x = column - (draw(width) - cutout // 2)
        in_rows = (y >= 0) & (y < cutout)
        in_columns = (x >= 0) & (x < cutout)
        images = images.masked_fill(in_rows[:, None, :, None] & in_columns[:, None, None, :], 0)
    return images
