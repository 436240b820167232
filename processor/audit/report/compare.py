"""Compare two folds of one log: the steps of this replay with those of an earlier report.

It is the check before a change of the fold: every difference is either meant or a mistake. First the source records of
the offsets that both have read are compared by the digests of their blocks: two folds can be compared only over one
log. Then the steps, by partition, step id, revision and first offset, with their contents by digest.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import duckdb
import msgspec

from processor.audit.judge.block_digests import BLOCK_OFFSETS
from processor.audit.judge.range_result import RangeResult
from processor.audit.report import folder, manifest
from processor.audit.report.manifest import ReportError
from processor.audit.report.tables import table_of
from processor.errors import UsageError

EXAMPLES: Final = 20
_COLUMNS: Final = ("last_offset", "events", "status", "inferred", "anomalies", "digest")


class Example(msgspec.Struct, frozen=True):
    """A step that is not the same in both: `changed`, `new` (here alone) or `gone` (there alone)."""

    what: str
    partition: int
    step_id: str
    revision: int
    offset: int
    columns: tuple[str, ...]


class Block(msgspec.Struct, frozen=True):
    """Offsets [first, last] of the source whose records are not the same in both."""

    partition: int
    first: int
    last: int
    records_here: int
    records_there: int


class Against(msgspec.Struct, frozen=True):
    """`blocks` differ of the `blocks_compared`; `examples` and `first_blocks` are in the order of partition, offset."""

    report: str
    same: int
    changed: int
    new: int
    gone: int
    examples: tuple[Example, ...]
    blocks_compared: int
    blocks: int
    first_blocks: tuple[Block, ...]

    @property
    def differing(self) -> int:
        """Steps that are not the same."""
        return self.changed + self.new + self.gone


def require_whole(report: Path, program: str) -> None:
    """Raises ReportError: the report's bytes are not those that its manifest names."""
    problems = folder.check(report, program=program).problems
    if problems:
        raise ReportError(f"{report}: {problems[0]}", hint="compare with a report that is whole")


def require_same_kind(report: Path, source: str) -> None:
    """Refuse to compare the digests of a capture's records, or of records without headers, with those of the topic's.

    Args:
        source: of this replay, as `About.source`.

    Raises:
        UsageError: they differ in that.
    """
    theirs, mine = manifest.lossy(manifest.read(report).about.source), manifest.lossy(source)
    if theirs != mine:
        kind = (theirs or mine)[0]
        whose = "was made from" if theirs else "was not made from"
        raise UsageError(
            f"replay: --against: {report}: {whose} {kind}, which hold {manifest.LOSSY[kind]}, and this replay "
            f"{'reads none' if theirs else 'reads such'}: every digest differs",
            hint="compare replays that read the same kind of archive",
        )


