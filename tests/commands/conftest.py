"""What the tests of all commands share."""

from pathlib import Path

import pytest
from PIL import Image


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 8x8 images of three classes, told apart by their colour."""
    root = tmp_path_factory.mktemp("images")
    for part, count in (("train", 8), ("test", 4)):
        for name in ("red", "lime", "blue"):
            (root / part / name).mkdir(parents=True)
            for number in range(count):
                Image.new("RGB", (8, 8), name).save(root / part / name / f"{number}.png")
    return root
