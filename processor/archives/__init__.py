"""Archives: files that hold records of topics. Read one with `read`, make one with `Recorder`.

The format is described in docs/archive-format.md. Reading streams and is bounded by `Limits`; damaged or impossible
content raises `ArchiveError`, which names the file and the place.
"""

from __future__ import annotations

from processor.archives.manifest import Lacking, held_within, lacking
from processor.archives.reading import (
    Extent,
    empty_files,
    holds_arrivals,
    lacks_headers,
    left_alone,
    reach,
    read,
    read_batches,
    read_pieces,
    shares,
    survey,
)
from processor.archives.recorder import Recorder
from processor.archives.records import (
    CAPTURE,
    LIMITS,
    ArchivedRecord,
    ArchiveError,
    Capture,
    Gap,
    GapKind,
    Limits,
)
from processor.archives.whole import UnnamedOffsets, overlap, require_as_recorded, require_whole

__all__ = [
    "CAPTURE",
    "LIMITS",
    "ArchiveError",
    "ArchivedRecord",
    "Capture",
    "Extent",
    "Gap",
    "GapKind",
    "Lacking",
    "Limits",
    "Recorder",
    "UnnamedOffsets",
    "empty_files",
    "held_within",
    "holds_arrivals",
    "lacking",
    "lacks_headers",
    "left_alone",
    "overlap",
    "reach",
    "read",
    "read_batches",
    "read_pieces",
    "require_as_recorded",
    "require_whole",
    "shares",
    "survey",
]
