"""Makes the pages of the documentation: README, guide, notebooks, API and command line.

A page has the path of its source (``notebooks/00_index.ipynb`` is ``notebooks/00_index.md``), so
that links between them work. Files that the README links to become part of the site.
"""

import argparse
import functools
import html
import inspect
import json
import pkgutil
import re
from base64 import b64decode
from importlib import import_module
from pathlib import Path
from typing import Any

import griffe
from math_core import LatexToMathML
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

import bsconv.pytorch
from bsconv.__main__ import COMMANDS

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))
CORE = [
    f"bsconv.pytorch.{module.name}"
    for module in pkgutil.iter_modules(bsconv.pytorch.__path__)
    if not module.name.startswith("_")
]
EXPERIMENTS = [
    f"bsconv.experiments.{name}"
    for name in ("classifier", "data", "model_sources", "plotting", "results", "training")
]
EXAMPLES = dict(
    re.findall(
        r"^## (\S+)\n\n(```python\n.+?^```)$",
        (ROOT / "docs" / "examples.md").read_text(encoding="utf-8"),
        re.MULTILINE | re.DOTALL,
    )
)
# what a module's functions return, defined in another one
RETURNED = {
    "bsconv.pytorch.models": [
        "bsconv.pytorch.models.modification.ModificationPlan",
        "bsconv.pytorch.models.modification.BlockPlan",
    ],
}
HEADED = "show_root_heading: true, show_root_toc_entry: true"

LINK = re.compile(r"(?<=\]\()(?!\w+:)[^)#\s]+")
FORMULA = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)
PRIME = re.compile("<msup>(<mi>.</mi>)<mo>\u2032</mo></msup>")
COLOUR = re.compile(r"\x1b\[[\d;]*m")
ROLE = re.compile(r":(func|class|meth):`([^`]+)`")
TIMES = re.compile(r"(`+[^`]*`+|(?<!\w)\*\w[\w -]*\*(?!\w))|\*")  # code and *emphasis*, or a mere *


def on_config(config: MkDocsConfig) -> None:
    """Fills in the generated entries of the menu."""
    entries: dict[str, Any] = {
        "notebooks": [f"notebooks/{path.stem}.md" for path in NOTEBOOKS],
        "api": ["api/index.md", *(f"api/{module}.md" for module in CORE + EXPERIMENTS)],
    }
    assert config.nav is not None
    for item in config.nav:
        for title, place in item.items():
            item[title] = entries.get(place, place) if isinstance(place, str) else place


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Adds all pages, figures and other files."""
    pages = {"api/index.md": contents(), "commands.md": commands(), "cite.md": citation()}
    for module in CORE + EXPERIMENTS:
        parts = [f"# {module}", EXAMPLES[module], f"::: {module}"]
        for name in RETURNED.get(module, ()):
            parts.append(f"::: {name}\n    options: {{ {HEADED} }}")
        pages[f"api/{module}.md"] = "\n\n".join(parts)
    for path in linked({ROOT / "README.md", ROOT / "CHANGELOG.md", *NOTEBOOKS}):
        place = path.relative_to(ROOT).as_posix()
        if path.suffix == ".md":
            pages[place] = path.read_text(encoding="utf-8")
            continue
        files.append(File.generated(config, place, abs_src_path=str(path)))
        if path.suffix == ".ipynb":
            pages[f"notebooks/{path.stem}.md"], figures = notebook(path)
            for name, figure in figures.items():
                files.append(File.generated(config, f"notebooks/{name}", content=figure))
    pages["results/README.md"] = (
        "---\nhide: [toc]\n---\n" + pages["results/README.md"]
    )  # wide tables
    for place, text in pages.items():
        files.append(File.generated(config, place, content=text))


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Points links to notebooks at their pages."""
    return LINK.sub(lambda link: re.sub(r"\.ipynb$", ".md", link[0]), markdown)


def on_page_content(content: str, **_: Any) -> str:
    """Turns formulas into MathML, which browsers show without a script."""
    latex = LatexToMathML()

    def mathml(formula: re.Match[str]) -> str:
        source = html.unescape(formula[2]).strip()
        shown = latex.convert_with_local_state(source, displaystyle=formula[1] == "div")
        # browsers draw a prime in a superscript too small and too high
        return PRIME.sub('<mrow>\\1<mo lspace="0" rspace="0">&prime;</mo></mrow>', shown)

    return FORMULA.sub(mathml, content)


def linked(pages: set[Path]) -> set[Path]:
    """These pages and the files that they link to, directly or through other pages."""
    found: set[Path] = set()
    while pages:
        found |= pages
        links = {
            (path.parent / link).resolve()
            for path in pages
            if path.suffix == ".md"
            for link in LINK.findall(path.read_text(encoding="utf-8"))
        }
        pages = {path for path in links - found if path.is_file()}  # MkDocs reports the others
    return found


