"""Find the commit that this program was installed from."""

from __future__ import annotations

import subprocess
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import msgspec

_WAIT_S = 20.0


class _VcsInfo(msgspec.Struct):
    commit_id: str


class _DirectUrl(msgspec.Struct):
    vcs_info: _VcsInfo | None = None


def source_commit() -> str | None:
    """The commit as the installer noted it (PEP 610), else as git tells it of the folder that the code is in.

    With `-dirty` where git sees changes that are not committed. None where neither is known, as in a wheel.
    """
    try:
        text = distribution("run-steps").read_text("direct_url.json")
        noted = msgspec.json.decode(text, type=_DirectUrl).vcs_info if text else None
    except (PackageNotFoundError, msgspec.MsgspecError):
        noted = None
    if noted is not None:
        return noted.commit_id
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return None
    try:
        done = subprocess.run(
            ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--match="],  # noqa: S607
            capture_output=True,
            text=True,
            timeout=_WAIT_S,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None
