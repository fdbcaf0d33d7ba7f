"""Pieces of HTML that inherit all colours, so that they are legible in dark themes as well."""

import html
from collections.abc import Sequence

from bsconv.pytorch._tools.tables import Row, html_table


def paragraph(text: str) -> str:
    return f"<p>{html.escape(text)}</p>"


def table(header: Sequence[str], rows: Sequence[Row]) -> str:
    """A table that scrolls by itself where it is long or wide, by keyboard too."""
    # the class: JupyterLab's own look of tables, in any theme
    look = 'class="jp-RenderedHTMLCommon" style="max-height: 22em; overflow: auto"'
    return f'<div tabindex="0" {look}>{html_table(header, rows, caption="")}</div>'
