"""Report folder: assembled from the tables of its tasks, and checked against itself."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Sequence
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, Protocol, cast

import msgspec
import pyarrow as pa

from processor.archives import LIMITS, ArchiveError
from processor.archives.parquet import batches, measure, opened, values
from processor.audit.judge.block_digests import BLOCK_OFFSETS, BlockDigests
from processor.audit.judge.range_result import RangeResult
from processor.audit.judge.verdicts import BlockDigest
from processor.audit.report import manifest as manifests
from processor.audit.report.lens import Lens
from processor.audit.report.manifest import NAME, PAGE, About, Manifest, ReportError
from processor.audit.report.page import render
from processor.audit.report.tables import SCHEMAS, FileDigest, digest_of, table_of
from processor.core.effects import Record
from processor.errors import UsageError

PROBLEMS: Final = 100
"""As many problems are told one by one; of the rest, the number."""


def write(
    folder: Path, work: Path, ranges: Sequence[RangeResult], about: About, *, created: str | None = None
) -> Manifest:
    """Make the report folder: tables moved out of `work`, the page drawn, the manifest written last.

    Args:
        folder: must not exist yet, or be empty.
        work: where the tasks left their tables.
        ranges: what the tasks found.
        created: put into the report if given, the only thing that the input does not decide.

    Raises:
        UsageError: `folder` holds something.
        ReportError: a table is not there, or not one of ours.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise UsageError(f"{folder}: not empty", hint="name a new folder for the report")
    files: dict[str, FileDigest] = {}
    for one in ranges:
        for name in one.files:
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                shutil.move(work / name, target)
                files[name] = digest_of(target, _count_rows(target))
            except (OSError, ArchiveError) as error:
                raise ReportError(f"{work / name}: {error}", hint="the replay's work folder was changed") from None
    draft = manifests.compose(about, ranges, files, created=created)
    (folder / PAGE).write_bytes(render(draft, folder))
    files[PAGE] = digest_of(folder / PAGE)
    whole = manifests.compose(about, ranges, files, created=created)
    assert whole.evidence == draft.evidence, "the page shows it and must not change it"
    manifests.write(folder, whole)
    return whole


class Checked(msgspec.Struct, frozen=True):
    """Result of checking a report: its manifest, and its faults, one sentence each.

    `is_page_drawn`: whether the page was drawn anew, and is what the tables give.
    """

    manifest: Manifest
    problems: list[str]
    is_page_drawn: bool = True


def check(folder: Path, *, program: str) -> Checked:
    """Recompute the digests, the numbers and the verdict of a report, and draw its page anew.

    Args:
        program: this program as `About.program` names it. A page that another version has drawn is known by its
            digest alone.

    Raises:
        ReportError: there is no manifest that this program can read.
    """
    manifest = manifests.read(folder)
    problems = list(manifests.check(folder))
    if not problems:  # else the tables are not the ones that were meant, and what they say is nothing
        problems = list(_numbers(folder, manifest))
    is_page_drawn = not problems and manifest.about.program == program
    if is_page_drawn:
        problems = list(_page(folder, manifest))
    more = len(problems) - PROBLEMS
    if more > 0:
        problems = [*problems[:PROBLEMS], f"and {more:,} more"]
    return Checked(manifest, problems, is_page_drawn)


class Located(Record, Protocol):
    """A record that knows its topic and partition, as archives hold them."""

    @property
    def topic(self) -> str: ...
    @property
    def partition(self) -> int: ...


def check_records(folder: Path, manifest: Manifest, items: Iterable[object]) -> Iterator[str]:
    """Compare the source records of a report with records from an archive; yields the differences.

    Args:
        folder, manifest: of a report that is whole (`check`).
        items: of any topics and partitions, each partition in offset order; what is no record (a gap) is passed over,
            and so is a record at an offset that was seen before.
    """
    readings = [_Reading(folder, one) for one in manifest.ranges]
    of_partition: dict[int, list[_Reading]] = {}
    for reading in readings:
        of_partition.setdefault(reading.range.partition, []).append(reading)
    reached: dict[int, int] = {}
    for item in items:
        if not hasattr(item, "timestamp"):
            continue
        record = cast(Located, item)
        if record.topic != manifest.about.topic or record.offset < reached.get(record.partition, 0):
            continue
        reached[record.partition] = record.offset + 1
        for reading in of_partition.get(record.partition, ()):
            if reading.range.begin <= record.offset < reading.range.end:
                reading.take(record)
    for reading in readings:
        yield from reading.finish()


