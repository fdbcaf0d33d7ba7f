"""A notebook open in JupyterLab, as a reader sees it, and the panels of its widgets."""

import contextlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from playwright.sync_api import (
    Browser,
    ConsoleMessage,
    Locator,
    Page,
    Request,
    TimeoutError,
    expect,
)

LEGIBILITY = (Path(__file__).parent / "legibility.js").read_text()
THEMES = {"light": "JupyterLab Light", "dark": "JupyterLab Dark"}
CONTROLS = ".widget-slider, .widget-dropdown, .widget-toggle-buttons, .widget-text"
MOST_TABS = 40
START_SECONDS, RUN_SECONDS, MOVE_SECONDS = 120, 900, 60  # many, as other work may run too
WINDOW = {"width": 1300, "height": 1200}

# sent any earlier, Run All runs nothing and says nothing
IS_READY = """() => {
  const panel = window.jupyterapp?.shell.currentWidget;
  const kernel = panel?.sessionContext?.session?.kernel;
  return panel?.context?.isReady && kernel?.connectionStatus === "connected"
    && kernel.status === "idle";
}"""

# Run All goes on behind a cell that may fail, but JupyterLab no longer shows a * then
IS_OVER = """() => {
  const { content, sessionContext } = window.jupyterapp.shell.currentWidget;
  const cells = content.widgets.map(cell => cell.model).filter(model => model.type === "code");
  const failed = cells.some(model =>
    !model.getMetadata("tags")?.includes("raises-exception")
    && model.outputs.toJSON().some(output => output.output_type === "error"));
  const status = sessionContext.session.kernel.status;
  const all = cells.every(model => model.executionCount !== null) && status === "idle";
  return all || failed || status === "dead" || document.querySelector(".jp-Dialog") !== null;
}"""

# of each output that is an error or on stderr; code cells are counted from 1
ERRORS = """() => window.jupyterapp.shell.currentWidget.content.widgets
  .filter(cell => cell.model.type === "code")
  .flatMap((cell, index) => cell.model.outputs.toJSON()
    .filter(output => output.output_type === "error" || output.name === "stderr")
    .map(output => ({
      cell: index + 1,
      message: output.name === "stderr" ? output.text : `${output.ename}: ${output.evalue}`,
    })))"""

# red, green, blue and alpha at the four corners of each picture
PICTURE_CORNERS = """images => images.map(image => {
  const [width, height] = [image.naturalWidth, image.naturalHeight];
  const context = new OffscreenCanvas(width, height).getContext("2d");
  context.drawImage(image, 0, 0);
  return [[0, 0], [width - 1, 0], [0, height - 1], [width - 1, height - 1]]
    .map(([x, y]) => [...context.getImageData(x, y, 1, 1).data].join(" "));
})"""

# elements with less room than they need
CUT_OFF = """elements => elements
  .filter(element => element.scrollWidth > element.clientWidth)
  .map(element => element.textContent)"""

# from the first cell to the last
CONTENT_HEIGHT = """() => {
  const cells = [...document.querySelectorAll(".jp-Notebook .jp-Cell")];
  const [first, last] = [cells.at(0), cells.at(-1)].map(cell => cell.getBoundingClientRect());
  return Math.ceil(last.bottom - first.top) + 20;
}"""


LEAST_CONTRAST = 4.5  # WCAG 2, level AA


def illegible(elements: Locator, least: int) -> list[dict[str, Any]]:
    """Pieces of text with too little contrast, and how they look, among at least so many."""
    texts = [text for each in elements.element_handles() for text in each.evaluate(LEGIBILITY)]
    assert len(texts) >= least
    return [text for text in texts if text["contrast"] < LEAST_CONTRAST]


