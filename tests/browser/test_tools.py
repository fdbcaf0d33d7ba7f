"""What the browser tests stand on: they say what they lack, measure rightly and leave nothing."""

import json
import urllib.request
from http.cookiejar import CookieJar
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from . import tools
from .server import jupyterlab

if TYPE_CHECKING:
    from playwright.sync_api import Browser


@pytest.mark.parametrize(
    ("browser", "playwright", "message"),
    [
        (True, True, ""),
        (False, True, "browser tests need a browser (Debian: apt install chromium)"),
        (True, False, "browser tests need playwright (pip install playwright)"),
        (
            False,
            False,
            "browser tests need a browser (Debian: apt install chromium) and playwright "
            "(pip install playwright)",
        ),
    ],
)
def test_what_is_missing_is_said_in_one_line_with_how_to_install_it(
    browser: bool, playwright: bool, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}" if browser else None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name if playwright else None)
    assert tools.missing() == message


@pytest.mark.slow
def test_a_server_and_its_kernels_end_together(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    before = set(psutil.Process().children(recursive=True))
    with jupyterlab(tmp_path / "root", tmp_path / "own") as address:
        cookies = CookieJar()
        opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(cookies))
        opener.open(f"{address}/lab").close()
        token = next(cookie.value for cookie in cookies if cookie.name == "_xsrf")
        order = urllib.request.Request(f"{address}/api/kernels", b"{}", {"X-XSRFToken": token})
        with opener.open(order) as answer:
            assert json.load(answer)["name"] == "python3"
        started = set(psutil.Process().children(recursive=True)) - before
        assert len(started) >= 2  # the server and the kernel
    assert not [process for process in started if process.is_running()]
    assert list((tmp_path / "root").iterdir()) == []


@pytest.mark.slow
def test_a_server_that_can_not_start_says_why(tmp_path: Path) -> None:
    root = tmp_path / "nowhere"
    with (
        pytest.raises(RuntimeError, match=r"(?s)did not start:.*nowhere"),
        jupyterlab(root, tmp_path / "own"),
    ):
        pytest.fail("it started")


@pytest.mark.parametrize(
    ("style", "contrast"),
    [
        ("color: black; background: white", 21),
        ("color: #777; background: white", 4.478),
        ("color: #767676; background: white", 4.542),
        ("color: white; background: color(srgb 0 0 1)", 8.592),
        ("color: rgb(0 0 0 / 50%)", 3.977),  # half of it, on the page's own white
        ("color: black; opacity: 0.5", 3.977),
        ("color: white", 1),
    ],
)
def test_contrast_is_that_of_wcag(browser: "Browser", style: str, contrast: float) -> None:
    from .lab import legibility

    page = browser.new_page()
    page.set_content(f"<p style='{style}'>a <b>b</b></p><p hidden>c</p><script>d</script>")
    found = legibility(page.locator("body"))
    page.close()
    assert [text["text"] for text in found] == ["a", "b"]
    assert [text["contrast"] for text in found] == pytest.approx([contrast] * 2, abs=0.03)


def test_backgrounds_are_seen_through_one_another(browser: "Browser") -> None:
    from .lab import legibility

    page = browser.new_page()
    page.set_content("""<body style="background: black"><div style="background: rgb(255 0 0 / 60%)">
        <p style="background: rgb(0 0 255 / 0%)">a</p></div><input type="text" value="b"
        style="color: #111; background: #fff"><input type="text" placeholder="c">""")
    a, b, c = legibility(page.locator("body"))
    page.close()
    assert a["look"] == "0 0 0 on 153 0 0"
    assert (b["text"], b["look"]) == ("b", "17 17 17 on 255 255 255")
    assert (c["text"], c["look"].split(" on ")[1]) == ("c", "255 255 255")
