"""Two folds of one log side by side: what would this version publish that a report says otherwise.

The gate before a change of the fold: every difference is either meant or a mistake. Compared are the steps of the
offsets that both have read, by partition, step id, revision and first offset; their contents by digest.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import duckdb
import msgspec

from processor.errors import UsageError
from processor.report import folder, manifest
from processor.report.manifest import Range, ReportError

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


class Against(msgspec.Struct, frozen=True):
    report: str
    same: int
    changed: int
    new: int
    gone: int
    examples: tuple[Example, ...]
    """The first in the order of partition and offset."""

    @property
    def differing(self) -> int:
        return self.changed + self.new + self.gone


def require_whole(report: Path, program: str) -> None:
    """Raises ReportError: the report's bytes are not those that its manifest names."""
    problems = folder.check(report, program=program).problems
    if problems:
        raise ReportError(f"{report}: {problems[0]}", hint="compare with a report that is whole")


def compare_steps(report: Path, work: Path, ranges: Sequence[Range]) -> Against:
    """Args: `work` holds the tables of this replay, `ranges` what it has read.

    Raises:
        UsageError: they have no offset in common, or the report is narrowed to some steps.
    """
    theirs = manifest.read(report)
    if theirs.about.narrowed:
        raise UsageError(f"{report}: a report of some steps only", hint="compare with a report of all")
    mine = {one.partition: one for one in ranges}
    both = [
        (one.partition, max(one.begin, mine[one.partition].begin), min(one.end, mine[one.partition].end))
        for one in theirs.ranges
        if one.partition in mine
    ]
    both = [span for span in both if span[1] < span[2]]
    if not both:
        raise UsageError(f"{report}: has no offset in common with this range")
    with duckdb.connect() as db:
        db.execute("CREATE TABLE spans (partition INTEGER, low BIGINT, high BIGINT)")
        db.executemany("INSERT INTO spans VALUES (?, ?, ?)", both)
        for name, files in (
            ("here", [str(work / file) for one in ranges for file in one.files if "/steps/" in file]),
            ("there", [str(report / file) for one in theirs.ranges for file in one.files if "/steps/" in file]),
        ):
            rows = db.read_parquet(files)
            rows.create_view(f"{name}_all")
            db.execute(
                f"CREATE VIEW {name} AS SELECT t.* FROM {name}_all t JOIN spans USING (partition) "  # noqa: S608 - names of ours alone
                "WHERE revision IS NOT NULL AND t.first_offset >= low AND t.last_offset < high"
            )
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
    return Against(str(report), number["same"], number["changed"], number["new"], number["gone"], examples)
