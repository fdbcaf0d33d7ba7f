"""Tables as text and as HTML, to the letter."""

import pytest

from bsconv.basics.tables import Table, html_table, text_table
from bsconv.pytorch.inference._report import EngineResult, InferenceReport, OptimizedLayer
from bsconv.pytorch.models.modification._plan import BlockPlan, ModificationPlan
from bsconv.pytorch.plan import LayerPlan, Plan
from bsconv.pytorch.pretrained._report import LayerProjection, ProjectionReport
from bsconv.pytorch.spectra import LayerSpectrum, SpectraTable

HEADER = ("layer", "n", "why left out")
ROWS = [("a", 12345, ""), ("bottleneck", 6, "<i>")]


def test_numbers_stand_to_the_right_in_groups_of_thousands() -> None:
    assert text_table(HEADER, ROWS).split("\n") == [
        "layer            n  why left out",
        "----------  ------  ------------",
        "a           12,345",
        "bottleneck       6  <i>",
    ]


def test_a_column_with_a_number_in_it_is_one_of_numbers() -> None:
    assert text_table(["what"], [["none"], [1]]).split("\n") == ["what", "----", "none", "   1"]


def test_a_table_without_rows_has_its_header() -> None:
    assert text_table(["a", "bc"], []) == "a  bc\n-  --"


@pytest.mark.parametrize(("width", "blocks"), [(32, 1), (31, 2), (18, 2), (5, 2)])
def test_what_is_wider_than_the_terminal_follows_below(monkeypatch, width, blocks) -> None:
    parts = [text_table(HEADER[p], [row[p] for row in ROWS]) for p in (slice(2), slice(0, 3, 2))]
    expected = text_table(HEADER, ROWS) if blocks == 1 else "\n\n".join(parts)
    monkeypatch.setattr("bsconv.basics.tables.terminal_width", width)
    assert text_table(HEADER, ROWS) == expected


def test_html_is_the_same_table_escaped() -> None:
    left, right = 'style="text-align: left"', 'style="text-align: right"'
    assert html_table(HEADER, ROWS, "x < y") == (
        "<table><caption>x &lt; y</caption><thead><tr>"
        f"<th {left}>layer</th><th {right}>n</th><th {left}>why left out</th>"
        "</tr></thead><tbody>"
        f"<tr><td {left}>a</td><td {right}>12,345</td><td {left}></td></tr>"
        f"<tr><td {left}>bottleneck</td><td {right}>6</td><td {left}>&lt;i&gt;</td></tr>"
        "</tbody></table>"
    )


ENGINES = (EngineResult("given", 0.02), EngineResult("eager", 0.01, 1.5))
INFERENCE = (ENGINES, "eager", (1, 3, 8, 8), "float32", "contiguous", 1e-7)


@pytest.mark.parametrize(
    ("table", "row"),
    [
        (
            Plan((LayerPlan(("", "twice"), True, "becomes", 1000, 20),), 1000, 20),
            "(root), twice  becomes               1,000     20",
        ),
        (
            ModificationPlan((BlockPlan(("", "b"), "block", "kept", "is kept", 7, 7),), 7, 7),
            "(root), b  block          is kept            7      7",
        ),
        (
            ProjectionReport(
                (LayerProjection("", "u", None, 900, 60, 7, 7, 0.875, None, 0.125),),
                "outputs",
                8,
                0.5,
            ),
            "(root)  u               7      7                900     60  87.5%         12.5%",
        ),
        (
            ProjectionReport(
                (LayerProjection("conv", "cp", 8, 900, 0, weights_kept=0.875),), "weights", 0, None
            ),
            "conv   cp       8                900      0  87.5%",
        ),
        (
            SpectraTable((LayerSpectrum("", 4, 1, (3, 3), skipped="one slice"),), True),
            "(root)  4  1  3x3" + 60 * " " + "one slice",
        ),
        (
            InferenceReport(
                (OptimizedLayer("", "BSConvU", "merged", 1, {"factored": 2e-3, "merged": 1.5e-3}),),
                *INFERENCE,
            ),
            "(root)  BSConvU  merged                       1  factored 2, merged 1.5",
        ),
        (
            InferenceReport((OptimizedLayer("a.b", "Conv2d", "one convolution", 1),), *INFERENCE),
            "a.b    Conv2d  one convolution                  1",
        ),
    ],
)
def test_rows_name_the_root_and_all_places(table: Table, row: str) -> None:
    lines = str(table).split("\n\n")[-1].split("\n")  # a report has a table of engines before it
    assert len(lines) == 4
    assert (lines[2].split(), lines[3]) == (row.split(), table.summary)


def test_milliseconds_have_three_digits() -> None:
    assert InferenceReport((), *INFERENCE).summary.startswith(
        "1x3x8x8 in float32, contiguous, eager: 20 ms before, 10 ms after (2.0 times as fast)"
    )
    layer = OptimizedLayer("a", "BSConvU", "merged", 0, {"merged": 1.23456})
    assert "merged 1.23e+03" in str(InferenceReport((layer,), *INFERENCE))
