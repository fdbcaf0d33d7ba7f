"""Figures say what the arrays hold, in a size and a look that every notebook shares."""

import itertools
from collections.abc import Callable, Iterator

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from bsconv.experiments import plotting


@pytest.fixture(autouse=True)
def shared_style() -> Iterator[None]:
    mpl.use("agg")
    with mpl.rc_context():
        plotting.use_style()
        yield
    plt.close("all")


def curves(**changes: object) -> Figure:
    arguments = {"series": {"u": [[1, 2], [3, 6]], "s": [5, 5]}, "xlabel": "x", "ylabel": "y"}
    return plotting.curves([0, 1], **(arguments | changes))


MAKERS: dict[str, Callable[[], Figure]] = {
    "kernel_slices": lambda: plotting.kernel_slices({"a": np.eye(3)[None].repeat(8, axis=0)}),
    "many kernel_slices": lambda: plotting.kernel_slices(
        {str(i): np.ones((2, 3, 3)) for i in range(9)}
    ),
    "kernel_grids": lambda: plotting.kernel_grids(
        {"a": np.ones((4, 5, 3, 3)), "b": np.ones((2, 3, 5, 5))}, {"a": "rows", "b": "columns"}
    ),
    "stacked_shares": lambda: plotting.stacked_shares({"weights": {"net": {"3x3": 1, "1x1": 3}}}),
    "grouped_bars": lambda: plotting.grouped_bars(["a"], {"u": [1], "s": [2]}, ylabel="y"),
    "logarithmic grouped_bars": lambda: plotting.grouped_bars(
        ["a"], {"u": [1], "s": [200]}, ylabel="y", log=True, number="{:.0f} %"
    ),
    "curves": curves,
    "logarithmic curves": lambda: plotting.curves(
        [1, 10], {"u": [1, 0.01]}, xlabel="x", ylabel="y", log="xy"
    ),
    "dots": lambda: plotting.dots({"u": {"before": [1, 2], "after": [3]}}, xlabel="x"),
    "many dots": lambda: plotting.dots({"u": {str(i): [i] for i in range(20)}}, xlabel="x"),
    "matrices": lambda: plotting.matrices({"a": np.eye(4), "b": -np.eye(4)}, colour_label="c"),
    "image_rows": lambda: plotting.image_rows(
        {"a": np.zeros((3, 4, 4, 3)), "b": np.zeros((1, 4, 4, 3), np.uint8)}, {"b": ["a disc"]}
    ),
    "many image_rows": lambda: plotting.image_rows(
        {str(i): np.zeros((2, 4, 4, 3)) for i in range(9)}
    ),
    "curve_panels": lambda: plotting.curve_panels(
        {"live": {"u": [1, 2], "s": [[1, 2, 3], [2, 2, 5]]}, "recorded": {}},
        xlabel="epoch",
        ylabels=("loss", "%"),
    ),
    "accuracy_panels": lambda: plotting.accuracy_panels(
        {"here": {"u": [("a", 0.2, [70]), ("", 3, [80, 82])]}, "recorded": {}}
    ),
}


@pytest.mark.parametrize("name", MAKERS)
def test_figures_draw_and_stay_within_7_by_3_5_inches(name: str) -> None:
    figure = MAKERS[name]()
    figure.canvas.draw()  # where labels that make no sense would warn
    width, height = figure.get_size_inches()
    assert width <= 7
    assert height <= 3.5
    assert figure.dpi == 100
    assert mpl.colors.to_hex(figure.get_facecolor()) == "#ffffff"


def test_slices_share_one_scale_symmetric_about_zero() -> None:
    kernels = {"dense": np.full((2, 3, 3), 0.5), "blueprint": np.full((1, 3, 3), -2.0)}
    figure = plotting.kernel_slices(kernels, {"dense": ["+1 B", "-1 B"]})
    images = [image for axis in figure.axes for image in axis.get_images()]
    assert len(images) == 3
    assert {image.get_clim() for image in images} == {(-2.0, 2.0)}
    assert [axis.get_title() for axis in figure.axes[:2]] == ["+1 B", "-1 B"]
    assert np.array_equal(images[2].get_array(), kernels["blueprint"][0])


