"""Figures say what the arrays hold, in a size and a look that every notebook shares."""

import dataclasses
import itertools
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from matplotlib.patches import FancyBboxPatch
from matplotlib.text import Text

from bsconv.experiments import plotting
from bsconv.pytorch import BudgetCurve, BudgetPoint, LayerProjection, ProjectionReport
from helpers.exact_errors import raises_exactly

layer_boxes = partial(plotting.layer_boxes, ylabel="first share")


@pytest.fixture(autouse=True)
def shared_style() -> Iterator[None]:
    mpl.use("agg")
    with mpl.rc_context():
        plotting.use_style()
        yield
    plt.close("all")


def many_layers() -> dict[str, list[float]]:
    """150 layers whose names are long."""
    names = [f"stage{i // 50}.unit{i % 50}.a_block_of_that_kind.conv" for i in range(150)]
    return {f"backbone.features.{name}": [0.4, 0.5, 0.6] for name in names}


def accuracies(label: str = "net") -> plotting.AccuracyLine:
    return plotting.AccuracyLine(
        label,
        {"dense": (0.3, [89, 91]), "BSConv-U": (0.05, [86, 88, 87])},
        {"dense": (0.3, 91.0), "BSConv-S": (0.03, 86.0)},
    )


def call(*arguments: Any, **options: Any) -> tuple[Any, Any]:
    """Of the function that is the last word of a case."""
    return arguments, options


NAMES = [str(i) for i in range(len(plotting.COLOURS))]
TOLD_APART = {
    "grouped_bars": call(["a"], {n: [1] for n in NAMES}, ylabel="y"),
    "bar_rows": call(["a"], {n: [1] for n in NAMES}, xlabel="x"),
    "stacked_shares": call({"a": {"net": dict.fromkeys(NAMES, 1)}}),
    "timing_bars": call({"a": {n: {"net": (1, 1, 2)} for n in NAMES}}, ylabel="ms"),
    "curves": call([0, 1], {n: [0, 1] for n in NAMES}, xlabel="x", ylabel="y"),
    "curve_panels": call({"a": {n: [0, 1] for n in NAMES}}, xlabel="x", ylabels=["y"]),
    "accuracy_panels": call({"a": {n: [("", 1, [70]), ("", 2, [80])] for n in NAMES}}),
    "curves_and_sizes": call({n: [0, 1] for n in NAMES}, dict.fromkeys(NAMES, 1), [(2, 3)]),
    "dots": call({n: {"a": [1, 2]} for n in NAMES}, xlabel="x"),
}
SIGNED = np.array([[1.0, 1.0, 1.0], [1.0, 1.0, -0.5], [1.0, -1.0, -0.01]])  # the last one is pale
SIGNED_PICTURES = {
    "slices in image_rows": call({"a": SIGNED[None]}),
    "kernel_grids": call({"a": SIGNED[None, None]}),
    "matrices": call({"a": SIGNED}, colour_label="value", signed=True),
    "slice_grid": call({"a": SIGNED[None]}),
    "blueprint_fit": call(SIGNED[None], SIGNED, [1.0]),
}
CURVE = BudgetCurve((BudgetPoint(0.3, 0.25, 0.2, {}), BudgetPoint(0.6, 0.5, 0.01, {})), "macs")
LAYER = LayerProjection("a", "u", None, 9, 5, damage=0.05)
REPORT = ProjectionReport((LAYER,), "outputs", 8, None, budget=0.5, share=0.4, curve=CURVE)
IMAGES = np.zeros((3, 4, 4, 3))
TIMES = {"dense": (2, 1, 4), "BSConv-S, p = 1/4, with BatchNorm": (1e3, 1e3, 1e3)}
CASES = {
    **TOLD_APART,
    **SIGNED_PICTURES,
    "logarithmic grouped_bars": call(
        ["a"], {"u": [1], "s": [200]}, ylabel="y", log=True, number="{:.0f} %"
    ),
    "many timing_bars": call(
        {n: {"as given": TIMES, "optimised": TIMES} for n in NAMES[:4]}, ylabel="ms", title="four"
    ),
    "many dots": call({"u": {str(i): [i] for i in range(20)}}, xlabel="x"),
    "image_rows": call({"a": IMAGES, "b": IMAGES[:1].astype("u1")}, {"b": ["a disc"]}),
    "many image_rows": call({str(i): IMAGES for i in range(9)}),
    "many slice_grid": call(
        {"a": np.ones((3, 7, 7)), "b": np.zeros((512, 3, 3)), "c": np.ones((1, 2, 3))}
    ),
    "layer_boxes": call({"a": [0.2, 0.3], "b": [1.0]}, [0.1, 0.2], ylabel="y"),
    "many layer_boxes": call(many_layers(), [0.3] * 150, {"within": [0.2] * 150}, ylabel="y"),
    "excess and layer_boxes": call(
        {"": [0.2, 0.3]}, [0.1], {"within kernels": [0.2], "across": [np.nan]}, ylabel="y"
    ),
    "excess_panels": call(
        {"a": {"within": [0.2, 0.1], "across": [np.nan] * 2}, "b": {"within": [0.5]}}
    ),
    "schematic": call(
        {"a": "M, HxW [1x1|pw] N [(BN)] ", "b": "[3x3]"},
        brackets={"a": {"both": [(0, 1)]}, "b": {"one": [(0, 0)]}},
    ),
    "roofline": call({"a": (1, 2), "b": (90, 70)}, peak=80, bandwidth=20),
    "low roofline": call({"a": (0.001, 2e6)}, peak=1, bandwidth=1000),
    "damage_curve": call(CURVE, title="a"),
    "report's damage_curve": call(REPORT),
    "accuracy_and_published": call({"a": [accuracies()]}),
    "many accuracy_and_published": call(
        {"a": [accuracies(str(n)) for n in range(9)], "b": [accuracies()]}
    ),
}


