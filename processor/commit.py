"""The commit that the program was built from."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Final

FILE: Final = "COMMIT"
"""In the package, written by the build of a wheel (deploy/build_hook.py)."""
UNKNOWN: Final = "unknown"
_HERE: Final = Path(__file__).parent
_DIGITS: Final = 12


def commit() -> str:
    """The first twelve digits of the commit, with a `+` if the tree was changed since; `unknown` where nothing says.

    A wheel has it in a file. A source tree is asked with git, which takes a moment: not for a worker that is starting.
    """
    try:
        return (_HERE / FILE).read_text("ascii").strip() or UNKNOWN
    except (OSError, ValueError):
        return of_tree(_HERE.parent)


def of_tree(root: Path) -> str:
    """Ask git for the commit of a source tree; `unknown` if it is no repository of its own, or there is no git."""
    if not (root / ".git").exists():
        return UNKNOWN
    try:
        found = _git(root, "rev-parse", f"--short={_DIGITS}", "HEAD")
        return f"{found}+" if _git(root, "status", "--porcelain", "--untracked-files=no") else found
    except (OSError, subprocess.SubprocessError):
        return UNKNOWN


def _git(root: Path, *arguments: str) -> str:
    command = ["git", "-C", str(root), *arguments]
    return subprocess.run(command, capture_output=True, check=True, text=True, timeout=10).stdout.strip()
