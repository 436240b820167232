"""A report as a folder: put together from the spills of its tasks, and checked against itself."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, Protocol, cast

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from processor.core.audit import framed
from processor.core.effects import Record
from processor.errors import UsageError
from processor.report import manifest as manifests
from processor.report.manifest import NAME, PAGE, About, Manifest, Range, ReportError
from processor.report.page import render
from processor.report.tables import SCHEMAS, FileDigest, digest_of, table_of

PROBLEMS: Final = 100
"""As many problems are told one by one; of the rest, the number."""


def write(folder: Path, work: Path, results: Iterable[object], about: About, *, created: str | None = None) -> Manifest:
    """Make the report folder: tables moved out of `work`, the page drawn, the manifest written last.

    Args:
        folder: must not exist yet, or be empty.
        work: where the tasks left their tables.
        results: what the tasks gave back: anything with the fields of `Range`.
        created: put into the report if given, the only thing that the input does not decide.

    Raises:
        UsageError: `folder` holds something.
        ReportError: a table is not there, or not one of ours.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise UsageError(f"{folder}: not empty", hint="name a new folder for the report")
    ranges = [msgspec.convert(result, Range, from_attributes=True) for result in results]
    files: dict[str, FileDigest] = {}
    for one in ranges:
        for name in one.files:
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                shutil.move(work / name, target)
                files[name] = digest_of(target, pq.read_metadata(target).num_rows)
            except (OSError, pa.ArrowException) as error:
                raise ReportError(f"{work / name}: {error}", hint="the replay's work folder was changed") from None
    draft = manifests.compose(about, ranges, files, created=created)
    (folder / PAGE).write_bytes(render(draft, folder))
    files[PAGE] = digest_of(folder / PAGE)
    whole = manifests.compose(about, ranges, files, created=created)
    assert whole.evidence == draft.evidence, "the page shows it and must not change it"
    manifests.write(folder, whole)
    return whole


class Checked(msgspec.Struct, frozen=True):
    """A report held against itself: its manifest, and all that is wrong, one sentence each."""

    manifest: Manifest
    problems: list[str]


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
    if not problems and manifest.about.program == program:
        problems = list(_page(folder, manifest))
    more = len(problems) - PROBLEMS
    if more > 0:
        problems = [*problems[:PROBLEMS], f"and {more:,} more"]
    return Checked(manifest, problems)


class Located(Record, Protocol):
    """A record that knows its topic and partition, as archives hold them."""

    @property
    def topic(self) -> str: ...
    @property
    def partition(self) -> int: ...


def check_chains(manifest: Manifest, items: Iterable[object]) -> Iterator[str]:
    """Hold the digests of the source records against records that somebody kept; yields what is wrong.

    Args:
        items: of any topics and partitions, each partition in offset order; what is no record (a gap) is passed over,
            and so is a record at an offset that was seen before.
    """
    ranges: dict[int, list[Range]] = {}
    for one in manifest.ranges:
        ranges.setdefault(one.partition, []).append(one)
    chains = {(one.partition, one.begin): sha256() for one in manifest.ranges}
    records = dict.fromkeys(chains, 0)
    reached: dict[int, int] = {}
    for item in items:
        if not hasattr(item, "timestamp"):
            continue
        record = cast(Located, item)
        if record.topic != manifest.about.topic or record.offset < reached.get(record.partition, 0):
            continue
        reached[record.partition] = record.offset + 1
        for one in ranges.get(record.partition, ()):
            if one.begin <= record.offset < one.end:
                chains[one.partition, one.begin].update(framed(record))
                records[one.partition, one.begin] += 1
    for one in manifest.ranges:
        found, said = records[one.partition, one.begin], one.records
        where = f"partition {one.partition}, offsets {one.begin} to {one.end}"
        if found != said:
            yield f"{where}: the archive holds {found} records (the manifest says {said})"
        elif chains[one.partition, one.begin].hexdigest() != one.chain:
            chain = chains[one.partition, one.begin].hexdigest()
            yield f"{where}: chain digest: is {chain} (the manifest says {one.chain:.80})"


def _page(folder: Path, manifest: Manifest) -> Iterator[str]:
    try:
        if render(manifest, folder) != (folder / PAGE).read_bytes():
            yield f"{PAGE}: is not what the tables give"
    except ReportError as error:
        yield error.message


def _numbers(folder: Path, manifest: Manifest) -> Iterator[str]:
    """What does not add up between manifest and tables."""
    ranges = manifest.ranges
    if manifest.counts != manifests.total_counts(ranges):
        yield f"{NAME}: counts: not the sum of the ranges"
    if manifest.coverage != manifests.total_coverage(ranges):
        yield f"{NAME}: coverage: not the sum of the ranges"
    verdict = manifests.outcome(manifest.about, ranges)
    if manifest.verdict is not verdict:
        yield f"{NAME}: verdict: is {verdict.value} (says {manifest.verdict.value})"
    named = [name for one in ranges for name in one.files]
    if sorted(named) != sorted(name for name in manifest.files if name != PAGE):
        yield f"{NAME}: files: not those that the ranges name"
        return
    for one in ranges:
        yield from _range_numbers(folder, manifest, one)
    for before, one in pairwise(ranges):
        if before.partition == one.partition and before.end != one.begin:
            yield f"partition {one.partition}: a range ends at {before.end}, the next begins at {one.begin}"


def _range_numbers(folder: Path, manifest: Manifest, one: Range) -> Iterator[str]:
    where = f"partition {one.partition}, offsets {one.begin} to {one.end}"
    counts: dict[str, dict[str, int]] = {}
    coverage: dict[str, int] = {}
    reached = one.begin
    try:
        for name in one.files:
            if manifest.files[name].rows != pq.read_metadata(folder / name).num_rows:
                yield f"{name}: has not the number of rows that the manifest says"
        for row in _rows(folder, one, "findings", ["kind", "verdict"]):
            own = counts.setdefault(row["kind"], {})
            own[row["verdict"]] = own.get(row["verdict"], 0) + 1
        for row in _rows(folder, one, "coverage", ["partition", "first", "last", "kind"]):
            if (row["partition"], row["first"]) != (one.partition, reached) or row["last"] < row["first"]:
                yield f"{where}: coverage: offset {reached} is not accounted for, or twice"
                return
            coverage[row["kind"]] = coverage.get(row["kind"], 0) + row["last"] - row["first"] + 1
            reached = row["last"] + 1
    except (OSError, pa.ArrowException, ValueError) as error:
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


def _rows(folder: Path, one: Range, table: str, columns: list[str]) -> Iterator[dict[str, Any]]:
    for name in one.files:
        if table_of(name) == table:
            with pq.ParquetFile(folder / name) as file:
                if not file.schema_arrow.equals(SCHEMAS[table]):
                    raise ValueError(f"{name}: not the columns of {table}")
                for batch in file.iter_batches(columns=columns):
                    yield from batch.to_pylist()
