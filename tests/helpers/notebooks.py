"""The notebooks and the program that runs them."""

import importlib.util

from helpers.paths import ROOT

FOLDER = ROOT / "notebooks"

spec = importlib.util.spec_from_file_location("run_all", FOLDER / "run_all.py")
run_all = importlib.util.module_from_spec(spec)
spec.loader.exec_module(run_all)