def drawn(case: str) -> Figure:
    arguments, options = CASES[case]
    return getattr(plotting, case.split()[-1])(*arguments, **options)


def texts(items: Iterable[Text]) -> list[str]:
    return [item.get_text() for item in items]


def apart(intervals: Iterable[np.ndarray], tolerance: float = 1e-9) -> bool:
    ordered = sorted(map(tuple, intervals))
    return all(low[1] <= high[0] + tolerance for low, high in itertools.pairwise(ordered))


def legend_of(figure: Figure) -> list[str]:
    (legend,) = figure.legends
    return texts(legend.get_texts())


def images_of(figure: Figure) -> list[AxesImage]:
    return [image for axis in figure.axes for image in axis.get_images()]


def bars(axis: Axes, side: str) -> list[float]:
    return [plt.getp(bar, side) for bar in axis.patches]


def ys(lines: Iterable[Line2D]) -> list[list[float]]:
    return [np.ravel(line.get_ydata()).tolist() for line in lines]


@pytest.mark.parametrize("case", CASES)
def test_figures_draw_and_stay_within_7_by_3_5_inches(case: str) -> None:
    figure = drawn(case)
    figure.canvas.draw()  # where labels that make no sense would warn
    assert (figure.get_size_inches() <= (7, 3.5)).all()
    assert figure.dpi == 100
    assert mpl.colors.to_hex(figure.get_facecolor()) == "#ffffff"


@pytest.mark.parametrize("case", [case for case in CASES if " " not in case])
def test_pyplot_does_not_show_a_figure_for_a_file(case: str) -> None:
    """When a cell ends in another thread meanwhile, all that pyplot knows is shown and closed."""

    def draw() -> Figure:
        figure = drawn(case)
        assert plt.get_fignums() == []
        return figure

    assert plotting.rendered(draw, "png")[:4] == b"\x89PNG"
    assert drawn(case).number in plt.get_fignums()