def test_a_grid_has_a_filter_in_each_row_and_frames_what_it_is_told_to() -> None:
    kernel = np.arange(6.0).reshape(2, 3, 1, 1)  # slices of one number, a gap between them
    grids = {"free": kernel, "rows": -2 * kernel, "columns": kernel}
    figure = plotting.kernel_grids(grids, {"rows": "rows", "columns": "columns"})
    free, rows, columns = figure.axes[:3]
    (image,) = free.get_images()
    assert image.get_clim() == (-10.0, 10.0)
    assert np.array_equal(image.get_array()[::2, ::2], kernel[:, :, 0, 0])
    assert image.get_array().mask[1].all()
    assert [len(axis.patches) for axis in (free, rows, columns)] == [0, 2, 3]
    assert {box.get_width() > box.get_height() for box in rows.patches} == {True}
    with pytest.raises(ValueError, match="framed needs to be 'rows' or 'columns', got 'all'"):
        plotting.kernel_grids({"a": kernel}, {"a": "all"})


def test_stacked_shares_add_up_to_one() -> None:
    panels = {
        "weights": {"vgg": {"3x3": 1, "linear": 9}, "resnet": {"3x3": 8}},
        "MACs": {"vgg": {"3x3": 9, "linear": 1}, "resnet": {"3x3": 8}},
    }
    figure = plotting.stacked_shares(panels)
    weights, macs = figure.axes
    assert [bar.get_width() for bar in weights.patches] == pytest.approx([0.1, 1, 0.9, 0])
    assert [bar.get_width() for bar in macs.patches] == pytest.approx([0.9, 1, 0.1, 0])
    assert [text.get_text() for text in weights.texts] == ["10%", "100%", "90%", ""]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["3x3", "linear"]


def test_bars_stand_side_by_side_and_carry_their_numbers() -> None:
    series = {"u": [17.0, 94.0], "s": [11.0, 93.0]}
    figure = plotting.grouped_bars(["resnet", "vgg"], series, ylabel="%", number="{:.0f} %")
    (axis,) = figure.axes
    assert [bar.get_height() for bar in axis.patches] == [17.0, 94.0, 11.0, 93.0]
    edges = sorted((bar.get_x(), bar.get_x() + bar.get_width()) for bar in axis.patches)
    assert all(left[1] <= right[0] + 1e-9 for left, right in itertools.pairwise(edges))
    assert [text.get_text() for text in axis.texts] == ["17 %", "94 %", "11 %", "93 %"]


def test_curves_show_the_mean_and_the_range_of_runs() -> None:
    (axis,) = curves().axes
    mean, single = axis.lines
    assert mean.get_ydata() == pytest.approx([2, 4])
    assert single.get_ydata() == pytest.approx([5, 5])
    (band,) = axis.collections  # none for the single run
    low, high = band.get_paths()[0].get_extents().intervaly
    assert (low, high) == (1, 6)


def test_dots_show_every_run_and_the_mean() -> None:
    figure = plotting.dots({"u": {"before": [1, 3], "after": [5]}, "s": {"after": [7]}}, xlabel="%")
    (axis,) = figure.axes
    drawn = [np.ravel(line.get_xdata()).tolist() for line in axis.lines]
    assert drawn == [[1, 3], [2], [5], [5], [7], [7]]
    assert [label.get_text() for label in axis.get_yticklabels()] == ["before", "after"]
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["u", "s"]


def test_matrices_share_one_scale() -> None:
    images = {"a": np.array([[1.0, 4.0]]), "b": np.array([[2.0, -1.0]])}
    for signed, limits in ((False, (-1.0, 4.0)), (True, (-4.0, 4.0))):
        figure = plotting.matrices(images, colour_label="c", signed=signed)
        shown = [image for axis in figure.axes for image in axis.get_images()]
        assert {image.get_clim() for image in shown} == {limits}


def test_logarithmic_axes_write_their_numbers_out() -> None:
    figure = plotting.curves([1, 100], {"u": [0.01, 1]}, xlabel="x", ylabel="y", log="xy")
    figure.canvas.draw()
    (axis,) = figure.axes
    texts = [label.get_text() for label in axis.get_yticklabels()]
    assert {"0.01", "0.1", "1"} <= set(texts)


