"""The examples in the docstrings of the public names, as a reader would run them."""

import doctest
import io

import pytest
import torch
from torch import nn

import bsconv.pytorch


@pytest.mark.parametrize("name", bsconv.pytorch.__all__)
def test_each_public_name_has_an_example_that_runs(name: str) -> None:
    known = {"torch": torch, "nn": nn, **vars(bsconv.pytorch)}
    thing, said = getattr(bsconv.pytorch, name), io.StringIO()
    (example,) = doctest.DocTestFinder(recurse=False).find(thing, name, globs=known)
    result = doctest.DocTestRunner().run(example, out=said.write)
    assert result.attempted
    assert not result.failed, said.getvalue()
