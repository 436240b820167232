"""Recorder: writes an archive that a crash cannot damage.

Each partition has a folder, `<topic>/<partition>/`, of files named by their first offset. A file grows under a name
that ends in `.part` and is renamed once it is full and flushed to disk: a file without `.part` is complete. Recording
again into the same folder goes on after the last complete file; a `.part` that a crash left behind is overwritten.
Where one file ends and the next begins depends on the records alone, so a recording that was interrupted by a crash is
the same, byte for byte, as one that was not.
"""

from __future__ import annotations

import os
import sys
import zlib
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Final, Protocol

from processor.archives.jsonl import encode_line
from processor.archives.label import LABEL, Label, read_label
from processor.archives.manifest import flush_folder
from processor.archives.reading import read, recorded_files
from processor.archives.records import LIMITS, ArchivedRecord, Gap, Limits, Partition, is_topic, refused
from processor.errors import UsageError

ENCODINGS: Final = (".jsonl.gz", ".jsonl", ".parquet")
FILE_BYTES: Final = 64 << 20
_MINIMUM_NAME: Final = 20
"""Digits of an offset in a name, so that names sort as offsets do; as Kafka names its own segments."""


class _File(Protocol):
    def write(self, item: ArchivedRecord | Gap) -> int:
        """Returns about how many bytes it took before compression."""
        ...

    def close(self) -> None: ...


class _Open:
    """A file that is being written."""

    def __init__(self, raw: BinaryIO, file: _File, part: Path, whole: Path) -> None:
        self.raw, self.file, self.part, self.whole = raw, file, part, whole
        self.bytes = 0