def test_nothing_is_told_apart_by_colour_alone() -> None:
    names = [str(i) for i in range(len(plotting.COLOURS))]
    bars = plotting.grouped_bars(["a"], {name: [1] for name in names}, ylabel="y")
    assert len({bar.get_hatch() for bar in bars.axes[0].patches}) == len(names)
    lines = plotting.curves([0, 1], {key: [0, 1] for key in names}, xlabel="x", ylabel="y")
    looks = {(line.get_linestyle(), line.get_marker()) for line in lines.axes[0].lines}
    assert len(looks) == len(names)


def test_a_label_looks_the_same_in_all_panels() -> None:
    figure = plotting.curve_panels(
        {"a": {"u": [1, 2], "s": [[3, 6], [1, 2]]}, "b": {"s": [5, 5, 5]}},
        xlabel="x",
        ylabels=("y", "z"),
    )
    first, second = figure.axes
    assert [line.get_label() for line in first.lines] == ["u", "s"]
    assert first.lines[1].get_ydata() == pytest.approx([2, 4])
    assert first.lines[1].get_xdata() == pytest.approx([1, 2])
    for look in ("get_color", "get_linestyle", "get_marker"):
        assert getattr(first.lines[1], look)() == getattr(second.lines[0], look)()
    assert len(first.collections) == 1  # a range for the two runs only
    assert not second.collections
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["u", "s"]


def test_accuracies_stand_at_their_parameters_with_mean_and_range() -> None:
    networks = [("small", 0.05, [60.0, 64.0, 65.0]), ("large", 2, [70.0])]
    figure = plotting.accuracy_panels({"here": {"u": networks}, "nothing": {}})
    axis, empty = figure.axes
    assert axis.lines[0].get_xdata() == pytest.approx([0.05, 2])
    assert axis.lines[0].get_ydata() == pytest.approx([63, 70])
    ((low, high), _) = [segment[:, 1] for segment in axis.collections[0].get_segments()]
    assert (low, high) == pytest.approx((60, 65))
    assert {text.get_text() for text in axis.texts} == {"small", "large"}
    assert [text.get_text() for text in empty.texts] == ["nothing to show yet"]


WRONG: dict[str, Callable[[], Figure]] = {
    r"rows\['a'\] needs 3 dimensions, got shape \(3, 3\)": lambda: plotting.kernel_slices(
        {"a": np.eye(3)}
    ),
    "rows needs at least one kernel": lambda: plotting.kernel_slices({}),
    "grids needs at least one kernel": lambda: plotting.kernel_grids({}),
    "panels needs at least one panel": lambda: plotting.stacked_shares({}),
    r"the same bars, \['vgg'\], got \['resnet'\] in 'MACs'": lambda: plotting.stacked_shares(
        {"weights": {"vgg": {"3x3": 1}}, "MACs": {"resnet": {"3x3": 1}}}
    ),
    r"series\['u'\] needs one value for each of 2 names, got 1": lambda: plotting.grouped_bars(
        ["a", "b"], {"u": [1]}, ylabel="y"
    ),
    r"series\['u'\] needs shape \(2,\) or \(runs, 2\), got \(3,\)": lambda: curves(
        series={"u": [1, 2, 3]}
    ),
    r"images\['a'\] needs 2 dimensions, got shape \(4,\)": lambda: plotting.matrices(
        {"a": np.ones(4)}, colour_label="c"
    ),
    r"rows\['a'\] needs shape \(images, H, W, 3\), got shape \(3, 4, 4\)": lambda: (
        plotting.image_rows({"a": np.zeros((3, 4, 4))})
    ),
    "1 panels need as many ylabels, got 2": lambda: plotting.curve_panels(
        {"a": {"u": [1]}}, xlabel="x", ylabels=("y", "z")
    ),
    r"panels\['a'\]\['u'\] needs shape \(points,\) or \(runs, points\), got \(1, 1, 1\)": lambda: (
        plotting.curve_panels({"a": {"u": [[[1]]]}}, xlabel="x", ylabels=("y",))
    ),
    "panels needs at least one panel, got": lambda: plotting.accuracy_panels({}),
    "images needs at least one matrix": lambda: plotting.matrices({}, colour_label="c"),
}


@pytest.mark.parametrize("message", WRONG)
def test_wrong_arrays_are_named(message: str) -> None:
    with pytest.raises(ValueError, match=message):
        WRONG[message]()
