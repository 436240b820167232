"""Check of archives of published records: each holds all that it should, no offset is in two, and what none names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from processor.archives.label import roots
from processor.archives.manifest import held_within, lacking
from processor.archives.reading import lacks_headers, reach
from processor.archives.records import ArchiveError, Capture, GapKind, Partition


def require_as_recorded(path: Path, capture: Capture) -> None:
    """Refuse output that lacks what its manifest names, or all headers: every record would be accused as missing.

    Raises:
        ArchiveError: it does.
    """
    if lacks_headers(path):
        raise ArchiveError(
            f"archive {path}: has no column `headers`, which name what a published record is of",
            hint="export the topics again with their headers (Spark: includeHeaders=true)",
        )
    if held_within(path):
        for one in lacking(path, reach(path, capture=capture)):
            raise ArchiveError(f"archive {path}: {one}", hint="record it again, or fetch the whole of it")


def require_whole(paths: Sequence[Path], capture: Capture) -> None:
    """As `require_as_recorded`, of several archives, which hold no offset twice.

    Raises:
        ArchiveError: one lacks something, or two overlap.
    """
    for path in paths:
        require_as_recorded(path, capture)
    if len(paths) < 2:
        return
    held = [(place, *span, path) for path in paths for place, span in reach(path, capture=capture).items()]
    ends: dict[Partition, int] = {}
    for place, begin, end, path in sorted(held):
        if begin < ends.get(place, 0):
            raise overlap(path, place, begin)
        ends[place] = end


def overlap(path: Path | str, place: Partition, offset: int) -> ArchiveError:
    """The error of archives of the output that hold an offset twice."""
    return ArchiveError(
        f"archive {path}: {place[0]}-{place[1]}: offset {offset} is among those of another archive",
        hint="archives of what was published must not overlap: leave one out, or cut it",
    )


class UnnamedOffsets:
    """Offsets of an archive of the output between two items of one partition, which no gap names.

    Most programs leave the markers of transactions out, so such an offset counts as one. An archive that names what
    holds no record would have named it, too: there it is a hole, and a record may have stood in it.

    Args:
        path: of the archive. One that was recorded names all gaps; any other does where it names a marker.
    """

    def __init__(self, path: Path) -> None:
        self._names_all = bool(roots(path))
        self._ends: dict[Partition, int] = {}
        self._named: set[Partition] = set()
        self._unnamed: Counter[Partition] = Counter()

    def take(self, place: Partition, first: int, last: int, count: int, kind: GapKind | None = None) -> None:
        """The next items of a partition: `count` offsets of [first, last] have one."""
        self._unnamed[place] += max(0, first - self._ends.get(place, first)) + last - first + 1 - count
        self._ends[place] = last + 1
        if kind is GapKind.MARKER or kind is GapKind.ABORTED:
            self._named.add(place)

    def holes(self) -> set[Partition]:
        """Partitions that lack offsets which are no markers."""
        return {place for place, n in self._unnamed.items() if n and (self._names_all or place in self._named)}

    def markers(self) -> Counter[Partition]:
        """How many offsets count as markers."""
        holes = self.holes()
        return Counter({place: n for place, n in self._unnamed.items() if n and place not in holes})