def compare_steps(report: Path, work: Path, ranges: Sequence[RangeResult]) -> Against:
    """Compare the links and steps of this replay with those of an older report, over the offsets that both have.

    Args:
        work: folder with the tables of this replay.
        ranges: what this replay has read.

    Raises:
        UsageError: they have no offset in common, or the report is narrowed to some steps.
    """
    theirs = manifest.read(report)
    if theirs.about.narrowed:
        raise UsageError(f"{report}: a report of some steps only", hint="compare with a report of all")
    mine = {one.partition: one for one in ranges}
    both = [
        (one.partition, max(one.begin, own.begin), min(one.end, own.end), *_whole_blocks(one, own))
        for one in theirs.ranges
        if (own := mine.get(one.partition)) is not None
    ]
    both = [span for span in both if span[1] < span[2]]
    if not both:
        raise UsageError(f"{report}: has no offset in common with this range")
    with duckdb.connect() as db:
        db.execute("CREATE TABLE spans (partition INTEGER, low BIGINT, high BIGINT, link_low BIGINT, link_high BIGINT)")
        db.executemany("INSERT INTO spans VALUES (?, ?, ?, ?, ?)", both)
        for name, folder_, its_ranges in (("here", work, ranges), ("there", report, theirs.ranges)):
            for table in ("steps", "links"):
                files = [str(folder_ / file) for one in its_ranges for file in one.files if table_of(file) == table]
                db.read_parquet(files).create_view(f"{name}_{table}_all")
            db.execute(
                f"CREATE VIEW {name} AS SELECT t.* FROM {name}_steps_all t JOIN spans USING (partition) "  # noqa: S608 - names of ours alone
                "WHERE revision IS NOT NULL AND t.first_offset >= low AND t.last_offset < high"
            )
            db.execute(
                f"CREATE VIEW {name}_links AS SELECT t.* FROM {name}_links_all t JOIN spans USING (partition) "  # noqa: S608 - names of ours alone
                "WHERE t.first >= link_low AND t.last < link_high"
            )
        compared, blocks, first_blocks = _compare_links(db)
        differ = [f"h.{column} IS DISTINCT FROM t.{column}" for column in _COLUMNS]
        db.execute(
            "CREATE TABLE pairs AS SELECT "  # noqa: S608 - names of ours alone
            "coalesce(h.partition, t.partition) AS partition, coalesce(h.step_id, t.step_id) AS step_id, "
            "coalesce(h.revision, t.revision) AS revision, coalesce(h.first_offset, t.first_offset) AS began, "
            "CASE WHEN t.step_id IS NULL THEN 'new' WHEN h.step_id IS NULL THEN 'gone' "
            f"WHEN {' OR '.join(differ)} THEN 'changed' ELSE 'same' END AS what, "
            f"[{', '.join(differ)}] AS differs "
            "FROM here h FULL OUTER JOIN there t ON h.partition = t.partition AND h.step_id = t.step_id "
            "AND h.revision = t.revision AND h.first_offset = t.first_offset"
        )
        counts = dict(db.execute("SELECT what, count(*) FROM pairs GROUP BY what").fetchall())
        rows_told = db.execute(
            "SELECT what, partition, step_id, revision, began, differs FROM pairs WHERE what <> 'same' "
            "ORDER BY partition, began, step_id, revision LIMIT ?",
            [EXAMPLES],
        ).fetchall()
    examples = tuple(
        Example(
            what,
            partition,
            step_id,
            revision,
            offset,
            tuple(c for c, differs in zip(_COLUMNS, told, strict=True) if differs) if what == "changed" else (),
        )
        for what, partition, step_id, revision, offset, told in rows_told
    )
    number = {what: int(counts.get(what, 0)) for what in ("same", "changed", "new", "gone")}
    steps = (number["same"], number["changed"], number["new"], number["gone"])
    return Against(str(report), *steps, examples, compared, blocks, first_blocks)


def _whole_blocks(one: RangeResult, other: RangeResult) -> tuple[int, int]:
    """The offsets of the blocks that both ranges cut in the same way, [low, high)."""
    low, high = max(one.begin, other.begin), min(one.end, other.end)
    if one.begin != other.begin:
        low = -(-low // BLOCK_OFFSETS) * BLOCK_OFFSETS
    if one.end != other.end:
        high = high // BLOCK_OFFSETS * BLOCK_OFFSETS
    return low, high


def _compare_links(db: duckdb.DuckDBPyConnection) -> tuple[int, int, tuple[Block, ...]]:
    """Numbers of compared and of differing blocks, and the first differing ones."""
    db.execute(
        "CREATE TABLE blocks AS SELECT coalesce(h.partition, t.partition) AS partition, "
        "coalesce(h.first, t.first) AS first, coalesce(h.last, t.last) AS last, coalesce(h.records, 0) AS here, "
        "coalesce(t.records, 0) AS there, h.digest IS DISTINCT FROM t.digest OR here <> there AS differs "
        "FROM here_links h FULL OUTER JOIN there_links t ON h.partition = t.partition AND h.first = t.first"
    )
    compared, blocks = db.execute("SELECT count(*), count(*) FILTER (differs) FROM blocks").fetchall()[0]
    rows = db.execute(
        "SELECT partition, first, last, here, there FROM blocks WHERE differs ORDER BY partition, first LIMIT ?",
        [EXAMPLES],
    ).fetchall()
    return compared, blocks, tuple(Block(*row) for row in rows)
