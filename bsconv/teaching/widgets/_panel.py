"""A panel of controls, a text and a picture, with ipywidgets or without."""

import contextlib
import gc
import html
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol

from ...experiments import plotting
from ._controls import Control

MISSING = "This figure has controls where the package ipywidgets is installed:"
INSTALL = "pip install 'bsconv[notebooks]'"
_MOST_KEPT = 100  # views that were shown, so that going back costs nothing

Values = Mapping[str, Any]


class View(NamedTuple):
    """What the values of the controls amount to.

    ``summary`` is one sentence, ``details`` are HTML below it that sets no colours, ``draw`` makes
    the picture, if there is one.
    """

    summary: str
    details: str = ""
    draw: Callable[[], plotting.Figure] | None = None


class Scene(Protocol):
    """What a panel shows: the controls as they should be for given values, and the view."""

    title: str

    def controls(self, values: Values) -> dict[str, Control]: ...

    def view(self, values: Values) -> View: ...


class Panel:
    """The controls of a scene by name, and ``text`` and ``picture``, which follow their values.

    Controls, text and picture have a ``value`` each; that of the picture is a PNG file.
    """

    controls: dict[str, Any]
    text: Any
    picture: Any
    scene: Scene

    def start(self, scene: Scene, make: Callable[[Control, Callable[[Any], None]], Any]) -> None:
        self.scene = scene
        self._shown: dict[tuple[Any, ...], tuple[View, bytes]] = {}
        self._lock = threading.RLock()  # JupyterLab moves widgets beside a cell that runs
        self._fitting = True
        self.controls = {
            name: make(control, self._moved) for name, control in scene.controls({}).items()
        }
        self._fitting = False
        self._moved()

    @property
    def summary(self) -> str:
        """The view in one line."""
        return f"{self.scene.title}: {self._current()[0].summary}"

    def _values(self) -> dict[str, Any]:
        return {name: control.value for name, control in self.controls.items()}

    def _moved(self, _change: Any = None) -> None:
        with self._lock, _collecting_later():
            if self._fitting:  # by this very method
                return
            self._fitting = True
            try:
                for name, control in self.scene.controls(self._values()).items():
                    self._fit(self.controls[name], control)
            finally:
                self._fitting = False
            view, picture = self._current()
            self.text.value = (
                f'<div aria-live="polite"><p>{html.escape(view.summary)}</p>{view.details}</div>'
            )
            self.picture.value = picture

    def _fit(self, widget: Any, control: Control) -> None:
        raise NotImplementedError

    def _current(self) -> tuple[View, bytes]:
        values = self._values()
        key = tuple(values.values())
        if key not in self._shown:
            view = self.scene.view(values)
            picture = b"" if view.draw is None else plotting.rendered(view.draw, "png")
            if len(self._shown) >= _MOST_KEPT:
                self._shown.pop(next(iter(self._shown)))
            self._shown[key] = view, picture
        return self._shown[key]


@contextlib.contextmanager
def _collecting_later() -> Iterator[None]:
    """With torch loaded, a full garbage collection takes longer than the picture."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class _PlainPart:
    """What stands for a control, the text or the picture where there are no widgets."""

    def __init__(self, control: Control | None = None, moved: Any = None) -> None:
        self.control = control
        self.moved = moved
        self._value = control.value if control else ""

    @property
    def value(self) -> Any:
        return self._value

    @value.setter
    def value(self, value: Any) -> None:
        self._value = self.control.check(value) if self.control else value
        if self.moved:
            self.moved()


class PlainPanel(Panel):
    """A panel without widgets: it says so where it is shown, and code may move it all the same."""

    def __init__(self, scene: Scene) -> None:
        self.text, self.picture = _PlainPart(), _PlainPart()
        self.start(scene, _PlainPart)

    def __repr__(self) -> str:
        return f"{MISSING} {INSTALL}\n{self.summary}"

    def _repr_html_(self) -> str:
        return f"<p>{MISSING} <code>{INSTALL}</code><br>{html.escape(self.summary)}</p>"

    def _fit(self, widget: Any, control: Control) -> None:
        widget.control = control
        if widget.value != control.fitted(widget.value):
            widget.value = control.fitted(widget.value)


def panel(scene: Scene) -> Any:
    """The scene in an ``ipywidgets.VBox``; where ipywidgets is not installed, in one line."""
    try:
        import ipywidgets  # noqa: F401
    except ImportError:
        return PlainPanel(scene)
    from ._jupyter import JupyterPanel

    return JupyterPanel(scene)
