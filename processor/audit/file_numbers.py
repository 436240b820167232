"""Numbers of 64 bits in a file, in this machine's byte order, read where they are looked at."""

from __future__ import annotations

import mmap
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Self


class FileNumbers:
    """A file of numbers as a sequence that stays where it is: what is not looked at takes no memory."""

    def __init__(self, path: Path) -> None:
        self._map: mmap.mmap | None = None
        self.all: Sequence[int] = ()
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_size:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
                self._view = memoryview(self._map).cast("Q")
                self.all = self._view

    def close(self) -> None:
        if self._map is not None:
            self.all = ()
            self._view.release()
            self._map.close()
            self._map = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