class Recorder:
    """Records items into a folder; use as a context manager.

    Args:
        folder: made if it is not there; must be empty or hold an archive of the same `files`.
        files: the kind of files: `.jsonl.gz`, `.jsonl` or `.parquet` (extra `audit`).
        file_bytes: a file is complete when it holds about this much before compression.
        has_arrivals: the records come from an archive that has times of arrival (`reading.holds_arrivals`), or some do.
        lacks_headers: they come from an archive without headers (`reading.lacks_headers`), or some do.
        limits: what a reader will accept; an item beyond it is refused here, not found unreadable later.

    Partitions may be written in turns, or by several recorders (processes) as long as each partition has one.
    """

    def __init__(
        self,
        folder: Path,
        *,
        files: str = ".jsonl.gz",
        file_bytes: int = FILE_BYTES,
        has_arrivals: bool = False,
        lacks_headers: bool = False,
        limits: Limits = LIMITS,
    ) -> None:
        if files not in ENCODINGS:
            raise UsageError(f"archive {folder}: cannot record {files!r}", hint=f"known are {', '.join(ENCODINGS)}")
        self._folder, self._suffix, self._file_bytes, self._limits = folder, files, file_bytes, limits
        self._open: dict[Partition, _Open] = {}
        self._next: dict[Partition, int | None] = {}
        self._locks: dict[Path, int] = {}
        self._claim(Label(files, has_arrivals, lacks_headers))

    def _claim(self, label: Label) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        if (self._folder / LABEL).exists():
            there = read_label(self._folder)
            if there.suffix != self._suffix:
                raise UsageError(f"archive {self._folder}: holds {there.suffix} files (asked for {self._suffix})")
            if (both := there.of_both(label)) != there:
                self._write_label(both)
            return
        # Another recorder may be making the same label at this moment: same bytes, so either may win.
        if any(p.name != LABEL and not p.name.startswith(f"{LABEL}.") for p in self._folder.iterdir()):
            raise UsageError(f"archive {self._folder}: the folder is in use", hint="choose a new or empty folder")
        self._write_label(label)

    def _write_label(self, label: Label) -> None:
        part = self._folder / f"{LABEL}.{os.getpid()}.part"
        part.write_text(label.encoded())
        part.replace(self._folder / LABEL)

    def next_offset(self, topic: str, partition: int) -> int | None:
        """The first offset that no file holds yet; None if nothing was recorded of the partition.

        Raises:
            UsageError: another recorder has this partition.
            ArchiveError: the last whole file cannot be read.
        """
        key = (topic, partition)
        if key not in self._next:
            home = self._home(topic, partition)
            if home.is_dir():
                self._lock(home)
            files = recorded_files(home)
            self._next[key] = self._after(files[-1][1]) if files else None
        return self._next[key]

    def _after(self, file: Path) -> int | None:
        following = None
        for item in read(file, limits=self._limits):
            following = 1 + (item.last if isinstance(item, Gap) else item.offset)
        return following

    def write(self, item: ArchivedRecord | Gap) -> None:
        """Add an item; the offsets of a partition must rise, also over those recorded earlier.

        Raises:
            UsageError: an offset that is recorded already, or another recorder has this partition.
            ArchiveError: a record beyond what a reader accepts.
        """
        key = (item.topic, item.partition)
        first, last = (item.first, item.last) if isinstance(item, Gap) else (item.offset, item.offset)
        following = self._next.get(key)
        if following is None:
            self._home(*key).mkdir(parents=True, exist_ok=True)
            self._next.pop(key, None)
            following = self.next_offset(*key) or 0
        if not following <= first <= last:
            where = f"{item.topic}-{item.partition}"
            raise UsageError(
                f"archive {self._folder}: {where} is recorded up to offset {following} (got {first})",
                hint="go on from there, or record into a new folder",
            )
        growing = self._open.get(key)
        if growing is None:
            growing = self._open[key] = self._begun(key, first)
        growing.bytes += growing.file.write(item)
        self._next[key] = last + 1
        if growing.bytes >= self._file_bytes:
            self._complete(key)

    def close(self) -> None:
        """Complete the files written so far."""
        try:
            for key in sorted(self._open):
                self._complete(key)
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Leave as a crash would: whole files stay, what still grows is left as `.part`."""
        while self._open:
            self._open.popitem()[1].raw.close()
        while self._locks:
            os.close(self._locks.popitem()[1])

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        if kind is None:
            self.close()
        else:
            self.abandon()

    def _home(self, topic: str, partition: int) -> Path:
        if not is_topic(topic):
            raise refused(self._folder, "", f"not the name of a topic (got {topic!r})")
        if partition < 0:
            raise refused(self._folder, "", f"not a partition (got {partition})")
        return self._folder / topic / str(partition)

    def _lock(self, home: Path) -> None:
        """Lock a partition against other recorders. Without file locks on this system nothing stops them."""
        if sys.platform == "win32" or home in self._locks:
            return
        import fcntl

        handle = os.open(home, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as exc:
            os.close(handle)
            raise UsageError(f"archive {home}: another recording is under way here") from exc
        self._locks[home] = handle

    def _begun(self, key: Partition, first: int) -> _Open:
        home = self._home(*key)
        part, whole = home / "recording.part", home / f"{first:0{_MINIMUM_NAME}d}{self._suffix}"
        raw = part.open("wb")
        try:
            file = self._format(raw, part)
        except BaseException:
            raw.close()
            raise
        return _Open(raw, file, part, whole)

    def _format(self, raw: BinaryIO, path: Path) -> _File:
        if self._suffix == ".parquet":
            from processor.archives.parquet import RecordingFile

            return RecordingFile(raw, path, self._limits)
        return _Lines(raw, path, packed=self._suffix.endswith(".gz"), limits=self._limits)

    def _complete(self, key: Partition) -> None:
        done = self._open.pop(key)
        try:
            done.file.close()
            done.raw.flush()
            os.fsync(done.raw.fileno())
        finally:
            done.raw.close()
        done.part.replace(done.whole)
        flush_folder(done.whole.parent)


class _Lines:
    """A file of JSON lines, packed as one gzip member without name or time: the same lines give the same bytes."""

    def __init__(self, raw: BinaryIO, path: Path, *, packed: bool, limits: Limits) -> None:
        self._raw, self._path, self._limits = raw, path, limits
        self._packer = zlib.compressobj(6, zlib.DEFLATED, 16 + zlib.MAX_WBITS) if packed else None

    def write(self, item: ArchivedRecord | Gap) -> int:
        line = encode_line(item)
        if len(line) > self._limits.line_bytes:
            what = f"a line of {len(line)} bytes at offset {item.first if isinstance(item, Gap) else item.offset}"
            raise refused(self._path, "", f"{what}; a reader takes {self._limits.line_bytes}")
        if isinstance(item, ArchivedRecord) and len(item.headers) > self._limits.headers:
            raise refused(self._path, "", f"{len(item.headers)} headers at offset {item.offset}")
        self._raw.write(line if self._packer is None else self._packer.compress(line))
        return len(line)

    def close(self) -> None:
        if self._packer is not None:
            self._raw.write(self._packer.flush())
