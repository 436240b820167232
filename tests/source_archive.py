"""Unpack source archives on every Python 3.11: `filter` of tarfile came with 3.11.4, and Debian 12 has 3.11.2."""

from __future__ import annotations

import tarfile
from pathlib import Path


def unpack_archive(files: tarfile.TarFile, folder: Path) -> None:
    """Unpack an archive of our own making, filtered as plain data where this Python can."""
    if hasattr(tarfile, "data_filter"):
        files.extractall(folder, filter="data")
    else:
        files.extractall(folder)
