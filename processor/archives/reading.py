"""Read records and gaps from a path: choose the files, order them, and check that offsets rise."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final, cast

import msgspec

from processor.archives import jsonl
from processor.archives.foreign import require_no_table, require_unpacked
from processor.archives.label import LABEL, SUFFIXES, is_root, labels, read_label
from processor.archives.records import (
    CAPTURE,
    LIMITS,
    MAX_OFFSET,
    MAX_PARTITION,
    MAX_TIMESTAMP,
    MIN_TIMESTAMP,
    NO_TIMESTAMP,
    ArchivedRecord,
    Batch,
    Capture,
    Columns,
    Gap,
    Limits,
    Partition,
    is_topic,
    refused,
)
from processor.core.record_columns import RecordColumns
from processor.errors import UsageError

_UNFINISHED: Final = tuple(
    suffix + mark
    for suffix in SUFFIXES
    for mark in (".part", ".partial", ".tmp", ".temp", ".inprogress", ".filepart", ".crdownload", ".download")
)
MAX_PARTITIONS: Final = 1 << 16
_RECORDS: Final = {ArchivedRecord}


class Extent(msgspec.Struct, frozen=True):
    """Content of an archive for one partition: offsets [begin, end), records in it, their timestamps (ms)."""

    begin: int
    end: int
    records: int
    first_ms: int
    last_ms: int


def read(
    path: Path,
    *,
    only: Partition | None = None,
    begin: int = 0,
    end: int = MAX_OFFSET,
    capture: Capture = CAPTURE,
    limits: Limits = LIMITS,
) -> Iterator[ArchivedRecord | Gap]:
    """The records and gaps of a file, or of all archive files under a folder in the order of their names.

    Numbers in names count as numbers: `part-9` before `part-10`. Within a partition offsets rise strictly. With
    `only`, what belongs to other partitions or lies outside [begin, end) is left out, a gap cut to the range; the
    files of a recorded archive that cannot hold anything of it are not opened.

    Raises:
        UsageError: there is no such path, or nothing in it that looks like an archive.
        ArchiveError: the file and the place that cannot be right.
    """
    for items in read_batches(path, only=only, begin=begin, end=end, capture=capture, limits=limits):
        yield from items


def read_batches(
    path: Path,
    *,
    only: Partition | None = None,
    within: Partition | None = None,
    begin: int = 0,
    end: int = MAX_OFFSET,
    capture: Capture = CAPTURE,
    limits: Limits = LIMITS,
) -> Iterator[list[ArchivedRecord | Gap]]:
    """As `read`, in lists of one or more; items before a refused one are yielded first.

    With `within` the files of that partition of a recorded archive are read, and all that is in them.
    """
    if only is None and (begin, end) != (0, MAX_OFFSET):
        raise UsageError("archive: a range of offsets needs a partition")
    files = _files(path, only or within, begin, end)
    for items in _read(files, lambda file: _batches(file, capture, limits), only, begin, end):
        assert isinstance(items, list), "columns were not asked for"
        yield items


def read_pieces(
    path: Path, only: Partition, *, begin: int, end: int, capture: Capture = CAPTURE, limits: Limits = LIMITS
) -> Iterator[list[ArchivedRecord | Gap] | RecordColumns]:
    """As `read_batches`, with columns in place of lists where that is faster."""

    def batches(file: Path) -> Iterable[Batch | Columns]:
        if ".jsonl" in file.name:
            return jsonl.read_columns(file, limits, only)
        if file.name.endswith(".parquet"):
            from processor.archives import parquet

            return parquet.read_columns(file, limits, only)
        return _batches(file, capture, limits)

    return _read(_files(path, only, begin, end), batches, only, begin, end)


def _read(
    files: list[tuple[Path, _Start]],
    batches_of: Callable[[Path], Iterable[Batch | Columns]],
    only: Partition | None,
    begin: int,
    end: int,
) -> Iterator[list[ArchivedRecord | Gap] | RecordColumns]:
    """Read files one after the other, in the order of offsets; yields what is chosen of them."""
    order = _Order()
    for file, start in files:
        is_named, awaited = start is not None, start
        try:
            for unit, number, piece in batches_of(file):
                if isinstance(piece, RecordColumns):
                    assert only is not None
                    if awaited is None and order.columns_follow(piece, only, begin, end):
                        yield piece
                        continue
                    items = _items(piece, only)
                else:
                    items = piece
                if awaited is not None and _start(items[0]) != awaited:
                    raise refused(
                        file, f"{unit} {number}", "the name of the file says where it begins, and it begins elsewhere"
                    )
                awaited = None
                good = order.followed(items)
                chosen = items if good == len(items) else items[:good]
                if only is not None:
                    chosen = _chosen(chosen, only, begin, end, order.is_alone)
                if chosen:
                    yield chosen
                if good < len(items):
                    raise order.broken(file, f"{unit} {number + good}", items[good])
                # A file of a recorded archive is looked through to its end: it was not surveyed (`reach`).
                if only is not None and not is_named and order.reached(only) >= end:
                    return
        except OSError as exc:
            raise refused(file, "", f"cannot be read ({exc.strerror or exc})") from exc
        if awaited is not None:
            raise refused(file, "", "holds nothing", hint="the file is damaged; fetch it again")


def _items(columns: RecordColumns, partition: Partition) -> list[ArchivedRecord | Gap]:
    return [
        ArchivedRecord(*partition, one.offset, one.timestamp, one.key, one.value, tuple(one.headers)) for one in columns
    ]


def _chosen(
    items: list[ArchivedRecord | Gap], only: Partition, begin: int, end: int, is_alone: bool
) -> list[ArchivedRecord | Gap]:
    """Items of a partition and a range; `is_alone`: all items are of one partition."""
    if not items or (is_alone and (items[0].topic, items[0].partition) != only):
        return []
    if is_alone and begin <= _start(items[0])[2] and _last(items[-1]) < end:
        return items
    found: list[ArchivedRecord | Gap] = []
    for item in items:
        if (item.topic, item.partition) != only:
            continue
        if isinstance(item, Gap):
            cut = _cut(item, begin, end)
            if cut is not None:
                found.append(cut)
        elif begin <= item.offset < end:
            found.append(item)
    return found


def shares(path: Path) -> list[tuple[Partition | None, int]]:
    """Parts of an archive that can be read in parallel, and their bytes on disk.

    Of a recorded archive its partitions (to be read `within`); None is all of another.
    """
    if not (path / LABEL).is_file():
        return [(None, path.stat().st_size if path.is_file() else 0)]
    found: dict[Partition, int] = {}
    for file, start in _files(path, None, 0, MAX_OFFSET):
        assert start is not None
        found[start[:2]] = found.get(start[:2], 0) + file.stat().st_size
    return list(found.items())


def survey(path: Path, *, capture: Capture = CAPTURE, limits: Limits = LIMITS) -> dict[Partition, Extent]:
    """Which partitions an archive holds and how far each reaches. Reads all of it once."""
    found: dict[Partition, list[int]] = {}
    for item in read(path, capture=capture, limits=limits):
        if isinstance(item, Gap):
            now = found.setdefault((item.topic, item.partition), [item.first, 0, 0, NO_TIMESTAMP, NO_TIMESTAMP])
            now[1] = item.last + 1
            continue
        now = found.setdefault((item.topic, item.partition), [item.offset, 0, 0, NO_TIMESTAMP, NO_TIMESTAMP])
        now[1] = item.offset + 1
        now[3] = item.timestamp if now[2] == 0 else min(now[3], item.timestamp)
        now[4] = item.timestamp if now[2] == 0 else max(now[4], item.timestamp)
        now[2] += 1
    return {key: Extent(*found[key]) for key in sorted(found)}


def reach(path: Path, *, capture: Capture = CAPTURE) -> dict[Partition, tuple[int, int]]:
    """Which partitions an archive holds, and the offsets [begin, end) of each.

    Of a recorded archive, whose files have their first offsets for names, no more is read than the end of each
    partition's last file; any other is surveyed. Who reads that file finds whether the rest of it bears this out.
    """
    if not (path / LABEL).is_file():
        found = survey(path, capture=capture)
        return {key: (extent.begin, extent.end) for key, extent in found.items()}
    reached: dict[Partition, tuple[int, int]] = {}
    files: dict[Partition, Path] = {}
    for file, start in _files(path, None, 0, MAX_OFFSET):
        assert start is not None
        topic, partition, first = start
        reached[topic, partition] = (reached.get((topic, partition), (first, first))[0], first)
        files[topic, partition] = file
    for key, (begin, last) in reached.items():
        item = _last_item(files[key])
        if (
            item is not None
            and (item.topic, item.partition) == key
            and last <= _start(item)[2] <= _last(item) < MAX_OFFSET
        ):
            reached[key] = (begin, 1 + _last(item))
            continue
        for item in read(path, only=key, begin=last, capture=capture):
            reached[key] = (begin, 1 + _last(item))
    return reached


def _last_item(file: Path) -> ArchivedRecord | Gap | None:
    try:
        if file.name.endswith(".parquet"):
            from processor.archives.parquet import last_row

            return last_row(file, LIMITS)
        return jsonl.last_line(file, LIMITS) if ".jsonl" in file.name else None
    except OSError as exc:
        raise refused(file, "", f"cannot be read ({exc.strerror or exc})") from exc


class _Order:
    """Offsets rise within each partition, over all files; topic and partition are possible ones."""

    def __init__(self) -> None:
        self._last: dict[Partition, int] = {}
        self.is_alone = True
        """Whether all of the items looked at last were of one partition."""

    def followed(self, items: list[ArchivedRecord | Gap]) -> int:
        """Number of items, from the first on, that follow each other and the item before."""
        if self._goes_on(items):
            return len(items)
        topic, partition, last = "", -1, MAX_OFFSET
        changes = 0
        for at, item in enumerate(items):
            if (
                type(item) is ArchivedRecord
                and last < item.offset <= MAX_OFFSET
                and item.partition == partition
                and item.topic == topic
                and MIN_TIMESTAMP <= item.timestamp <= MAX_TIMESTAMP
            ):
                last = item.offset
                continue
            if changes:
                self._last[topic, partition] = last
            if not self.follows(item):
                self.is_alone = changes == 1
                return at
            changes += (item.topic, item.partition) != (topic, partition)
            topic, partition = item.topic, item.partition
            last = self._last[topic, partition]
        self._last[topic, partition] = last
        self.is_alone = changes == 1
        return len(items)

    def _goes_on(self, items: list[ArchivedRecord | Gap]) -> bool:
        """Whether the items are records of one known partition, with one offset after the other: nearly all are.

        Each condition is one pass of the interpreter's own loops: `followed` looks at the items one by one.
        """
        if set(map(type, items)) != _RECORDS:
            return False
        records = cast(list[ArchivedRecord], items)
        partition, first = (records[0].topic, records[0].partition), records[0].offset
        last = first + len(records) - 1
        times = [record.timestamp for record in records]
        if not (
            self._last.get(partition, MAX_OFFSET) < first
            and last <= MAX_OFFSET
            and [record.offset for record in records] == list(range(first, last + 1))
            and {(record.topic, record.partition) for record in records} == {partition}
            and min(times) >= MIN_TIMESTAMP
            and max(times) <= MAX_TIMESTAMP
        ):
            return False
        self._last[partition] = last
        self.is_alone = True
        return True

    def columns_follow(self, columns: RecordColumns, partition: Partition, begin: int, end: int) -> bool:
        """Whether they follow the item before, all of them in this range; None of them is looked at one by one."""
        before, first = self._last.get(partition), columns[0].offset
        last = first + len(columns) - 1
        if before is None or first <= before or first < begin or last >= end:
            return False
        self._last[partition] = last
        return True

    def reached(self, partition: Partition) -> int:
        """The last offset of a partition, -1 if there was none."""
        return self._last.get(partition, -1)

    def follows(self, item: ArchivedRecord | Gap) -> bool:
        """Note an item that is possible and behind the last one of its partition; returns whether it is."""
        partition = (item.topic, item.partition)
        before = self._last.get(partition)
        if type(item) is ArchivedRecord and before is not None:
            if before < item.offset <= MAX_OFFSET and MIN_TIMESTAMP <= item.timestamp <= MAX_TIMESTAMP:
                self._last[partition] = item.offset
                return True
            return False
        if isinstance(item, ArchivedRecord):
            first = last = item.offset
            if not MIN_TIMESTAMP <= item.timestamp <= MAX_TIMESTAMP:
                return False
        else:
            first, last = item.first, item.last
        if before is None:
            if not self._possible(item):
                return False
            before = -1
        if not before < first <= last <= MAX_OFFSET:
            return False
        self._last[partition] = last
        return True

    def _possible(self, item: ArchivedRecord | Gap) -> bool:
        return is_topic(item.topic) and 0 <= item.partition <= MAX_PARTITION and len(self._last) < MAX_PARTITIONS

    def broken(self, file: Path, place: str, item: ArchivedRecord | Gap) -> Exception:
        """The error of an item for which `follows` is False."""
        if not is_topic(item.topic):
            return refused(file, place, f"not the name of a topic (got {item.topic!r})")
        if not 0 <= item.partition <= MAX_PARTITION:
            return refused(file, place, f"not a partition (got {item.partition})")
        before = self._last.get((item.topic, item.partition))
        if before is None and len(self._last) >= MAX_PARTITIONS:
            return refused(file, place, f"more than {MAX_PARTITIONS} partitions")
        if isinstance(item, ArchivedRecord) and not MIN_TIMESTAMP <= item.timestamp <= MAX_TIMESTAMP:
            return refused(file, place, f"not a timestamp in milliseconds (got {item.timestamp})")
        if isinstance(item, Gap) and item.first > item.last:
            return refused(file, place, f"a gap ends before it begins (got {item.first} to {item.last})")
        first, last = (item.offset, item.offset) if isinstance(item, ArchivedRecord) else (item.first, item.last)
        if first < 0 or last > MAX_OFFSET:
            return refused(file, place, f"not an offset (got {first if first < 0 else last})")
        where = f"{item.topic}-{item.partition}"
        return refused(
            file,
            place,
            f"offsets of {where} do not rise (got {first} after {before})",
            hint="archives that overlap cannot be read as one: name files so that each offset comes once, in order",
        )


def _start(item: ArchivedRecord | Gap) -> tuple[str, int, int]:
    return item.topic, item.partition, item.offset if isinstance(item, ArchivedRecord) else item.first


def _last(item: ArchivedRecord | Gap) -> int:
    return item.last if isinstance(item, Gap) else item.offset


def _cut(gap: Gap, begin: int, end: int) -> Gap | None:
    first, last = max(gap.first, begin), min(gap.last, end - 1)
    if first > last:
        return None
    return gap if (first, last) == (gap.first, gap.last) else msgspec.structs.replace(gap, first=first, last=last)


def _batches(file: Path, capture: Capture, limits: Limits) -> Iterable[Batch]:
    """Read a file in the format of its suffix. A format is loaded when one is met: two of them need an extra."""
    if file.name.endswith(".avro"):
        from processor.archives.capture import read_capture

        return ((unit, number, [item]) for unit, number, item in read_capture(file, capture, limits))
    if file.name.endswith(".parquet"):
        from processor.archives.parquet import read_parquet

        return read_parquet(file, limits)
    return jsonl.read_lines(file, limits)


_Start = tuple[str, int, int] | None
"""Topic, partition and offset at which a file must begin, where its name says so."""


def _files(path: Path, only: Partition | None, begin: int, end: int) -> list[tuple[Path, _Start]]:
    """The files to read, in order."""
    if not path.exists():
        raise UsageError(f"archive {path}: there is no such file or folder")
    if path.is_file():
        if not path.name.endswith(SUFFIXES):
            raise UsageError(f"archive {path}: not a known kind of file", hint=f"known are {', '.join(SUFFIXES)}")
        return [(path, None)]
    if (path / LABEL).is_file():
        read_label(path)
        return _recorded(path, only, begin, end)
    require_no_table(path)
    require_unpacked(path)
    found = list(_finished_files(path))
    if not found:
        raise UsageError(f"archive {path}: no archive in this folder", hint=f"known are {', '.join(SUFFIXES)}")
    return [(file, None) for file in sorted(found, key=lambda file: natural(file.relative_to(path)))]


def left_alone(path: Path) -> int:
    """Number of archive files under a folder that are not read, because their names say that they are not finished.

    Hadoop, Spark and Kafka Connect write unfinished attempts under a name that begins with `_`, `.` or `+tmp`
    (`_temporary`), which go on where whole files end; programs that copy put a suffix behind the name (`.part`).
    """
    if not path.is_dir() or (path / LABEL).is_file():
        return 0
    unfinished = (p for p in path.rglob("*") if p.name.endswith(_UNFINISHED) and p.is_file())
    return sum(_is_hidden(p.relative_to(path)) for p in _archive_files(path)) + len(set(unfinished))


def empty_files(path: Path) -> list[Path]:
    """Archive files of no bytes under a folder: JSON lines without a line, or what a copy that failed has left."""
    if not path.is_dir() or (path / LABEL).is_file():
        return []
    return sorted(p for p in _finished_files(path) if not p.stat().st_size)


def _archive_files(path: Path) -> Iterator[Path]:
    return (p for p in path.rglob("*") if p.name.endswith(SUFFIXES) and p.is_file())


def _finished_files(path: Path) -> Iterator[Path]:
    """Archive files under a folder whose names do not say that they are unfinished (`left_alone`)."""
    return (p for p in _archive_files(path) if not _is_hidden(p.relative_to(path)))


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(("_", ".", "+tmp")) for part in path.parts)


def _recorded(path: Path, only: Partition | None, begin: int, end: int) -> list[tuple[Path, _Start]]:
    """The files of a recorded archive that may hold what is asked for; the rest is never opened."""
    folders = [path / only[0] / str(only[1])] if only is not None else [p for p in path.glob("*/*") if p.is_dir()]
    chosen: list[tuple[Path, _Start]] = []
    for folder in sorted(folders, key=lambda f: natural(f.relative_to(path))):
        files = recorded_files(folder)
        if not (folder.name.isascii() and folder.name.isdigit()):
            continue
        for at, (first, file) in enumerate(files):
            until = files[at + 1][0] if at + 1 < len(files) else MAX_OFFSET
            if first < end and until > begin:
                chosen.append((file, (folder.parent.name, int(folder.name), first)))
    return chosen


def recorded_files(folder: Path) -> list[tuple[int, Path]]:
    """The whole files of one partition with their first offsets, ascending."""
    if not folder.is_dir():
        return []
    found = []
    for file in folder.iterdir():
        stem = file.name.partition(".")[0]
        if file.name.endswith(SUFFIXES) and stem.isascii() and stem.isdigit():
            found.append((int(stem), file))
    return sorted(found)


def holds_arrivals(path: Path) -> bool:
    """Whether an archive has times of arrival: it is of Event Hubs Capture, or was recorded from one that is."""
    if any(label.has_arrivals for label in labels(path)):
        return True
    return not is_root(path) and any(file.name.endswith(".avro") for file in _foreign_files(path))


def lacks_headers(path: Path) -> bool:
    """Whether files of an archive have no column for headers, as Spark leaves it out unless it is told to keep them, or
    it was recorded from one that has such files."""
    if any(label.lacks_headers for label in labels(path)):
        return True
    if is_root(path):
        return False
    files = [file for file in _foreign_files(path) if file.name.endswith(".parquet")]
    if not files:
        return False
    from processor.archives.parquet import has_headers

    return not all(has_headers(file, LIMITS) for file in files)


def _foreign_files(path: Path) -> Iterator[Path]:
    """The files of an archive without a label."""
    return iter((path,)) if path.is_file() else _finished_files(path)


def natural(path: Path) -> list[tuple[int, int, str]]:
    """A sort key that counts numbers in names as numbers."""
    return [
        (0, int(part), part) if part.isascii() and part.isdigit() else (1, 0, part)
        for name in path.parts
        for part in ["", *re.findall(r"[0-9]+|[^0-9]+", name)]
    ]
