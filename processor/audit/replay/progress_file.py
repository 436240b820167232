"""Progress file of a job of a replay: for the progress bar, not part of the evidence."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Final

_WRITE_EVERY_S: Final = 0.2


class ProgressFile:
    """Writer of a progress file. The file is replaced whole, at most every 0.2 seconds."""

    def __init__(self, path: Path) -> None:
        self._path, self._part = path, path.with_suffix(f".{os.getpid()}")
        self._written_at = 0.0

    def write(self, done: int, *, last: bool = False) -> None:
        now = time.monotonic()
        if last or now - self._written_at >= _WRITE_EVERY_S:
            self._written_at = now
            self._part.write_text(str(done))
            self._part.replace(self._path)


def read_progress(path: Path) -> int:
    """Read the last value; 0 where there is none."""
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return 0