def fence(text: str, kind: str) -> str:
    """A block of code in Markdown; ``kind`` is a language or ``{.language .class}``."""
    longest = max(map(len, re.findall("`+", text)), default=0)
    ticks = "`" * max(3, longest + 1)
    return f"{ticks}{kind}\n{text.rstrip()}\n{ticks}"


def notebook(path: Path) -> tuple[str, dict[str, bytes]]:
    """The page of a notebook with its stored outputs, and its figures by name."""
    parts: list[str] = []
    figures: dict[str, bytes] = {}
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            # Jupyter indents nested lists by 2 and takes anchors as titles are written,
            # Python-Markdown indents by 4 and takes lower case
            source = re.sub(r"^( +)(?=[-*] )", r"\1\1", source, flags=re.MULTILINE)
            source = re.sub(r"\]\(#[^)]*\)", lambda link: link[0].lower(), source)
            source = source.replace("<details>", '<details markdown="1">')
            parts.append(source)
            continue
        parts.append(fence(source, "python"))
        for output in cell["outputs"]:
            data = {kind: "".join(text) for kind, text in output.get("data", {}).items()}
            if "image/png" in data:
                name = f"{path.stem}_{len(figures) + 1}.png"
                figures[name] = b64decode(data["image/png"])
                parts.append(f"![Figure {len(figures)}]({name})")
            elif "text/html" in data:
                parts.append(f"<div>\n{data['text/html']}\n</div>")
            else:
                text = "".join(output.get("text", "")) or data.get("text/plain", "")
                text = text or "\n".join(output["traceback"])
                parts.append(fence(COLOUR.sub("", text), "{.text .output}"))
    parts.insert(1, f'<a href="{path.name}" download>Download this notebook</a>')
    return "\n\n".join(parts) + "\n", figures


def commands() -> str:
    """The command line, from its parsers."""
    parts = ["# Command line", "`bsconv COMMAND --help` prints the same.", "| | |\n| --- | --- |"]
    parts[-1] += "".join(
        f"\n| [`bsconv {name}`](#bsconv-{name}) | {module.HELP} |"
        for name, module in COMMANDS.items()
    )
    for name, module in COMMANDS.items():
        formatter = functools.partial(argparse.HelpFormatter, width=88)
        parser = argparse.ArgumentParser(f"bsconv {name}", formatter_class=formatter)
        module.add_arguments(parser)
        parts += [f"## bsconv {name}", inspect.getdoc(module) or ""]
        parts += [fence(parser.format_usage(), "text"), "| argument | meaning |\n| --- | --- |"]
        for action in parser._actions[1:]:  # no public way; the first is --help
            argument = formatter("")._format_action_invocation(action)
            parts[-1] += f"\n| `{argument}` | {(action.help or '') % vars(action)} |"
    return COLOUR.sub("", "\n\n".join(parts))  # Python 3.14 colours usage


def citation() -> str:
    """The README's section "Cite", and CITATION.cff."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (cite,) = re.findall(r"^#(# Cite$.*?)(?=^## |\Z)", readme, re.MULTILINE | re.DOTALL)
    return cite + "\n\n" + fence((ROOT / "CITATION.cff").read_text(encoding="utf-8"), "yaml")


def contents() -> str:
    """What each module is for, and the public names of the library."""
    parts = ["# API", "`import bsconv.pytorch` gives"]
    for name in bsconv.pytorch.__all__:
        about = summary(getattr(bsconv.pytorch, name))
        parts.append(f"- [`{name}`][bsconv.pytorch.{name}]: {about}")
    experiments = "## Experiments\n\nFor commands and notebooks; may change in any version."
    for title, modules in {"## Modules": CORE, experiments: EXPERIMENTS}.items():
        parts.append(title)
        parts += [f"- [`{name}`]({name}.md): {summary(import_module(name))}" for name in modules]
    return "\n\n".join(parts)


def summary(thing: object) -> str:
    """The first sentence of a docstring."""
    text = " ".join((inspect.getdoc(thing) or "").split("\n\n")[0].split())
    text = ROLE.sub(r"`\2`", re.split(r"(?<=\.)\s", text)[0])
    return TIMES.sub(lambda found: found[1] or r"\*", text)


class Docstrings(griffe.Extension):
    """Turns roles of reStructuredText into links, and keeps signs of multiplication as they are."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        def link(role: re.Match[str]) -> str:
            kind, name = role.groups()
            owner = f"{obj.name}." if kind == "meth" and obj.is_class and "." not in name else ""
            return f"[`{name}`][{owner}{name}]"

        if obj.docstring:
            text = ROLE.sub(link, obj.docstring.value)
            obj.docstring.value = TIMES.sub(lambda found: found[1] or r"\*", text)
