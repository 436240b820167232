"""Note of an installation on why the core is not compiled, left by one from the source archive."""

from __future__ import annotations

from pathlib import Path
from typing import Final

FILE: Final = "NOT_COMPILED"
"""In the package, written by the build of a wheel from a source archive that could not be compiled
(deploy/build_hook.py)."""
_HERE: Final = Path(__file__).parent
_MOST: Final = 300


def why_not_compiled() -> str:
    """The reason why the installation did not compile the core, in one line; empty where it did not try."""
    try:
        return " ".join((_HERE / FILE).read_text("utf-8").split())[:_MOST]
    except (OSError, ValueError):
        return ""