class _Reading:
    """A range that is read again, block by block, and compared with the digests of its report."""

    def __init__(self, folder: Path, one: RangeResult) -> None:
        self.range = one
        self._links = BlockDigests(one.begin, one.end)
        columns = ["first", "last", "records", "digest"]
        self._said = (BlockDigest(**row) for row in _rows(folder, one, "links", columns))
        self._next: BlockDigest | None = None
        self._differing = 0
        self._first = ""

    def take(self, record: Record) -> None:
        for link in self._links.take((record,)):
            self._hold(link)

    def finish(self) -> Iterator[str]:
        """The first block that differs, and how many more do; nothing if none does."""
        for link in self._links.finish():
            self._hold(link)
        while (said := self._following()) is not None:
            self._differs(said, 0, said.records, "")
            self._next = None
        if self._first:
            more = self._differing - 1
            yield self._first + (f"; {more:,} more blocks of this partition differ" if more else "")

    def _hold(self, found: BlockDigest) -> None:
        said = self._following()
        while said is not None and said.first < found.first:
            self._differs(said, 0, said.records, "")
            self._next = None
            said = self._following()
        if said is None or said.first > found.first:
            self._differs(found, found.records, 0, "")
            return
        if said != found:
            self._differs(found, found.records, said.records, f"digest {found.digest} (the report says {said.digest})")
        self._next = None

    def _following(self) -> BlockDigest | None:
        if self._next is None:
            self._next = next(self._said, None)
        return self._next

    def _differs(self, at: BlockDigest, found: int, said: int, digests: str) -> None:
        self._differing += 1
        if not self._first:
            counts = f"the archive holds {found} records (the report says {said})"
            self._first = f"partition {self.range.partition}, offsets {at.first} to {at.last}: " + (
                counts if found != said else f"not the records of the report: {digests}"
            )


def _page(folder: Path, manifest: Manifest) -> Iterator[str]:
    try:
        if render(manifest, folder) != (folder / PAGE).read_bytes():
            yield f"{PAGE}: is not what the tables give"
    except ReportError as error:
        yield error.message


def _numbers(folder: Path, manifest: Manifest) -> Iterator[str]:
    """Contradictions between manifest and tables."""
    ranges = manifest.ranges
    if manifest.counts != manifests.total_counts(ranges):
        yield f"{NAME}: counts: not the sum of the ranges"
    if manifest.coverage != manifests.total_coverage(ranges):
        yield f"{NAME}: coverage: not the sum of the ranges"
    verdict = manifests.outcome(manifest.about, ranges)
    if manifest.verdict is not verdict:
        yield f"{NAME}: verdict: is {verdict.value} (says {manifest.verdict.value})"
    if PAGE not in manifest.files:
        yield f"{PAGE}: missing: the manifest does not name it"
    named = [name for one in ranges for name in one.files]
    if sorted(named) != sorted(name for name in manifest.files if name != PAGE):
        yield f"{NAME}: files: not those that the ranges name"
        return
    for one in ranges:
        yield from _range_numbers(folder, manifest, one)
    yield from _split_numbers(folder, manifest)
    for before, one in pairwise(ranges):
        if before.partition == one.partition and before.end != one.begin:
            yield f"partition {one.partition}: a range ends at {before.end}, the next begins at {one.begin}"


def _split_numbers(folder: Path, manifest: Manifest) -> Iterator[str]:
    """Whether no more steps stand on several partitions. The tables lack those whose outcome is switched off."""
    if len({one.partition for one in manifest.ranges}) < 2:
        return
    try:
        with Lens(folder, [name for name in manifest.files if name != PAGE]) as lens:
            found = lens.one(
                "SELECT count(*) FROM (SELECT step_id FROM steps GROUP BY step_id HAVING count(DISTINCT partition) > 1)"
            )
    except ReportError as error:
        yield error.message
        return
    if found > manifest.about.split.steps:
        yield f"{NAME}: split: {found} steps stand on more than one partition (says {manifest.about.split.steps})"


