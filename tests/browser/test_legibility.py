"""Contrast is measured as WCAG 2 defines it."""

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser


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
