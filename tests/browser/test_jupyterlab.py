"""Every notebook and every widget in JupyterLab, in a real browser, as a reader meets them."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
import torchvision

from bsconv.pytorch import BSConvS_Replacer, BSConvU_Replacer, get_model
from bsconv.teaching import widgets
from helpers.notebooks import FOLDER, NOTEBOOKS, cells_of

if TYPE_CHECKING:
    from .lab import LabNotebook, WidgetPanel

each_notebook = pytest.mark.parametrize("notebook", [n.stem for n in NOTEBOOKS], indirect=True)
# all but tracebacks, whose colours are JupyterLab's own
OUTPUTS = ".jp-OutputArea-output:not([data-mime-type='application/vnd.jupyter.stderr'])"


def in_notebook(name: str) -> pytest.MarkDecorator:
    """The test's ``notebook``; tests of one notebook share one run of it."""
    return pytest.mark.parametrize("notebook", [name], indirect=True)


# notebooks


@each_notebook
def test_run_all_reaches_the_end(notebook: "LabNotebook") -> None:
    from .lab import ERRORS

    code = [cell for cell in cells_of(FOLDER / notebook.path.name) if cell["cell_type"] == "code"]
    meant = [number for number, cell in enumerate(code, 1) if "raises-exception" in cell["tags"]]
    errors = notebook.page.evaluate(ERRORS)
    assert [error["cell"] for error in errors] == meant, errors
    assert notebook.prompts() == [f"[{number}]:" for number in range(1, len(code) + 1)]
    assert notebook.pop_ups() == []
    assert notebook.complaints == []


@pytest.mark.parametrize("theme", ["light", "dark"])
@each_notebook
def test_text_is_legible_and_figures_are_on_white(notebook, theme, screenshots):
    from .lab import PICTURE_CORNERS, illegible

    notebook.use_theme(theme)
    notebook.screenshot(screenshots / f"{notebook.path.stem}-{theme}.png")
    for selector in (OUTPUTS, ".jp-MarkdownOutput"):
        assert illegible(notebook.page.locator(selector), least=4) == []
    pictures = notebook.page.locator(".jp-OutputArea-output img:visible")
    corners = pictures.evaluate_all(PICTURE_CORNERS)
    assert corners
    assert {corner for picture in corners for corner in picture} == {"255 255 255 255"}


# Widgets of each kind of control; tests/teaching moves all of them without a browser. What they say
# after each move is computed here in another way.


def look_at(notebook: "LabNotebook", panel: "WidgetPanel", path: Path) -> None:
    """In either theme: a picture for later, and whether all of its text is legible."""
    from .lab import CUT_OFF, illegible

    assert panel.box.locator("label, button, .widget-readout").evaluate_all(CUT_OFF) == []
    for theme in ("light", "dark"):
        notebook.use_theme(theme)
        panel.box.screenshot(path=path.with_name(f"{path.name}-{theme}.png"))
        assert illegible(panel.box, least=1) == []


def shares(slices: np.ndarray) -> np.ndarray:
    """The share of each singular value in the energy of the slices, shape (M, K * K)."""
    energies = np.linalg.svd(slices.astype(float), compute_uv=False) ** 2
    return energies / energies.sum()


@in_notebook("04_kernel_correlations")
def test_kernel_explorer(notebook: "LabNotebook", screenshots: Path) -> None:
    explorer, network = notebook.panel(), get_model("cifar_resnet20", 10, pretrained="cifar10")
    layer = "backbone.stage2.unit1.conv1.conv"
    for key, filter in (("Home", 0), ("ArrowRight", 1), ("End", 31)):
        slices = network.get_submodule(layer).weight[filter].detach().flatten(1).numpy()
        with explorer.redrawn():
            explorer.slide("filter n", key)
            explorer.shows(
                f"{layer}, filter {filter}: the first principal component explains "
                f"{shares(slices - slices.mean(0))[0]:.1%} of the variance of its 16 slices",
                f"One blueprint (BSConv-U) keeps {shares(slices)[0]:.1%} of the energy",
            )
    with explorer.redrawn():
        explorer.slide("layer", "Home")
        explorer.shows("init_unit.conv.conv, filter 15: ", "of its 3 slices of 3 x 3")
    same = widgets.kernel_explorer(network, filter=15)
    assert explorer.picture() == same.picture.value
    labels = [text for text in explorer.box.locator("label").all_text_contents() if text]
    assert labels == ["layer", "filter n (0 to 15)"]
    look_at(notebook, explorer, screenshots / "kernel-explorer")


@in_notebook("05_build_from_scratch")
def test_cost_calculator(notebook: "LabNotebook", screenshots: Path) -> None:
    calculator = notebook.panel()
    calculator.shows("M N K² = 64·256·3² = 147,456")
    with calculator.redrawn():
        calculator.slide("K, kernel side", "ArrowRight")
        calculator.shows("M N K² = 64·256·5² = 409,600", "M N + N K² = 64·256 + 256·5² = 22,784")
    with calculator.redrawn():
        calculator.slide("p, share of channels", "Home")
        calculator.shows("through M' = 8 channels", "8·64 + 256·8 + 256·5² = 8,960")
    with calculator.redrawn():
        calculator.choose("stride", "2")
        calculator.shows("(64·256)·32·32 + (256·5²)·16·16 = 18,415,616")
    same = widgets.cost_calculator(M=64, N=256, K=5, p=1 / 8)
    same.controls["stride"].value = 2
    assert calculator.picture() == same.picture.value
    look_at(notebook, calculator, screenshots / "cost-calculator")


def parameters_as_bsconv(
    name: str, replacer: type[BSConvU_Replacer] | type[BSConvS_Replacer], *exclude: str
) -> str:
    with torch.device("meta"):
        model = getattr(torchvision.models, name)()
    replacer(kernel_sizes=(3,), exclude=exclude).apply(model)
    return f"{sum(parameter.numel() for parameter in model.parameters()):,} after"


@in_notebook("02_replace_convolutions")
def test_model_surgeon(notebook: "LabNotebook", screenshots: Path) -> None:
    surgeon = notebook.panel()
    with surgeon.redrawn():
        surgeon.write("layers to exclude", "layer4.*")
        after = parameters_as_bsconv("resnet18", BSConvU_Replacer, "layer4.*")
        surgeon.shows("resnet18 to BSConv-U: 12 of 20 convolutions replaced", after)
    with surgeon.redrawn():
        surgeon.choose("layers become", "BSConv-S")
        after = parameters_as_bsconv("resnet18", BSConvS_Replacer, "layer4.*")
        surgeon.shows("resnet18 to BSConv-S: 12 of 20 convolutions replaced", after)
    same = widgets.model_surgeon({"resnet18": torchvision.models.resnet18})
    for name, value in {"rule": "S", "kernel_sizes": "3 x 3", "exclude": "layer4.*"}.items():
        same.controls[name].value = value
    assert surgeon.picture() == same.picture.value
    look_at(notebook, surgeon, screenshots / "model-surgeon")
    with surgeon.redrawn():
        surgeon.slide("architecture", "End")
        surgeon.shows("mobilenet_v2: no plan.", "exclude names no layer of this model: 'layer4.*'")
    assert surgeon.picture() == b""
