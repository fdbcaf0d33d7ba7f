"""What the tests of all commands share."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from bsconv.__main__ import main


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


@pytest.fixture
def failure(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs a command that must fail as bad input does; gives its one line on stderr."""

    def run(*arguments: object) -> str:
        capsys.readouterr()
        try:
            code: Any = main([str(argument) for argument in arguments])
        except SystemExit as stop:  # argparse
            code = stop.code
        captured = capsys.readouterr()
        assert (code, captured.out) == (2, ""), captured
        assert captured.err.startswith("bsconv"), captured.err
        assert captured.err.endswith("\n"), captured.err
        assert captured.err.count("\n") == 1, captured.err
        return captured.err

    return run
