"""A bar that shows how much of the work is done."""

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def progress_bar(work: float, show: bool) -> Iterator[Callable[[float], object]]:
    """What is yielded is told of each part of ``work`` when that is done.

    The time left is the time taken in proportion. Nothing is shown where tqdm is not installed.
    """
    try:
        tqdm = importlib.import_module("tqdm") if show else None
    except ImportError:
        tqdm = None
    if tqdm is None:
        yield lambda part: None
        return
    form = "{l_bar}{bar}| {elapsed}, {remaining} left"
    with tqdm.tqdm(total=work, desc="projecting", bar_format=form, smoothing=0) as bar:
        yield bar.update