def test_pictures_share_one_scale() -> None:
    kernels = {"dense": np.full((2, 3, 3), 0.5), "blueprint": np.full((1, 3, 3), -2.0)}
    figure = plotting.image_rows(kernels, {"dense": ["+1 B", "-1 B"]})
    images = images_of(figure)
    assert [image.get_clim() for image in images] == [(-2.0, 2.0)] * 3
    assert [axis.get_title() for axis in figure.axes[:2]] == ["+1 B", "-1 B"]
    assert np.array_equal(images[2].get_array(), kernels["blueprint"][0])
    pair = {"a": np.array([[1.0, 4.0]]), "b": np.array([[2.0, -1.0]])}
    for signed, limits in ((False, (-1.0, 4.0)), (True, (-4.0, 4.0))):
        figure = plotting.matrices(pair, colour_label="c", signed=signed)
        assert [image.get_clim() for image in images_of(figure)] == [limits] * 2


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


def test_stacked_shares_add_up_to_one() -> None:
    panels = {
        "weights": {"vgg": {"3x3": 1, "linear": 9}, "resnet": {"3x3": 8}},
        "MACs": {"vgg": {"3x3": 9, "linear": 1}, "resnet": {"3x3": 8}},
    }
    figure = plotting.stacked_shares(panels)
    weights, macs = figure.axes
    assert bars(weights, "width") == pytest.approx([0.1, 1, 0.9, 0])
    assert bars(weights, "x") == pytest.approx([0, 0, 0.1, 1])
    assert bars(macs, "width") == pytest.approx([0.9, 1, 0.1, 0])
    assert texts(weights.texts) == ["10%", "100%", "90%", ""]
    assert legend_of(figure) == ["3x3", "linear"]


def test_bars_stand_side_by_side_and_carry_their_numbers() -> None:
    series = {"u": [17.0, 94.0], "s": [11.0, 93.0]}
    (axis,) = plotting.grouped_bars(["resnet", "vgg"], series, ylabel="%", number="{:.0f} %").axes
    assert bars(axis, "height") == [17.0, 94.0, 11.0, 93.0]
    assert apart([bar.get_bbox().intervalx for bar in axis.patches])
    assert texts(axis.texts) == ["17 %", "94 %", "11 %", "93 %"]


def test_rows_of_bars_run_from_the_top_and_carry_their_numbers() -> None:
    series = {"before": [9408, 8_388_608], "after": [0, 1_067_008]}
    (axis,) = plotting.bar_rows(["conv1", "layer4"], series, xlabel="parameters").axes
    assert bars(axis, "width") == [9408, 8_388_608, 0, 1_067_008]
    assert texts(axis.texts) == ["9,408", "8,388,608", "0", "1,067,008"]
    tops = [bar.get_y() for bar in axis.patches]
    assert tops[0] < tops[2] < tops[1] < tops[3]
    assert axis.yaxis_inverted()
    assert texts(axis.get_yticklabels()) == ["conv1", "layer4"]
    assert legend_of(axis.figure) == ["before", "after"]


def test_of_many_rows_of_bars_some_are_named_and_none_is_numbered() -> None:
    (axis,) = plotting.bar_rows(list(many_layers()), {"u": range(150)}, xlabel="x").axes
    axis.figure.canvas.draw()
    assert len(axis.patches) == 150
    assert not axis.texts
    labels = axis.get_yticklabels()
    assert len(labels) == 22  # every seventh
    assert apart([label.get_window_extent().intervaly for label in labels], tolerance=1)