class LabNotebook:
    """``complaints`` are what the page reported of itself: errors, failed requests, dialogs."""

    def __init__(self, browser: Browser, address: str, path: str) -> None:
        self.path = PurePosixPath(path)
        self.complaints: list[str] = []
        self.page: Page = browser.new_context(viewport=WINDOW).new_page()
        self.page.on("console", self._said)
        self.page.on("pageerror", lambda error: self.complaints.append(f"uncaught: {error}"))
        self.page.on("requestfailed", self._failed)
        self.page.goto(f"{address}/lab/tree/{path}?reset", timeout=1000 * START_SECONDS)
        self._wait(IS_READY, START_SECONDS)

    def _said(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.complaints.append(f"console: {message.text} ({message.location['url']})")

    def _failed(self, request: Request) -> None:
        self.complaints.append(f"no answer to {request.method} {request.url}: {request.failure}")

    def command(self, name: str, **arguments: Any) -> None:
        """Start a command of JupyterLab, as its menus do, without waiting for its end."""
        call = "([name, arguments]) => void window.jupyterapp.commands.execute(name, arguments)"
        self.page.evaluate(call, [name, arguments])

    def run_all(self) -> None:
        """Run the notebook again, until all cells have run or one failed that should not."""
        self.command("notebook:clear-all-cell-outputs")
        self.command("notebook:run-all-cells")
        self._wait(IS_OVER, RUN_SECONDS)

    def _wait(self, condition: str, seconds: int) -> None:
        try:
            self.page.wait_for_function(condition, timeout=1000 * seconds, polling=200)
        except TimeoutError as error:
            seen = f"pop-ups {self.pop_ups()}, cells {' '.join(self.prompts())}"
            raise AssertionError(f"{self.path} not ready after {seconds} s: {seen}") from error

    def prompts(self) -> list[str]:
        """What stands next to the code cells, such as "[3]:" or "[*]:"."""
        return self.page.locator(".jp-CodeCell .jp-InputPrompt").all_text_contents()

    def pop_ups(self) -> list[str]:
        return self.page.locator(".jp-Dialog, .Toastify__toast").all_text_contents()

    def use_theme(self, theme: str) -> None:
        self.command("apputils:change-theme", theme=THEMES[theme])
        light = "true" if theme == "light" else "false"
        self.page.wait_for_selector(f"body[data-jp-theme-light='{light}']", state="attached")

    def screenshot(self, path: Path) -> None:
        """The whole notebook, however long."""
        shown = 0
        while shown < (height := self.page.evaluate(CONTENT_HEIGHT)):
            shown = height  # of cells that were never shown, the height is a guess
            self.page.set_viewport_size({**WINDOW, "height": height + 200})
        notebook = self.page.locator(".jp-WindowedPanel-outer")
        notebook.evaluate("outer => outer.scrollTo(0, 0)")
        self.page.screenshot(path=path, clip={**notebook.bounding_box(), "height": height})
        self.page.set_viewport_size(WINDOW)

    def panel(self) -> "WidgetPanel":
        """The first widget of the notebook."""
        return WidgetPanel(self.page.locator(".jp-OutputArea-output .widget-vbox").first)

    def close(self) -> None:
        """With its kernel."""
        try:
            self.page.evaluate("() => window.jupyterapp.serviceManager.sessions.shutdownAll()")
        finally:
            self.page.context.close()


class WidgetPanel:
    """The controls, the text and the picture of a widget on the page, moved by keyboard alone."""

    def __init__(self, box: Locator) -> None:
        self.box = box
        self.page = box.page
        self.text = box.locator("[aria-live]")
        self.image = box.locator("img")

    def shows(self, *texts: str) -> None:
        """Wait until each of these texts stands below the controls."""
        for text in texts:
            expect(self.text).to_contain_text(text, timeout=1000 * MOVE_SECONDS)

    @contextlib.contextmanager
    def redrawn(self) -> Iterator[None]:
        """The move made in this context needs to change the picture."""
        source, picture = self.image.get_attribute("src"), self.picture()
        yield
        expect(self.image).not_to_have_attribute("src", source, timeout=1000 * MOVE_SECONDS)
        assert self.picture() != picture

    def picture(self) -> bytes:
        """What is shown as an image; empty if nothing is."""
        if not self.image.is_visible():
            return b""
        content = "async image => [...new Uint8Array(await (await fetch(image.src)).arrayBuffer())]"
        return bytes(self.image.evaluate(content))

    def slide(self, label: str, key: str) -> None:
        """Press a key on a slider, ArrowRight, ArrowLeft, Home, End, or on a list, Home, End."""
        control = self._control(label)
        self._go_to(control.get_by_role("slider").or_(control.get_by_role("combobox")))
        self.page.keyboard.press(key)

    def choose(self, label: str, option: str) -> None:
        """Press one of several buttons."""
        self._go_to(self._control(label).get_by_role("button", name=option))
        self.page.keyboard.press("Enter")

    def write(self, label: str, text: str) -> None:
        """Replace what stands in a line."""
        self._go_to(self._control(label).get_by_role("textbox"))
        self.page.keyboard.press("ControlOrMeta+A")
        self.page.keyboard.press("Backspace")
        self.page.keyboard.type(text)
        self.page.keyboard.press("Enter")

    def _control(self, label: str) -> Locator:
        labelled = self.page.locator("label", has_text=label)
        return self.box.locator(CONTROLS, has=labelled)

    def _go_to(self, element: Locator) -> None:
        """By the Tab key, from the cell that shows the panel."""
        self.box.locator("xpath=ancestor::*[contains(@class, 'jp-CodeCell')]").focus()
        for _ in range(MOST_TABS):
            if element.evaluate("element => element === document.activeElement"):
                return
            self.page.keyboard.press("Tab")
        raise AssertionError(f"the Tab key does not lead to {element}")
