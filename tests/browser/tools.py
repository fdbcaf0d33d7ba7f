"""What the browser tests need of the machine, and one line on how to install what it lacks."""

import importlib.util
import shutil

CHROMIUM = ("chromium", "chromium-browser", "google-chrome")


def chromium() -> str | None:
    """The path of an installed Chromium."""
    return next((path for name in CHROMIUM if (path := shutil.which(name))), None)


def missing() -> str:
    """What to install before the browser tests can run; empty if nothing is missing."""
    lacking = []
    if chromium() is None:
        lacking.append("a browser (Debian: apt install chromium)")
    if importlib.util.find_spec("playwright") is None:
        lacking.append("playwright (pip install playwright)")
    return f"browser tests need {' and '.join(lacking)}" if lacking else ""
