"""A procedural stand-in for CIFAR: ten classes of shapes, 32x32, the same bits on every call.

Place, size, angle, colours and which of shape and ground is the brighter one are random, so that no
single pixel tells anything and a linear classifier stays poor; a small conv net learns it quickly.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from ._image_dataset import ImageDataset

SIZE = 32
TRAIN, TEST = 5000, 1000
SEED = 2003_13549

# Each shape tells for points (u, v) of its own frame, where it spans about -1 ... 1, how far inside
# they are: positive inside, negative outside, with slope 1 at the edge.
Shape = Callable[[Tensor, Tensor], Tensor]
SHAPES: dict[str, Shape] = {
    "disc": lambda u, v: 0.9 - (u * u + v * v).sqrt(),
    "ring": lambda u, v: 0.22 - ((u * u + v * v).sqrt() - 0.78).abs(),
    "square": lambda u, v: 0.8 - torch.maximum(u.abs(), v.abs()),
    # two arms of one square, along its left and its lower edge
    "corner": lambda u, v: torch.minimum(
        0.26 - torch.minimum((u + 0.55).abs(), (v + 0.55).abs()),
        0.81 - torch.maximum(u.abs(), v.abs()),
    ),
    "triangle": lambda u, v: 0.5 - torch.maximum(v, u.abs() * math.sqrt(3 / 4) - v / 2),
    "cross": lambda u, v: torch.minimum(
        0.26 - torch.minimum(u.abs(), v.abs()), 1 - torch.maximum(u.abs(), v.abs())
    ),
    "bar": lambda u, v: torch.minimum(0.26 - u.abs(), 1 - v.abs()),
    "two dots": lambda u, v: 0.38 - ((u.abs() - 0.62) ** 2 + v * v).sqrt(),
    "stripes": lambda u, v: torch.minimum(
        0.17 - torch.minimum(u.abs(), (u.abs() - 0.72).abs()), 0.9 - v.abs()
    ),
    "four dots": lambda u, v: 0.34 - ((u.abs() - 0.58) ** 2 + (v.abs() - 0.58) ** 2).sqrt(),
}


def synthetic_dataset() -> ImageDataset:
    """5000 + 1000 images, every class equally often; takes about a second."""
    generator = torch.Generator().manual_seed(SEED)
    train, test = _draw(TRAIN, generator), _draw(TEST, generator)
    return ImageDataset("synthetic", tuple(SHAPES), *train, *test)


def _draw(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return torch.rand(count, *shape, generator=generator) * (high - low) + low

    labels = torch.arange(count)[torch.randperm(count, generator=generator)] % len(SHAPES)
    # directions from a table: sin and cos of tensors round differently from one CPU to another
    turns = [2 * math.pi * step / 64 for step in range(64)]
    directions = torch.tensor([(math.cos(turn), math.sin(turn)) for turn in turns])
    cosine, sine = directions[torch.randint(64, (count,), generator=generator)].T[:, :, None, None]

    radius = uniform(8, 11, 1, 1)
    pixel = torch.arange(SIZE) + 0.5
    y = (pixel[:, None] - uniform(10, SIZE - 10, 1, 1)) / radius
    x = (pixel[None, :] - uniform(10, SIZE - 10, 1, 1)) / radius
    u, v = cosine * x + sine * y, cosine * y - sine * x
    depth = torch.empty(count, SIZE, SIZE)
    for label, shape in enumerate(SHAPES.values()):
        members = labels == label
        depth[members] = shape(u[members], v[members])
    # 1 inside the shape, 0 outside, in between along its edge
    inside = (depth * radius + 0.5).clamp(0, 1)[:, None]

    # one of the two is darker, by a contrast that differs from image to image
    middle, contrast = uniform(100, 155, 3, 1, 1), uniform(30, 65, 1, 1, 1)
    polarity = torch.randint(2, (count, 1, 1, 1), generator=generator) * 2 - 1
    images = middle + (contrast * polarity + uniform(-20, 20, 3, 1, 1)) * (2 * inside - 1)

    clouds = functional.interpolate(uniform(-30, 30, 3, 5, 5), SIZE, mode="bilinear")
    grain = uniform(-15, 15, 3, SIZE, SIZE) + uniform(-15, 15, 3, SIZE, SIZE)
    return (images + clouds + grain).clamp(0, 255).round().to(torch.uint8), labels
