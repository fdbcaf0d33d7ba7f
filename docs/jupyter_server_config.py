"""Jupyter's settings for .venv, put there by ``make env``: reading a notebook leaves its file."""

from typing import Any

KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}


def without_versions(model: dict[str, Any], **_: Any) -> None:
    """Opening a notebook adds the versions of this machine to it; they are not saved."""
    metadata = model["content"]["metadata"] if model["type"] == "notebook" else {}
    if metadata.get("kernelspec", {}).get("name") == KERNEL["name"]:
        metadata |= {"kernelspec": KERNEL, "language_info": {"name": "python"}}


get_config().ContentsManager.pre_save_hook = without_versions  # noqa: F821
