"""A panel of controls with a picture and a text below, made of ipywidgets."""

import base64
import html
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from bsconv.basics.tables import Row, html_table

from ...experiments import plotting

try:
    import ipywidgets
except ImportError as error:
    raise ImportError("widgets need the package ipywidgets: pip install 'bsconv[lab]'") from error


class View(NamedTuple):
    """What the values of the controls amount to."""

    summary: str  # one sentence
    details: str = ""  # HTML below it that sets no colours
    draw: Callable[[], plotting.Figure] | None = None  # makes the picture, if there is one


def paragraph(text: str) -> str:
    return f"<p>{html.escape(text)}</p>"


def table(header: Sequence[str], rows: Sequence[Row]) -> str:
    """A table in the colours of any theme, which scrolls where it is large, by keyboard too."""
    # the class: JupyterLab's own look of tables, in any theme
    look = 'class="jp-RenderedHTMLCommon" style="max-height: 22em; overflow: auto"'
    return f'<div tabindex="0" {look}>{html_table(header, rows, caption="")}</div>'


def slider(label: str, low: int, high: int, value: int) -> Any:
    """A slider over the whole numbers from ``low`` to ``high``; ValueError for another value."""
    if value not in range(low, high + 1):
        raise ValueError(f"{_name(label)} needs to be {low} to {high}, got {value!r}")
    return ipywidgets.IntSlider(value, low, high, continuous_update=False, **_looks(label))


def limit(slider: Any, high: int) -> None:
    """Let a slider end at ``high``, where its value moves if it was above; its label says so."""
    slider.max = high
    slider.description = f"{slider.description.partition(' (')[0]} ({slider.min} to {high})"


def choice(label: str, options: Mapping[str, Any], value: Any) -> Any:
    """Names in a list, numbers on a slider: ``{what is shown: value}``; ValueError for others."""
    values = list(options.values())
    if value not in values:
        raise ValueError(f"{_name(label)} needs to be one of {values}, got {value!r}")
    looks = {"options": tuple(options.items()), "value": value, **_looks(label)}
    if isinstance(value, str):
        return ipywidgets.Dropdown(**looks)
    return ipywidgets.SelectionSlider(continuous_update=False, **looks)


def buttons(label: str, options: Mapping[str, Any], value: Any) -> Any:
    """One button for each of ``options``, which are ``{what is shown: value}``."""
    looks = _looks(label)
    looks["style"]["button_width"] = "auto"  # else long names are cut
    return ipywidgets.ToggleButtons(options=tuple(options.items()), value=value, **looks)


def words(label: str, hint: str) -> Any:
    """A line to type into, taken when the Enter key is pressed."""
    return ipywidgets.Text(placeholder=hint, continuous_update=False, **_looks(label))


def _name(label: str) -> str:
    """``"M"`` of ``"M, input channels"``, ``"filter"`` of ``"filter n"``."""
    return label.replace(",", "").partition(" ")[0]


def _looks(label: str) -> dict[str, Any]:
    return {
        "description": label,
        "style": {"description_width": "initial"},
        "layout": {"width": "auto", "min_width": "34em", "margin": "2px 1em 2px 0"},
    }


class Panel(ipywidgets.VBox):  # type: ignore[misc]
    """``controls`` by name; ``picture`` (PNG) and ``text`` show the ``view`` of their values.

    ``fit`` adapts the limits of controls to the values of others.
    """

    def __init__(
        self,
        title: str,
        controls: Mapping[str, Any],
        view: Callable[..., View],
        fit: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__()
        self._title, self._view, self._fit = title, view, fit
        self.controls = controls
        self.text = ipywidgets.HTML()
        looks = {"max_width": "100%", "width": "700px"}
        self.picture = ipywidgets.Image(format="png", layout=looks)
        flow = {"flex_flow": "row wrap", "width": "100%"}
        rows = ipywidgets.Box(list(controls.values()), layout=flow)
        self.children = [rows, self.picture, self.text]
        self._lock = threading.RLock()  # JupyterLab moves widgets while a cell runs
        self._fitting = False
        for widget in controls.values():
            widget.observe(self._moved, names="value")
        self._moved()

    def __repr__(self) -> str:
        return self.summary

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        """With the view in one line and as a picture, for readers without a running kernel."""
        bundle = {**super()._repr_mimebundle_(**kwargs), "text/plain": self.summary}
        if self.picture.value:
            bundle["image/png"] = base64.b64encode(self.picture.value).decode()
        return bundle

    def _moved(self, _change: Any = None) -> None:
        with self._lock:
            if self._fitting:  # by this very method
                return
            self._fitting = True
            try:
                self._fit()
            finally:
                self._fitting = False
            view = self._view(**{name: widget.value for name, widget in self.controls.items()})
            self.summary = f"{self._title}: {view.summary}"  # the view in one line
            said = f"{paragraph(view.summary)}{view.details}"
            self.text.value = f'<div aria-live="polite">{said}</div>'
            self.picture.value = b"" if view.draw is None else plotting.rendered(view.draw, "png")
            # a browser would show an image without content as a broken one
            self.picture.layout.display = None if view.draw else "none"
