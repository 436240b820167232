"""Whether the core is compiled, and why it is not: the note that an installation from the source archive leaves."""

from __future__ import annotations

from pathlib import Path
from typing import Final

FILE: Final = "NOT_COMPILED"
"""In the package, written by the build of a wheel from a source archive that could not be compiled
(deploy/build_hook.py)."""
_HERE: Final = Path(__file__).parent
_MOST: Final = 300


def why_not_compiled() -> str:
    """What kept the installation from compiling the core, in one line; empty where nothing was tried."""
    try:
        return " ".join((_HERE / FILE).read_text("utf-8").split())[:_MOST]
    except (OSError, ValueError):
        return ""
