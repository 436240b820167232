"""The published records of one run, put away by source partition in files, so that memory does not grow with them.

`Shelves` is written once, by one process; `FiledShelf` reads one partition's file in whatever process audits it and
never changes it. What was taken is remembered as one bit per record.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import msgspec

from processor.core import evidence
from processor.core.audit import Kind, Published, Unreadable, caused_at, mark_of, read_published
from processor.core.effects import Reason, Record

_ROWS: Final = 2_000
"""Rows held in memory per partition before they are written."""

_SCHEMA: Final = """
    CREATE TABLE published (
        id INTEGER PRIMARY KEY, kind TEXT, one TEXT, two TEXT, topic TEXT, partition INTEGER, offset INTEGER,
        cause INTEGER, mark_position INTEGER, mark_ms INTEGER, record BLOB
    )
"""
_INDEX: Final = "CREATE INDEX by_identity ON published (one, two, kind)"
_STRAYS: Final = "CREATE TABLE strays (kind TEXT, topic TEXT, partition INTEGER, offset INTEGER, why TEXT)"
_SELECT: Final = "SELECT id, kind, one, two, topic, partition, offset, record FROM published "
_LOOK: Final = _SELECT + "WHERE one = ? AND two = ? AND kind = ? ORDER BY topic, partition, offset"
_ONE: Final = _SELECT + "WHERE id = ?"

_pack: Final = msgspec.msgpack.Encoder().encode
_unpack: Final = msgspec.msgpack.Decoder(
    tuple[int, bytes | None, bytes | None, tuple[tuple[str, bytes | None], ...]]
).decode


def shelf_path(folder: Path, partition: int) -> Path:
    return folder / f"published-{partition:05d}.sqlite"


def of_source(
    source: str, partitions: int, topic: str, partition: int, record: Record, *, dead_letters: bool = False
) -> Published | Unreadable | None:
    """A record of an output topic; None if it is of another source than this one, with so many partitions."""
    named = next((content for name, content in reversed(record.headers) if name == evidence.SOURCE_TOPIC), None)
    if named is None:
        return Unreadable(topic, partition, record.offset, f"no {evidence.SOURCE_TOPIC}")
    if named != source.encode():
        return None
    found = read_published(topic, partition, record, dead_letters=dead_letters)
    if isinstance(found, Published) and found.source_partition >= partitions:
        why = f"names source partition {found.source_partition} of {partitions}"
        return Unreadable(topic, partition, record.offset, why)
    return found


class Shelves:
    """Takes records off the output topics and sorts them by the source partition that they name.

    Args:
        source: the source topic; what names another is counted in `elsewhere` and left out.
        partitions: how many partitions the source has.
        wanted: the partitions that are audited; what names another one of them is counted in `other_partitions`.
    """

    def __init__(self, folder: Path, source: str, partitions: int, wanted: frozenset[int]) -> None:
        self._folder, self._source, self._partitions, self._wanted = folder, source, partitions, wanted
        self._files: dict[int, sqlite3.Connection] = {}
        self._rows: dict[int, list[tuple[Any, ...]]] = {}
        self.read: Counter[str] = Counter()
        """Records by topic."""
        self.elsewhere = 0
        self.other_partitions = 0
        self.shelved = 0
        self.unreadable = 0
        """Records that name no place of the source; they are kept on the shelf of the first wanted partition."""
        folder.mkdir(parents=True, exist_ok=True)
        for partition in wanted:
            shelf_path(folder, partition).unlink(missing_ok=True)
            self._rows[partition] = []
            file = self._files[partition] = sqlite3.connect(shelf_path(folder, partition), isolation_level=None)
            file.execute("PRAGMA journal_mode = OFF")
            file.execute("PRAGMA synchronous = OFF")
            file.execute(_SCHEMA)
            file.execute(_STRAYS)

    def put(self, topic: str, partition: int, record: Record, *, dead_letters: bool) -> None:
        """One record, as it stands on an outcome topic or on the dead letters."""
        self.read[topic] += 1
        found = of_source(self._source, self._partitions, topic, partition, record, dead_letters=dead_letters)
        if found is None:
            self.elsewhere += 1
        elif isinstance(found, Unreadable):
            kind = Kind.DEAD_LETTER if dead_letters else Kind.STEP
            self.unreadable += 1
            row = (kind.value, found.topic, found.partition, found.offset, found.why)
            self._files[min(self._wanted)].execute("INSERT INTO strays VALUES (?, ?, ?, ?, ?)", row)
        elif found.source_partition not in self._wanted:
            self.other_partitions += 1
        else:
            self.add(found)

    def add(self, published: Published) -> None:
        """One whose evidence is read, of a partition that is wanted."""
        self.shelved += 1
        rows = self._rows[published.source_partition]
        mark = mark_of(published) or (None, None)
        record = _pack((published.timestamp, published.key, published.value, published.headers))
        place = published.topic, published.partition, published.offset
        rows.append((published.kind.value, *published.identity, *place, caused_at(published), *mark, record))
        if len(rows) >= _ROWS:
            self._flush(published.source_partition)

    def _flush(self, partition: int) -> None:
        file, rows = self._files[partition], self._rows[partition]
        file.execute("BEGIN")
        file.executemany("INSERT INTO published VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)
        file.execute("COMMIT")
        rows.clear()

    def close(self) -> None:
        """Make the files whole."""
        for partition, file in self._files.items():
            self._flush(partition)
            file.execute(_INDEX)
            file.close()
        self._files.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        if kind is None:
            self.close()
        for file in self._files.values():
            file.close()


class FiledShelf:
    """One source partition's shelf; satisfies `core.audit.Shelf`. Use as a context manager."""

    def __init__(self, folder: Path, partition: int) -> None:
        self._partition = partition
        self._file = sqlite3.connect(
            f"{shelf_path(folder, partition).resolve().as_uri()}?mode=ro&immutable=1", uri=True
        )
        (self.count,) = self._file.execute("SELECT count(*) FROM published").fetchone()
        self._taken = bytearray(self.count // 8 + 1)
        self._ids: dict[tuple[str, int, int], int] = {}
        self.last: dict[tuple[str, int, int], Published] = {}
        """What was handed out last, by place."""

    def look(self, kind: Kind, identity: tuple[str, str]) -> list[Published]:
        self._ids.clear()
        self.last.clear()
        rows = self._file.execute(_LOOK, (*identity, kind.value))
        return [self._published(row) for row in rows if not self._is_taken(row[0])]

    def take(self, published: Published) -> None:
        number = self._ids[published.topic, published.partition, published.offset]
        self._taken[number >> 3] |= 1 << (number & 7)

    def left(self) -> Iterator[Published]:
        rows = self._file.execute("SELECT id FROM published ORDER BY topic, partition, offset")
        one = self._file.cursor()
        for (number,) in rows:
            if not self._is_taken(number):
                self._ids.clear()
                self.last.clear()
                yield self._published(one.execute(_ONE, (number,)).fetchone())

    def marks(self) -> list[tuple[int, int]]:
        rows = self._file.execute(
            "SELECT DISTINCT mark_position, mark_ms FROM published WHERE mark_ms IS NOT NULL ORDER BY 1, 2"
        )
        return [(position, milliseconds) for position, milliseconds in rows]

    def crowded_from(self, offset: int) -> int | None:
        reason = Reason.TOO_MANY_OPEN_STEPS.value
        (found,) = self._file.execute(
            "SELECT min(cause) FROM published WHERE kind = ? AND substr(two, 1, ?) = ? AND cause >= ?",
            (Kind.DEAD_LETTER.value, len(reason), reason, offset),
        ).fetchone()
        return None if found is None else int(found)

    def strays(self) -> Iterator[tuple[Kind, Unreadable]]:
        """Records of the output topics that no partition can own, in the order of topic, partition, offset."""
        for kind, *rest in self._file.execute("SELECT * FROM strays ORDER BY topic, partition, offset"):
            yield Kind(kind), Unreadable(*rest)

    def kept_from(self, shortened: Mapping[tuple[str, int], int]) -> dict[tuple[str, int], int]:
        """The first cause that is named where the first records are gone, by topic and partition.

        Args:
            shortened: the output partitions whose first records retention has taken -> their first offset.
        """
        found = {}
        for (topic, partition), _ in sorted(shortened.items()):
            row = self._file.execute(
                "SELECT cause FROM published WHERE topic = ? AND partition = ? ORDER BY offset LIMIT 1",
                (topic, partition),
            ).fetchone()
            found[topic, partition] = row[0] if row is not None and row[0] is not None else 1 << 62
        return found

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _is_taken(self, number: int) -> bool:
        return bool(self._taken[number >> 3] & 1 << (number & 7))

    def _published(self, row: tuple[Any, ...]) -> Published:
        number, kind, one, two, topic, partition, offset, packed = row
        timestamp, key, value, headers = _unpack(packed)
        place = (topic, partition, offset)
        self._ids[place] = number
        found = Published(Kind(kind), self._partition, (one, two), *place, timestamp, key, value, headers)
        self.last[place] = found
        return found


class EmptyShelf:
    """Nothing was published, or nothing is to be compared."""

    def look(self, kind: Kind, identity: tuple[str, str]) -> list[Published]:
        return []

    def take(self, published: Published) -> None:
        raise AssertionError("nothing is here")

    def left(self) -> Iterator[Published]:
        return iter(())

    def marks(self) -> list[tuple[int, int]]:
        return []

    def crowded_from(self, offset: int) -> int | None:
        return None
