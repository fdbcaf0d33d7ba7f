"""Errors to the letter: users go by what they say."""

import re

import pytest


def raises_exactly(
    message: str, error: type[Exception] = ValueError
) -> "pytest.RaisesExc[Exception]":
    """``pytest.raises`` for an error with this message and not a letter more."""
    return pytest.raises(error, match=f"^{re.escape(message)}$")
