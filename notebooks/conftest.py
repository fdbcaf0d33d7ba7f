"""How nbval judges the notebooks, beyond comparing outputs; for ``pytest --nbval``.

- Anything on stderr fails the cell: a notebook shows no warnings and no progress bars.
- After an exception that no ``raises-exception`` tag announces, the other cells of the
  notebook are skipped: they could only fail in its wake.
- A tag such as ``timeout-300`` is the time limit of that cell, in seconds.
- A notebook whose data set is missing runs on the synthetic one, and is not compared.
"""

import re
from collections.abc import Generator

import pytest
from nbval.plugin import IPyNbCell, IPyNbFile, NbCellError

from bsconv.experiments.data import data_folder

CALLED_FOR = re.compile(r"""\bfind_dataset\(\s*(?:name\s*=\s*)?(?:["'](\w+)["'])?""")
STOPPED_AT = pytest.StashKey[int]()  # of a notebook: the cell that raised


def is_missing(dataset: str) -> bool:
    return not (data_folder() / f"{dataset}.npz").exists()


def lacks_data(notebook: IPyNbFile) -> bool:
    source = "\n".join(
        cell.source for cell in notebook.nb.cells if cell.cell_type == "code"
    )
    return any(is_missing(call[1] or "cifar10") for call in CALLED_FOR.finditer(source))


def time_limit(cell: IPyNbCell, default: float) -> float:
    limits = [
        tag.removeprefix("timeout-") for tag in cell.cell.metadata.get("tags", [])
    ]
    return next((float(limit) for limit in limits if limit.isdecimal()), default)


def pytest_report_header(config: pytest.Config) -> str | None:
    if config.option.nbval and is_missing("cifar10"):
        return (
            f"SYNTHETIC DATA: no cifar10.npz in {data_folder()}; notebooks that "
            "call for it run on the synthetic set, and their outputs are not compared"
        )
    return None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    cells = [item for item in items if isinstance(item, IPyNbCell)]
    lacking = {
        notebook for notebook in {cell.parent for cell in cells} if lacks_data(notebook)
    }
    for cell in cells:
        if cell.parent in lacking:
            cell.options["check"] = False


def pytest_runtest_setup(item: pytest.Item) -> None:
    if isinstance(item, IPyNbCell) and STOPPED_AT in item.parent.stash:
        pytest.skip(
            f"cell {item.parent.stash[STOPPED_AT]} of this notebook raised an exception"
        )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None]:
    if not isinstance(item, IPyNbCell):
        return (yield)
    option = item.config.option
    usual = option.nbval_cell_timeout
    option.nbval_cell_timeout = time_limit(item, usual)
    try:
        yield
    except Exception as error:
        if not isinstance(error, NbCellError) or item.parent.timed_out or raised(item):
            item.parent.stash[STOPPED_AT] = item.cell_num
        raise
    finally:
        option.nbval_cell_timeout = usual
    outputs = item.test_outputs or ()
    if stderr := "".join(out.text for out in outputs if out.get("name") == "stderr"):
        item.raise_cell_error("Cell wrote to stderr", stderr)
    if item.options["check_exception"] and not any(
        out.output_type == "error" for out in outputs
    ):
        item.raise_cell_error("Cell is tagged raises-exception and raised none")


def raised(cell: IPyNbCell) -> bool:
    unannounced = not cell.options["check_exception"]
    return unannounced and any(
        out.output_type == "error" for out in cell.test_outputs or ()
    )
