"""The documentation builds without a warning, is complete, and loads nothing from other hosts."""

import importlib.util
import inspect
import os
import pkgutil
import re
import subprocess
import sys
import zlib
from html.parser import HTMLParser
from importlib import import_module
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

import bsconv.pytorch
from bsconv.__main__ import COMMANDS, main
from helpers.notebooks import NOTEBOOKS, cells_of
from helpers.paths import ROOT

PACKAGES = ("mkdocs", "material", "mkdocstrings", "math_core")
ROOMS = [found.name for found in pkgutil.iter_modules(bsconv.pytorch.__path__)]
MODULES = [f"bsconv.pytorch.{name}" for name in ROOMS if not name.startswith("_")]
MODULES += [f"bsconv.experiments.{name}" for name in ("classifier", "data", "plotting", "training")]

pytestmark = pytest.mark.slow  # builds the site once, for all

# hosts in the theme's scripts, and why they are never contacted
NAMED_IN_SCRIPTS = {
    "api.github.com": "stars of the site's repository, which is not set",
    "unpkg.com": "diagrams, which no page has, and browsers without ResizeObserver",
}


class HTMLPage(HTMLParser):
    """What a page loads, what it links to, and its anchors."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.requests: list[str] = []
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.text: list[str] = []
        self.html = path.read_text(encoding="utf-8")
        self.feed(self.html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.anchors.add(values.get("id", ""))
        if "src" in values:
            self.requests.append(values["src"])
        if "href" in values:
            (self.links if tag == "a" else self.requests).append(values["href"])

    def handle_data(self, data: str) -> None:
        self.text.append(data)


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the built site."""
    if any(importlib.util.find_spec(package) is None for package in PACKAGES):
        pytest.skip("building the documentation needs: pip install -e '.[lab,docs]'")
    folder = tmp_path_factory.mktemp("docs") / "site"
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    command = [*build, "--config-file", "docs/mkdocs.yml"]
    quiet = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    run = subprocess.run(command, cwd=ROOT, env=quiet, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return folder


@pytest.fixture(scope="session")
def pages(site: Path) -> dict[Path, HTMLPage]:
    return {path: HTMLPage(path) for path in sorted(site.rglob("*.html"))}


@pytest.fixture(scope="session")
def documented(site: Path) -> set[str]:
    """Every name with an entry in the inventory: four lines of header, then compressed ones."""
    packed = (site / "objects.inv").read_bytes().split(b"\n", 4)[4]
    return {line.split(" ")[0] for line in zlib.decompress(packed).decode().splitlines()}


def test_every_public_name_has_an_entry(documented: set[str]) -> None:
    assert {f"bsconv.pytorch.{name}" for name in bsconv.pytorch.__all__} - documented == set()


@pytest.mark.parametrize("name", MODULES)
def test_every_function_and_class_of_a_module_has_an_entry(name: str, site, documented) -> None:
    module = import_module(name)
    assert (site / "api" / f"{name}.html").is_file()
    wanted = {
        f"{name}.{key}"
        for key, value in vars(module).items()
        if inspect.isclass(value) or inspect.isfunction(value)
        if not key.startswith("_") and value.__doc__
        if value.__module__ == name or key in getattr(module, "__all__", ())
        if value.__module__.startswith("bsconv.")
    }
    assert wanted
    assert wanted - documented == set()


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_notebook_is_a_page(notebook: Path, site, pages) -> None:
    page = pages[site / "notebooks" / f"{notebook.stem}.html"]
    assert f"notebooks/{page.path.name}" in pages[site / "index.html"].links
    assert "<math" in page.html  # formulas need no script
    assert "arithmatex" not in page.html
    cells = cells_of(notebook)
    outputs = [output for cell in cells for output in cell.get("outputs", ())]
    figures = sum("image/png" in output.get("data", {}) for output in outputs)
    assert sum(request.startswith(f"{notebook.stem}_") for request in page.requests) == figures
    text = "".join(page.text)
    code = [cell["source"] for cell in cells if cell["cell_type"] == "code"]
    for shown in (*code, *("".join(output.get("text", "")) for output in outputs)):
        assert shown.rstrip() in text


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_is_on_the_page_of_commands(name: str, site, pages, capsys) -> None:
    with pytest.raises(SystemExit):
        main([name, "--help"])
    page = pages[site / "commands.html"]
    assert f"bsconv-{name}" in page.anchors
    options = set(re.findall(r"--[a-z][\w-]*", capsys.readouterr().out))
    assert options - {"--help"} <= set(re.findall(r"--[a-z][\w-]*", "".join(page.text)))


def test_links_and_images_lead_somewhere(site: Path, pages: dict[Path, HTMLPage]) -> None:
    broken = []
    for path, page in pages.items():
        for link in (*page.links, *page.requests):
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            # the page for errors is served at any depth, so its links start at the top
            start = site if parts.path.startswith("/") else path.parent
            target = (start / unquote(parts.path).lstrip("/")).resolve() if parts.path else path
            if target.is_dir():
                target /= "index.html"
            anchor = unquote(parts.fragment)
            known = pages[target].anchors | {"__top"} if target in pages else set()
            if not target.is_file() or (anchor and anchor not in known):
                broken.append(f"{path.relative_to(site)}: {link}")
    assert broken == []


def test_no_page_loads_from_another_host(site: Path, pages: dict[Path, HTMLPage]) -> None:
    for page in pages.values():
        assert [link for link in page.requests if urlsplit(link).netloc] == []
    for path in site.rglob("*.css"):
        assert re.findall(r"(?:url\(|@import)\W*(?:\w+:)?//[^)]*", path.read_text("utf-8")) == []
    named = {
        host
        for path in site.rglob("*.js")
        if path.parent.name != "search"  # holds the text of the pages, with their links
        for host in re.findall(r"[\"'`](?:https?:)?//([\w-]+\.[\w.-]+)", path.read_text("utf-8"))
    }
    assert named - set(NAMED_IN_SCRIPTS) == set()


def test_nothing_names_a_folder_of_one_machine(site: Path) -> None:
    for path in site.rglob("*"):
        if path.is_file() and path.suffix not in (".png", ".gz", ".map", ".inv"):
            text = path.read_text(encoding="utf-8")
            assert re.findall(r"(?<![\w.])/(?:work|root|home|tmp)/[\w.]\S*", text) == [], path
            assert str(ROOT) not in text
            assert sys.prefix not in text