def test_times_stand_side_by_side_with_their_spread() -> None:
    given = {"dense": (2.0, 1.0, 4.0), "u": (3.0, 3.0, 3.0)}
    panels = {"one": {"given": given, "fast": {"u": (1, 1, 2)}}, "two": {"fast": {"u": (9, 8, 9)}}}
    figure = plotting.timing_bars(panels, ylabel="ms")
    first, second = figure.axes
    assert (bars(first, "height"), bars(second, "height")) == ([2, 3, 1], [9])
    spans = [line[:, 1].tolist() for lines in first.collections for line in lines.get_segments()]
    assert spans == [[1, 4], [3, 3], [1, 2]]
    assert apart([bar.get_bbox().intervalx for bar in first.patches])
    looks = [(bar.get_facecolor(), bar.get_hatch()) for bar in (*first.patches, *second.patches)]
    assert looks[0] == looks[1] != looks[2] == looks[3]
    assert legend_of(figure) == ["given", "fast"]


def test_dots_show_every_run_and_the_mean() -> None:
    figure = plotting.dots({"u": {"before": [1, 3], "after": [5]}, "s": {"after": [7]}}, xlabel="%")
    (axis,) = figure.axes
    drawn = [np.ravel(line.get_xdata()).tolist() for line in axis.lines]
    assert drawn == [[1, 3], [2], [5], [5], [7], [7]]
    assert texts(axis.get_yticklabels()) == ["before", "after"]
    assert texts(axis.get_legend().get_texts()) == ["u", "s"]


def test_logarithmic_axes_write_their_numbers_out() -> None:
    figure = plotting.curves([1, 100], {"u": [0.01, 1]}, xlabel="x", ylabel="y", log="xy")
    figure.canvas.draw()
    assert figure.axes[0].lines[0].get_xydata().tolist() == [[1, 0.01], [100, 1]]
    assert {"0.01", "0.1", "1"} <= set(texts(figure.axes[0].get_yticklabels()))


@pytest.mark.parametrize("case", TOLD_APART)
def test_nothing_is_told_apart_by_colour_alone(case: str) -> None:
    handles, _ = drawn(case).axes[0].get_legend_handles_labels()
    if hasattr(handles[0], "patches"):  # bars
        looks = {handle.patches[0].get_hatch() for handle in handles}
    else:
        lines = [getattr(handle, "lines", [handle])[0] for handle in handles]  # no error bars
        looks = {(line.get_linestyle(), line.get_marker()) for line in lines}
    assert len(looks) == len(NAMES)


@pytest.mark.parametrize("points", [2, 25, 26, 49, 300])
def test_markers_leave_room_for_dashes_and_for_one_another(points: int) -> None:
    series = {"u": np.zeros(points), "s": np.zeros(points)}
    figures = [
        plotting.curves(range(points), series, xlabel="x", ylabel="y"),
        plotting.curve_panels({"a": series, "b": series}, xlabel="x", ylabels="yz"),
    ]
    for figure in figures:
        for axis in figure.axes:
            marking = [line.get_markevery() for line in axis.lines]
            marked = [set(range(points)[first::every]) for first, every in marking]
            assert max(map(len, marked)) * len(figure.axes) <= 25 or points == 2
            assert points <= 25 // len(figure.axes) or not marked[0] & marked[1]


def test_a_damage_curve_marks_the_network_of_a_report() -> None:
    lines = [line.get_xydata().tolist() for line in drawn("report's damage_curve").axes[0].lines]
    assert lines == [[[0.25, 0.2], [0.5, 0.01]], [[0.4, 0.05]]]
    with raises_exactly("damage_curve needs a report of a budget, got one without"):
        plotting.damage_curve(dataclasses.replace(REPORT, curve=None))


def test_curves_show_mean_and_range_and_look_the_same_in_all_panels() -> None:
    panels = {"a": {"u": [1, 2], "s": [[3, 6], [1, 2]]}, "b": {"s": [5, 5, 5]}}
    figure = plotting.curve_panels(panels, xlabel="x", ylabels=("y", "z"))
    first, second = figure.axes
    assert [line.get_label() for line in first.lines] == ["u", "s"]
    assert first.lines[1].get_xdata() == pytest.approx([1, 2])
    assert ys(first.lines[1:]) == [[2, 4]]
    for look in ("get_color", "get_linestyle", "get_marker"):
        assert getattr(first.lines[1], look)() == getattr(second.lines[0], look)()
    (band,) = first.collections  # of two runs
    assert tuple(band.get_paths()[0].get_extents().intervaly) == (1, 6)
    assert not second.collections
    assert legend_of(figure) == ["u", "s"]
    later = plotting.curve_panels({"a": {"u": [1, 2]}}, xlabel="x", ylabels=("y",), first=0)
    assert later.axes[0].lines[0].get_xdata() == pytest.approx([0, 1])