def _range_numbers(folder: Path, manifest: Manifest, one: RangeResult) -> Iterator[str]:
    where = f"partition {one.partition}, offsets {one.begin} to {one.end}"
    counts: dict[str, dict[str, int]] = {}
    coverage: dict[str, int] = {}
    reached = one.begin
    try:
        for name in one.files:
            if manifest.files[name].rows != _count_rows(folder / name):
                yield f"{name}: has not the number of rows that the manifest says"
            with opened(folder / name, LIMITS) as file:
                _require_columns(name, file.schema_arrow)
        for row in _rows(folder, one, "findings", ["kind", "verdict"]):
            own = counts.setdefault(row["kind"], {})
            own[row["verdict"]] = own.get(row["verdict"], 0) + 1
        for row in _rows(folder, one, "coverage", ["partition", "first", "last", "kind"]):
            if (row["partition"], row["first"]) != (one.partition, reached) or row["last"] < row["first"]:
                yield f"{where}: coverage: offset {reached} is not accounted for, or twice"
                return
            coverage[row["kind"]] = coverage.get(row["kind"], 0) + row["last"] - row["first"] + 1
            reached = row["last"] + 1
        yield from _link_numbers(folder, one)
    except (OSError, ArchiveError, ValueError, TypeError, AttributeError) as error:
        yield f"{where}: tables: {str(error).splitlines()[0]:.200}"
        return
    if reached != one.end:
        yield f"{where}: coverage: ends at {reached}"
    if coverage != {kind: n for kind, n in one.coverage.items() if n}:
        yield f"{where}: coverage: the table says otherwise than the manifest"
    if one.records != coverage.get("data", 0):
        yield f"{where}: {one.records} records were folded, {coverage.get('data', 0)} offsets hold one"
    if counts != {kind: kept for kind, own in one.counts.items() if (kept := {v: n for v, n in own.items() if n})}:
        yield f"{where}: verdicts: the table of findings says otherwise than the manifest"


def _link_numbers(folder: Path, one: RangeResult) -> Iterator[str]:
    where = f"partition {one.partition}, offsets {one.begin} to {one.end}"
    chain, records, reached = sha256(), 0, one.begin
    for row in _rows(folder, one, "links", ["partition", "first", "last", "records", "digest"]):
        block = row["first"] // BLOCK_OFFSETS
        ends = max(block * BLOCK_OFFSETS, one.begin), min((block + 1) * BLOCK_OFFSETS, one.end) - 1
        if (row["partition"], row["first"], row["last"]) != (one.partition, *ends) or row["first"] < reached:
            yield f"{where}: links: offsets {row['first']} to {row['last']} are no block of this range, or stand twice"
            return
        chain.update(row["digest"].encode())
        records += row["records"]
        reached = row["last"] + 1
    if records != one.records:
        yield f"{where}: links: of {records} records, {one.records} were folded"
    if chain.hexdigest() != one.chain:
        yield f"{where}: links: their chain is {chain.hexdigest()} (the manifest says {one.chain:.80})"


def _rows(folder: Path, one: RangeResult, table: str, columns: list[str]) -> Iterator[dict[str, Any]]:
    for name in one.files:
        if table_of(name) == table:
            for _, _, batch in batches(folder / name, LIMITS, lambda _: columns):
                for row in zip(*(values(batch.column(column)) for column in columns), strict=True):
                    yield dict(zip(columns, row, strict=True))


def _require_columns(name: str, schema: pa.Schema) -> None:
    """Check every table's columns first: another library fails on names that are not text."""
    table = table_of(name)
    if table not in SCHEMAS or not schema.equals(SCHEMAS[table]):
        raise ValueError(f"{name}: not the columns of {table}")


def _count_rows(path: Path) -> int:
    """The rows of a table, once it is known to unpack to no more than an archive may."""
    groups, _ = measure(path, LIMITS)
    return sum(rows for rows, _ in groups)
