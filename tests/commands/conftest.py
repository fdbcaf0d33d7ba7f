"""What the tests of all commands share."""

from collections.abc import Callable
from typing import Any

import pytest

from bsconv.__main__ import main


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
