"""Crop, flip and cutout in batches, against NumPy on one image at a time."""

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor

from bsconv.experiments.data._augmentation import augment, to_float


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def numbered(height: int = 8, width: int = 8) -> Tensor:
    """One image [3, H, W] whose pixels all differ, none of them zero."""
    return torch.arange(1, 3 * height * width + 1, dtype=torch.uint8).reshape(3, height, width)


def admissible(image: Tensor, padding: int, flip: bool) -> dict[tuple[int, int, bool], bytes]:
    """What augment may make of ``image``: bytes by row offset, column offset, flipped or not."""
    pixels = image.numpy()
    _, height, width = pixels.shape
    padded = np.pad(pixels, ((0, 0), (padding, padding), (padding, padding)))
    results = {}
    offsets = range(2 * padding + 1)
    for top, left, flipped in itertools.product(offsets, offsets, (False, True)[: 1 + flip]):
        crop = padded[:, top : top + height, left : left + width]
        results[top, left, flipped] = (crop[:, :, ::-1] if flipped else crop).tobytes()
    return results


@pytest.mark.parametrize(
    ("padding", "flip", "height", "width"),
    [(4, True, 8, 8), (2, True, 8, 6), (2, False, 5, 9), (0, True, 8, 8), (9, True, 4, 4)],
)
def test_every_image_has_its_own_admissible_crop_and_flip(padding, flip, height, width):
    image = numbered(height, width)
    allowed = admissible(image, padding, flip)
    batch = image.expand(16 * len(allowed), -1, -1, -1)
    results = augment(batch, generator(), crop_padding=padding, flip=flip)
    assert {result.numpy().tobytes() for result in results} == set(allowed.values())


def test_offsets_and_flips_are_uniform_and_independent() -> None:
    image, count = numbered(), 20_000
    cases = {result: case for case, result in admissible(image, 2, flip=True).items()}
    batch = augment(image.expand(count, -1, -1, -1), generator(), crop_padding=2)
    drawn = [cases[result.numpy().tobytes()] for result in batch]
    frequencies = np.zeros((5, 5, 2))
    for top, left, flipped in drawn:
        frequencies[top, left, int(flipped)] += 1
    expected = count / 50
    assert ((frequencies - expected) ** 2 / expected).sum() < 94  # chi-square, 49 degrees, p 1e-4


@pytest.mark.parametrize("side", [0, 1, 4, 5, 16])
def test_cutout_is_a_zero_square_clipped_at_the_border(side: int) -> None:
    height, width = 6, 8
    image = numbered(height, width)
    allowed = {}
    for row, column in itertools.product(range(height), range(width)):
        pixels = image.numpy().copy()
        top, left = row - side // 2, column - side // 2
        pixels[:, max(top, 0) : top + side, max(left, 0) : left + side] = 0
        allowed[row, column] = pixels.tobytes()
    batch = image.expand(4000, -1, -1, -1)
    results = augment(batch, generator(), crop_padding=0, flip=False, cutout=side)
    assert {result.numpy().tobytes() for result in results} == set(allowed.values())
    assert results.data_ptr() != batch.data_ptr()


def test_the_generator_decides_and_nothing_else() -> None:
    images = torch.randint(256, (64, 3, 32, 32), dtype=torch.uint8)
    before = images.clone()
    state = torch.get_rng_state()
    first = augment(images, generator(1), cutout=8)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(images, before)
    assert (first.dtype, first.shape) == (torch.uint8, images.shape)
    torch.manual_seed(99)
    assert torch.equal(augment(images, generator(1), cutout=8), first)
    assert not torch.equal(augment(images, generator(2), cutout=8), first)


def test_memory_format_and_strides_change_nothing() -> None:
    images = torch.randint(256, (16, 3, 8, 8), dtype=torch.uint8)
    expected = augment(images, generator(), cutout=3)
    for same in (
        images.contiguous(memory_format=torch.channels_last),
        images.permute(0, 1, 3, 2).contiguous().permute(0, 1, 3, 2),
    ):
        assert torch.equal(augment(same, generator(), cutout=3), expected)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu() -> None:
    image = numbered()
    allowed = set(admissible(image, 2, flip=True).values())
    batch = image.expand(2000, -1, -1, -1).cuda()
    results = augment(batch, torch.Generator("cuda").manual_seed(0), crop_padding=2)
    assert results.is_cuda
    assert {result.numpy().tobytes() for result in results.cpu()} == allowed
    # a generator on the CPU draws the same for images on either device
    on_gpu = augment(batch, generator(), cutout=3)
    assert torch.equal(on_gpu.cpu(), augment(batch.cpu(), generator(), cutout=3))


def test_to_float_covers_zero_to_one() -> None:
    floats = to_float(torch.arange(256, dtype=torch.uint8))
    expected = np.arange(256, dtype=np.float32) / np.float32(255)
    np.testing.assert_array_equal(floats.numpy(), expected, strict=True)
    with pytest.raises(ValueError, match=r"needs uint8 images, got torch.float32"):
        to_float(floats)
