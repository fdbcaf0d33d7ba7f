"""The command line: ``bsconv ...`` and ``python -m bsconv ...``."""

import argparse
import math
import os
import re
import shutil
import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

from . import __version__
from .basics import tables
from .basics.errors import meant, needs, one_line

# one module per command: HELP, add_arguments(parser) and run(arguments), which may return an exit
# code; they import torch and other heavy packages in run only, so that help and errors are quick
NAMES = (
    "train", "evaluate", "predict", "models", "plan", "profile", "spectra", "project", "export",
    "benchmark", "results", "data", "completion",
)  # fmt: skip
try:  # Ctrl-C is one line from the first moment on
    COMMANDS = {name: import_module(f"bsconv.commands.{name}") for name in NAMES}
except KeyboardInterrupt:
    print("bsconv: interrupted", file=sys.stderr)
    sys.exit(130)
EXPECTED = (ValueError, OSError, FloatingPointError, MemoryError, ModuleNotFoundError)
OUT_OF_MEMORY = "allocate memory|out of memory|Storage size calculation"  # of CPUs and GPUs


class Parser(argparse.ArgumentParser):
    """An argparse parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        wrong = re.match("argument COMMAND: invalid choice: '(.*?)'", message)
        if wrong is not None:
            near = meant(wrong[1], COMMANDS, f", there are {', '.join(COMMANDS)}")
            message = f"there is no command {wrong[1]!r}{near}"
        self.exit(2, f"{self.prog}: {one_line(message, limit=None)} (see {self.prog} --help)\n")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            near = meant(unknown[0].partition("=")[0], self._option_string_actions)
            self.error(f"unrecognized arguments: {' '.join(unknown)}{near}")
        return found, unknown

    def _get_value(self, action: Any, arg_string: str) -> Any:
        if action.type in (None, Path) and not action.choices:
            if not arg_string:
                raise argparse.ArgumentError(action, "expected a value, got ''")
            arg_string = os.path.expanduser(arg_string)  # of --out=~/x, shells do not
        return super()._get_value(action, arg_string)


def make_parser() -> Parser:
    about = "Blueprint separable convolutions for PyTorch."
    parser = Parser("bsconv", description=about, allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"bsconv {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    for name, module in COMMANDS.items():
        about = str(module.__doc__)
        command = commands.add_parser(name, help=module.HELP, description=about, allow_abbrev=False)
        module.add_arguments(command)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit code is 0, 2 for bad input, 130 for Ctrl-C."""
    format_before = warnings.formatwarning
    warnings.formatwarning = lambda message, *_, **__: f"bsconv: {one_line(message, limit=None)}\n"
    warnings.filterwarnings("ignore", "Failed to initialize NumPy")  # which may not be needed
    getattr(sys.stdout, "reconfigure", dict)(errors="backslashreplace")  # names need not be UTF-8
    on_terminal = sys.stdout is not None and sys.stdout.isatty()
    tables.terminal_width = shutil.get_terminal_size().columns if on_terminal else math.inf
    command = ""
    try:
        arguments = (parser := make_parser()).parse_args(argv)
        if not (command := arguments.command or ""):
            parser.print_help()
            return 0
        code: int | None = COMMANDS[command].run(arguments)
        print(end="", flush=True)  # where stdout is closed, that is nothing
        return code or 0
    except BrokenPipeError:
        # the reader has seen enough, as in `bsconv models | head`; without this, Python would
        # complain once more when it flushes at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print("bsconv: interrupted", file=sys.stderr)
        return 130
    except (*EXPECTED, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not re.search(OUT_OF_MEMORY, str(error)):
            raise
        print(f"bsconv {command}: {describe(error)}", file=sys.stderr)
        return 2
    finally:
        warnings.formatwarning = format_before


def describe(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror and error.filename:
        return one_line(f"{error.filename}: {error.strerror}", limit=None)
    if isinstance(error, ModuleNotFoundError):
        return needs("this", error)
    if isinstance(error, (MemoryError, RuntimeError)):
        return "the memory does not hold this: try fewer classes, or fewer or smaller images"
    return one_line(error, limit=None)


if __name__ == "__main__":
    sys.exit(main())