def test_accuracies_stand_at_their_parameters_with_mean_and_range() -> None:
    networks = [("small", 0.05, [60.0, 64.0, 65.0]), ("large", 2, [70.0])]
    axis, empty = plotting.accuracy_panels({"here": {"u": networks}, "nothing": {}}).axes
    assert axis.lines[0].get_xdata() == pytest.approx([0.05, 2])
    assert axis.lines[0].get_ydata() == pytest.approx([63, 70])
    ((low, high), _) = [segment[:, 1] for segment in axis.collections[0].get_segments()]
    assert (low, high) == pytest.approx((60, 65))
    assert texts(axis.texts) == ["small", "large"]
    assert texts(empty.texts) == ["nothing to show yet"]


def test_recorded_accuracies_are_filled_and_joined_and_published_ones_hollow() -> None:
    figure = plotting.accuracy_and_published({"here": [accuracies("net")]}, published="theirs")
    (axis,) = figure.axes
    assert axis.get_xscale() == "log"
    single = [line for line in axis.lines if len(line.get_xdata()) == 1]
    points = {
        (line.get_xdata()[0], float(line.get_ydata()[0]), line.get_markerfacecolor() == "white")
        for line in single
        if line.get_marker() in ("o", "s", "^")
    }
    assert points == {(0.3, 90, False), (0.05, 87, False), (0.3, 91, True), (0.03, 86, True)}
    joined = ys(line for line in axis.lines if line not in single)
    # theirs, ours, and from ours to theirs
    assert sorted(joined) == [[90, 87], [90, 91], [91, 86]]
    spans = [segments.get_segments()[0][:, 1].tolist() for segments in axis.collections]
    assert spans == [[89, 91], [86, 88]]
    assert texts(axis.texts) == ["net"]
    variants = ["dense", "BSConv-U", "BSConv-S"]
    assert legend_of(figure) == [*variants, "recorded, mean and range", "theirs"]


def test_labels_at_the_right_keep_their_distance() -> None:
    figure = plotting.accuracy_and_published({"": [accuracies(str(n)) for n in range(5)]})
    assert np.diff(sorted(text.xyann[1] for text in figure.axes[0].texts)).min() > 0.1


def test_a_grid_of_slices_holds_each_slice_once_on_the_scale_of_its_kernel() -> None:
    kernel = np.arange(-6.0, 6).reshape(12, 1, 1)
    pictures = images_of(plotting.slice_grid({"a": kernel, "b": 100 * kernel}))[:2]
    assert {picture.get_clim() for picture in pictures} == {(-1, 1)}
    first, second = (picture.get_array().compressed() for picture in pictures)
    assert first == pytest.approx(second)
    assert np.unique(first) == pytest.approx(np.unique(kernel) / np.percentile(np.abs(kernel), 98))


@pytest.mark.parametrize("case", SIGNED_PICTURES)
def test_negative_values_carry_a_dot_where_colours_are_not_seen(case: str) -> None:
    figure = drawn(case)
    axis = figure.axes[0]
    (dots,) = axis.collections
    centres = np.array([path.get_extents().get_points().mean(axis=0) for path in dots.get_paths()])
    if axis.images[0].get_array().shape[0] > 3:  # in a frame of 3 pixels, 6 x 6 for each value
        centres = (centres + 0.5 - 3) / 6 - 0.5
    assert centres.tolist() == [[2, 1], [1, 2]]  # x and y from the top left
    assert list(map(mpl.colors.to_hex, dots.get_facecolors())) == ["#444444", "#ffffff"]
    assert "(dot: negative)" in figure.axes[-1].get_ylabel()
    assert not plotting.matrices({"a": SIGNED}, colour_label="value").axes[0].collections


