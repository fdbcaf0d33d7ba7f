"""Files are written whole or not at all, and errors stay on one line."""

import os
from pathlib import Path

import pytest

from bsconv.basics.errors import one_line
from bsconv.basics.files import written_whole


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")

    def write(text: str, *, interrupted: bool) -> None:
        with written_whole(path) as temporary:
            temporary.write_text(text)
            assert path.read_text() == "old"
            if interrupted:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write("half", interrupted=True)
    assert path.read_text() == "old"
    write("new", interrupted=False)
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_text("old")
    link.symlink_to(target)
    with written_whole(link) as temporary:
        temporary.write_text("new")
    assert link.is_symlink()
    assert target.read_text() == "new"


def test_a_pipe_is_written_directly(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    with written_whole(f"/dev/fd/{writing}") as temporary:
        temporary.write_text("text")
    os.close(writing)
    with os.fdopen(reading) as pipe:
        assert pipe.read() == "text"


@pytest.mark.parametrize("name", ["", "absent/a.txt"])
def test_what_cannot_be_written_is_named(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    rule = pytest.raises(OSError, match=f"^cannot write {path}: ")
    with rule as caught, written_whole(path) as temporary:
        temporary.write_text("text")
    assert "\n" not in str(caught.value)


def test_errors_on_one_line() -> None:
    assert one_line(ValueError("one\n  two")) == "one two"
    assert one_line(ValueError()) == "ValueError"
    assert one_line("x" * 200) == "x" * 160
    assert one_line("x" * 200, limit=None) == "x" * 200
