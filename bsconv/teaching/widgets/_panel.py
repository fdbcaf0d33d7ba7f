"""A panel of controls with a picture and a text below, made of ipywidgets."""

import html
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from bsconv.pytorch._tools.tables import Row, html_table

from ...experiments import plotting
from ._controls import Choice, Control, Range, Words

try:
    import ipywidgets
except ImportError as error:
    raise ImportError(
        "widgets need the package ipywidgets: pip install 'bsconv[notebooks]'"
    ) from error

Values = Mapping[str, Any]

_READ_OUT = 16  # letters next to a slider; longer names are cut there, and begin the text anyway


class View(NamedTuple):
    """What the values of the controls amount to.

    ``summary`` is one sentence, ``details`` are HTML below it that sets no colours, ``draw`` makes
    the picture, if there is one.
    """

    summary: str
    details: str = ""
    draw: Callable[[], plotting.Figure] | None = None


def paragraph(text: str) -> str:
    return f"<p>{html.escape(text)}</p>"


def table(header: Sequence[str], rows: Sequence[Row]) -> str:
    """A table that scrolls by itself where it is long or wide, by keyboard too.

    It inherits all colours, so that it is legible in dark themes as well.
    """
    # the class: JupyterLab's own look of tables, in any theme
    look = 'class="jp-RenderedHTMLCommon" style="max-height: 22em; overflow: auto"'
    return f'<div tabindex="0" {look}>{html_table(header, rows, caption="")}</div>'


class Scene(Protocol):
    """What a panel shows: the controls as they should be for given values, and the view."""

    title: str

    def controls(self, values: Values) -> dict[str, Control]: ...

    def view(self, values: Values) -> View: ...


class Panel(ipywidgets.VBox):  # type: ignore[misc]
    """The ``controls`` of a scene by name; ``picture`` and ``text`` follow their values.

    Each has a ``value``; that of the picture is a PNG file.
    """

    def __init__(self, scene: Scene) -> None:
        super().__init__()
        self.scene = scene
        self.text = ipywidgets.HTML()
        self.picture = ipywidgets.Image(
            format="png", layout={"max_width": "100%", "width": "700px"}
        )
        self.controls = {name: _widget(control) for name, control in scene.controls({}).items()}
        rows = ipywidgets.Box(
            list(self.controls.values()), layout={"flex_flow": "row wrap", "width": "100%"}
        )
        self.children = [rows, self.picture, self.text]
        self._lock = threading.RLock()  # JupyterLab moves widgets while a cell runs
        self._fitting = False
        for widget in self.controls.values():
            widget.observe(self._moved, names="value")
        self._moved()

    def __repr__(self) -> str:
        return self.summary

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        """With the view in one line for readers that have no widgets, such as a stored notebook."""
        return {**super()._repr_mimebundle_(**kwargs), "text/plain": self.summary}

    def _values(self) -> dict[str, Any]:
        return {name: widget.value for name, widget in self.controls.items()}

    def _moved(self, _change: Any = None) -> None:
        with self._lock:
            if self._fitting:  # by this very method
                return
            self._fitting = True
            try:
                for name, control in self.scene.controls(self._values()).items():
                    _fit(self.controls[name], control)
            finally:
                self._fitting = False
            view = self.scene.view(self._values())
            self.summary = f"{self.scene.title}: {view.summary}"  # the view in one line
            self.text.value = (
                f'<div aria-live="polite"><p>{html.escape(view.summary)}</p>{view.details}</div>'
            )
            self.picture.value = b"" if view.draw is None else plotting.rendered(view.draw, "png")
            # a browser would show an image without content as a broken one
            self.picture.layout.display = None if view.draw else "none"


def _widget(control: Control) -> Any:
    arguments: dict[str, Any] = {
        "description": control.label,
        "value": control.value,
        "style": {"description_width": "initial"},
        "layout": {"width": "auto", "min_width": "34em", "margin": "2px 1em 2px 0"},
    }
    if isinstance(control, Range):
        return ipywidgets.IntSlider(
            min=control.low, max=control.high, continuous_update=False, **arguments
        )
    if isinstance(control, Words):
        return ipywidgets.Text(placeholder=control.hint, continuous_update=False, **arguments)
    options = tuple(control.options.items())
    if control.buttons:
        arguments["style"]["button_width"] = "auto"  # else long names are cut
        return ipywidgets.ToggleButtons(options=options, **arguments)
    # not a Dropdown: JupyterLab takes its arrow keys to walk from cell to cell
    return ipywidgets.SelectionSlider(
        options=options,
        continuous_update=False,
        readout=max(map(len, control.options)) <= _READ_OUT,
        **arguments,
    )


def _fit(widget: Any, control: Control) -> None:
    """Give the widget the limits, options and label of ``control``, and a value they allow."""
    value = control.fitted(widget.value)
    if isinstance(control, Range):
        widget.min = min(widget.min, control.low)  # never above max, whatever comes first
        widget.max, widget.min = control.high, control.low
    elif isinstance(control, Choice):
        options = tuple(control.options.items())
        if widget.options != options:
            widget.options = options
    if widget.description != control.label:
        widget.description = control.label
    if widget.value != value:
        widget.value = value