def test_a_fit_shows_what_is_kept_and_orders_slices_by_weight() -> None:
    blueprint, weights = np.eye(2), np.array([3.0, -1, 2])
    kernel = weights[:, None, None] * blueprint + 0.5 * (1 - blueprint)
    kept = 1 - 1.5 / (np.square(kernel)).sum()  # six numbers of 0.5 are lost
    figure = plotting.blueprint_fit(kernel, blueprint, weights, title="{kept:.3f}")
    assert figure.get_suptitle() == f"{kept:.3f}"
    above, below = (image.get_array() for image in images_of(figure)[:2])
    assert [image.get_clim() for image in images_of(figure)[:2]] == [(-3, 3)] * 2
    assert set(below.compressed()) == {-1.0, 0.0, 2.0, 3.0}
    assert bars(figure.axes[1], "height") == [-1, 2, 3]
    for bar, weight in zip(figure.axes[1].patches, (-1, 2, 3), strict=True):
        middle = int(bar.get_x() + bar.get_width() / 2)
        assert weight in above[4][middle - 4 : middle + 5]  # the upper values of the slices


def test_of_many_slices_some_of_the_whole_range_are_shown() -> None:
    weights = np.arange(100.0)
    figure = plotting.blueprint_fit(weights[:, None, None] * np.eye(3), np.eye(3), weights)
    shown = bars(figure.axes[1], "height")
    assert (len(shown), shown[0], shown[-1]) == (16, 0, 99)
    assert figure.axes[0].get_title().startswith("16 of its 100 slices")
    assert figure.get_suptitle() == "100% kept"


@pytest.mark.parametrize("copies", [1, 60])
def test_layers_show_quartiles_and_the_random_baseline(copies: int) -> None:
    layers = {f"layer{i}": [0.0, 0.4, 0.5, 0.6, 1.0] for i in range(copies)}
    (axis,) = layer_boxes(layers, [0.2] * copies).axes
    axis.figure.canvas.draw()
    if copies == 1:
        box = axis.patches[0].get_path().get_extents()
        assert (box.ymin, box.ymax) == pytest.approx((0.4, 0.6))
        ((_, dash),) = axis.collections[0].get_segments()[0][None, :, 1]
        assert dash == 0.2
    else:
        median, baseline = axis.lines
        assert set(median.get_ydata()) == {0.5}
        assert set(baseline.get_ydata()) == {0.2}
        low, high = axis.collections[0].get_paths()[0].get_extents().intervaly
        assert (low, high) == pytest.approx((0.4, 0.6))
    assert "random kernels" in texts(axis.get_legend().get_texts())


def test_names_of_layers_are_short_and_do_not_overlap() -> None:
    (axis,) = layer_boxes(many_layers(), [0.3] * 150).axes
    axis.figure.canvas.draw()
    labels = axis.get_xticklabels()
    assert texts(labels)[0] == "stage0.unit0"
    assert max(map(len, texts(labels))) <= 20
    assert apart([label.get_window_extent().intervalx for label in labels], tolerance=1)
    for names, expected in [
        (["a.b.conv"], ["a.b.conv"]),
        (["a.x.conv", "a.y.conv"], ["x", "y"]),
        (["conv", "a.conv"], ["conv", "a.conv"]),
        (["", "a"], ["", "a"]),
    ]:
        (axis,) = layer_boxes({name: [0.5] for name in names}, [0] * len(names)).axes
        assert texts(axis.get_xticklabels()) == expected


