"""The panel made of ipywidgets; imported only where they are installed."""

from collections.abc import Callable
from typing import Any

import ipywidgets as widgets

from ._controls import Choice, Control, Range, Words
from ._panel import Panel, Scene

_READ_OUT = 16  # letters beside a slider; longer names are cut there, and begin the text anyway


class JupyterPanel(Panel, widgets.VBox):  # type: ignore[misc]
    """A box with the controls on top, the picture below, then the text."""

    def __init__(self, scene: Scene) -> None:
        super().__init__()
        self.text = widgets.HTML()
        self.picture = widgets.Image(format="png", layout={"max_width": "100%", "width": "700px"})
        self.start(scene, _widget)
        rows = widgets.Box(
            list(self.controls.values()), layout={"flex_flow": "row wrap", "width": "100%"}
        )
        self.children = [rows, self.picture, self.text]

    def __repr__(self) -> str:
        return self.summary

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        """With the view in one line for readers that have no widgets, such as a stored notebook."""
        bundle = super()._repr_mimebundle_(**kwargs)
        return {**bundle, "text/plain": self.summary}

    def _moved(self, _change: Any = None) -> None:
        super()._moved()
        # a browser would show an image without content as a broken one
        self.picture.layout.display = None if self.picture.value else "none"

    def _fit(self, widget: Any, control: Control) -> None:
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


def _widget(control: Control, moved: Callable[[Any], None]) -> Any:
    arguments: dict[str, Any] = {
        "description": control.label,
        "value": control.value,
        "style": {"description_width": "initial"},
        "layout": {"width": "auto", "min_width": "34em", "margin": "2px 1em 2px 0"},
    }
    if isinstance(control, Range):
        widget = widgets.IntSlider(
            min=control.low, max=control.high, continuous_update=False, **arguments
        )
    elif isinstance(control, Words):
        widget = widgets.Text(placeholder=control.hint, continuous_update=False, **arguments)
    elif control.buttons:
        arguments["style"]["button_width"] = "auto"  # else long names are cut
        widget = widgets.ToggleButtons(options=tuple(control.options.items()), **arguments)
    else:
        # no Dropdown: JupyterLab takes its arrow keys to walk from cell to cell
        widget = widgets.SelectionSlider(
            options=tuple(control.options.items()),
            continuous_update=False,
            readout=max(map(len, control.options)) <= _READ_OUT,
            **arguments,
        )
    widget.observe(moved, names="value")
    return widget