def test_the_excess_of_layers_is_joined_and_its_median_stands_below() -> None:
    networks = {
        "a": {"within": [0.2, 0.4, 0.3], "across": [-0.1, np.nan, 0.1]},
        "b": {"within": [0.5], "across": [0.25]},
    }
    first, second = plotting.excess_panels(networks).axes
    assert texts(first.get_xticklabels()) == ["within\n+0.30", "across\n+0.00"]
    assert texts(second.get_xticklabels()) == ["within\n+0.50", "across\n+0.25"]
    assert first.get_ylim() == second.get_ylim()
    assert [line.get_ydata().tolist() for line in second.lines[:1]] == [[0.5, 0.25]]
    overview = layer_boxes(
        {"a": [0.5], "b": [0.7]}, [0.3, 0.3], {"within kernels": [0.2, 0.4], "across": [np.nan] * 2}
    )
    assert texts(overview.axes[1].get_xticklabels()) == ["within\nkernels\n+0.30", "across\nnone"]


def boxes_of(axis: Axes) -> list[Any]:
    return [patch for patch in axis.patches if isinstance(patch, FancyBboxPatch)]


def test_a_schematic_has_its_boxes_in_a_row_and_its_texts_on_them() -> None:
    row = "M, HxW [1x1|pw] N [(BN)][3x3|dw|stride] N"
    (axis,) = plotting.schematic({"BSConv-U": row, "dense": "M [3x3] N"}).axes
    axis.figure.canvas.draw()
    boxes = boxes_of(axis)
    assert apart([box.get_window_extent().intervalx for box in boxes[:3]])
    assert [box.get_linestyle() for box in boxes] == ["-", "--", "-", "-"]
    assert boxes[2].get_edgecolor() == boxes[3].get_edgecolor() != boxes[0].get_edgecolor()
    inside = ("1x1\npw", "BN", "3x3\ndw\nstride", "3x3")
    written = {text.get_text(): text.get_window_extent() for text in axis.texts if text.get_text()}
    assert set(written) == {"BSConv-U", "dense", *"MN", "HxW", *inside}
    for box, label in zip(boxes, inside, strict=True):
        text, around = written[label], box.get_window_extent()
        assert around.x0 <= text.x0 < text.x1 <= around.x1
        assert around.y0 <= text.y0 < text.y1 <= around.y1


def test_a_bracket_spans_its_boxes_and_linked_rows_stand_in_columns() -> None:
    chain = "x [a][a longer one][c] y"
    (axis,) = plotting.schematic({"": chain}, brackets={"": {"two": [(1, 2)]}}).axes
    boxes = [box.get_path().get_extents().intervalx for box in boxes_of(axis)]
    ends = axis.lines[0].get_xdata()
    assert boxes[0][1] < min(ends) < boxes[1][1] < boxes[2][0] < max(ends)
    (axis,) = plotting.schematic(
        {"up": chain, "down": chain.replace("longer", "")}, linked=True
    ).axes
    left = [box.get_path().get_extents().x0 for box in boxes_of(axis)]
    assert left[:3] == left[3:]


def test_layers_stand_below_the_roof_and_a_line_leads_up_to_it() -> None:
    points = {"dw": (2.0, 10.0), "dense": (100.0, 70.0)}
    (axis,) = plotting.roofline(points, peak=80, bandwidth=20).axes
    assert (axis.get_xscale(), axis.get_yscale()) == ("log", "log")
    roof, *drawn = axis.lines
    assert (roof.get_xdata()[1], roof.get_ydata()[1]) == (4, 80)  # the ridge
    assert roof.get_ydata()[0] == pytest.approx(20 * roof.get_xdata()[0])
    gaps, markers = drawn[::2], drawn[1::2]
    assert ys(gaps) == [[10, 40], [70, 80]]
    assert [(m.get_xdata()[0], m.get_ydata()[0]) for m in markers] == list(points.values())
    assert len({marker.get_marker() for marker in markers}) == len(points)
    names = ["dw\n10 GFLOP/s", "dense\n70 GFLOP/s"]
    assert texts(axis.texts) == [*names, "memory: 20 GB/s", "arithmetic: 80 GFLOP/s"]
