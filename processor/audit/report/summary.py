"""What the page says, asked of the tables. Every answer has a fixed order and a bounded length.

The only importer of duckdb. All conditions are fixed texts; what comes from the tables never becomes part of a query.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import duckdb
import msgspec
import pyarrow as pa

from processor.audit.judge.verdicts import FindingKind
from processor.audit.report.manifest import ReportError
from processor.audit.report.tables import SCHEMAS, table_of

FINDINGS: Final = 200
STEPS: Final = 10
EVENTS: Final = 40
HOLES: Final = 50
NAMES: Final = 20
OUTCOMES: Final = ("completed", "failed", "cancelled", "expired")

_MINUTE: Final = 60_000
_SPANS: Final = (1, 2, 5, 10, 15, 30, 60, 120, 240, 360, 720, 1_440, 2_880, 7_200, 14_400)
"""Widths of a bar over time, in minutes; beyond them the last is doubled until it fits."""

DURATIONS_MS: Final = (
    100, 300, 1_000, 3_000, 10_000, 30_000, 60_000, 300_000, 900_000, 3_600_000, 14_400_000, 86_400_000,
)  # fmt: skip
"""Upper bounds (not included) of the bars over durations; above the last is a bar of its own."""

_OF_STEPS: Final = pa.schema([("partition", pa.int32()), ("step_id", pa.string())])
_OF_LETTERS: Final = pa.schema([("partition", pa.int32()), ("at", pa.int64())])
_NOW: Final = pa.schema([("partition", pa.int32()), ("stream_time", pa.int64())])

_VIEWS: Final = (
    # Differences of timestamps that anybody may have written: wide numbers, then cut to what a column holds.
    """
    CREATE VIEW ended AS
    SELECT *, least(greatest(ended_ms::HUGEINT - opened_ms, 0), 1::HUGEINT << 62)::BIGINT AS took_ms
    FROM steps WHERE revision = 0 AND opened_ms IS NOT NULL AND ended_ms IS NOT NULL
    """,
    """
    CREATE VIEW stuck AS
    SELECT steps.*,
        least(greatest(coalesce(stream_time::HUGEINT - opened_ms, 0), 0), 1::HUGEINT << 62)::BIGINT AS took_ms
    FROM steps LEFT JOIN now ON steps.partition = now.partition WHERE status = 'in_progress'
    """,
    """
    CREATE VIEW disagreeing AS
    SELECT *, verdict = 'unverifiable' AS undecided FROM findings WHERE verdict <> 'equal'
    """,
    """
    CREATE VIEW unaccounted AS SELECT * FROM coverage WHERE kind NOT IN ('data', 'marker', 'aborted')
    """,
)


class Event(msgspec.Struct, frozen=True):
    """A row of `transitions`."""

    offset: int
    timestamp: int
    before: str | None
    after: str | None
    kind: str
    refused: str | None


class FoundDifference(msgspec.Struct, frozen=True):
    path: str
    expected: str
    got: str


class Found(msgspec.Struct, frozen=True):
    """A row of `findings` that is not `equal`, with the events of its step (the first `EVENTS` of `events_total`)."""

    verdict: str
    kind: str
    partition: int
    identity_1: str
    identity_2: str
    first_offset: int
    cause_offset: int
    topic: str | None
    topic_partition: int | None
    topic_offset: int | None
    why: str
    differences: list[FoundDifference]
    events: list[Event] = []
    events_total: int = 0


class StepRow(msgspec.Struct, frozen=True):
    step_id: str
    run_id: str | None
    partition: int
    first_offset: int
    last_offset: int
    status: str
    events: int
    took_ms: int


class Minutes(msgspec.Struct, frozen=True):
    """A bar over time: its begin, and the numbers in the order of `OUTCOMES`, then dead letters."""

    begin_ms: int
    numbers: tuple[int, ...]


class Took(msgspec.Struct, frozen=True):
    """Durations of the steps of one status, in milliseconds of record time."""

    status: str
    steps: int
    half: int
    most: int
    nearly_all: int
    longest: int


class Hole(msgspec.Struct, frozen=True):
    partition: int
    first: int
    last: int
    kind: str


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    findings: list[Found]
    findings_total: int
    holes: list[Hole]
    holes_total: int
    bar_minutes: int
    minutes: list[Minutes]
    took: list[Took]
    durations: list[tuple[int, int]]
    slowest: list[StepRow]
    ended_total: int
    stuck: list[StepRow]
    stuck_total: int
    amended: int
    anomalies: list[tuple[str, int]]
    inferred: list[tuple[str, int]]
    reasons: list[tuple[str, int]]


class Lens:
    """The tables of a report folder, open for questions. Use as a context manager.

    Args:
        folder: the report.
        files: names of its files, as the manifest has them.

    Raises:
        ReportError: a table is not what the schema says.
    """

    def __init__(self, folder: Path, files: Sequence[str]) -> None:
        self._folder = folder
        self._spill = TemporaryDirectory(prefix="run-steps-report-")
        self._db = duckdb.connect(
            config={"temp_directory": self._spill.name, "memory_limit": "1GB", "autoinstall_known_extensions": False}
        )
        try:
            for name, schema in SCHEMAS.items():
                paths = [_literal(folder / file) for file in sorted(files) if table_of(file) == name]
                if paths:
                    self._db.read_parquet(paths, hive_partitioning=False).create_view(name)
                else:
                    self.lay(name, schema.empty_table())
            self.lay("now", _NOW.empty_table())
            for view in _VIEWS:
                self._db.execute(view)
        except (duckdb.Error, OSError) as error:
            self.close()
            raise _unusable(folder, error) from None

    def __enter__(self) -> Lens:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._db.close()
        self._spill.cleanup()

    def rows(self, query: str, parameters: dict[str, Any] | None = None) -> list[dict[str, Any]]:
        """Raises ReportError where a table cannot be read."""
        try:
            cursor = self._db.execute(query, parameters or {})
            names = [column[0] for column in cursor.description or ()]
            return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
        except (duckdb.Error, OSError) as error:
            raise self.unusable(error) from None

    def unusable(self, error: Exception) -> ReportError:
        return _unusable(self._folder, error)

    def lay(self, name: str, table: pa.Table) -> None:
        """Put a small table of our own beside the others."""
        self._db.register(name, table)

    def one(self, query: str, parameters: dict[str, Any] | None = None) -> Any:
        """The only value of the only row."""
        return next(iter(self.rows(query, parameters)[0].values()))


def _literal(path: Path) -> str:
    """A path as duckdb takes it: its letters for patterns made plain."""
    return re.sub(r"([\[*?])", r"[\1]", str(path.absolute()))


def _unusable(folder: Path, error: Exception) -> ReportError:
    told = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
    return ReportError(f"{folder}: tables: {told}", hint="the files have been changed, or another version wrote them")


def summarise(lens: Lens, stream_times: Mapping[int, int], *, bars: int = 48) -> Summary:
    """Ask all that the page says.

    Args:
        stream_times: partition -> stream time at the end of its range, in milliseconds: how old the open steps are.
        bars: at most so many bars over time.
    """
    now = {"partition": list(stream_times), "stream_time": list(stream_times.values())}
    lens.lay("now", pa.table(now, schema=_NOW))
    bar_minutes, minutes = _over_time(lens, bars)
    holes = lens.rows("SELECT * FROM unaccounted ORDER BY partition, first LIMIT $limit", {"limit": HOLES})
    return Summary(
        findings=_findings(lens),
        findings_total=lens.one("SELECT count(*) FROM disagreeing"),
        holes=msgspec.convert(holes, list[Hole]),
        holes_total=lens.one("SELECT count(*) FROM unaccounted"),
        bar_minutes=bar_minutes,
        minutes=minutes,
        took=_took(lens),
        durations=_durations(lens),
        slowest=_longest(lens, "SELECT * FROM ended ORDER BY took_ms DESC, partition, first_offset, step_id LIMIT $n"),
        ended_total=lens.one("SELECT count(*) FROM ended"),
        stuck=_longest(lens, "SELECT * FROM stuck ORDER BY took_ms DESC, partition, first_offset, step_id LIMIT $n"),
        stuck_total=lens.one("SELECT count(*) FROM stuck"),
        amended=lens.one("SELECT count(*) FROM steps WHERE revision > 0"),
        anomalies=_pairs(
            lens,
            """
            SELECT name, count(*) AS n
            FROM (SELECT unnest(string_split(anomalies, ',')) AS name FROM steps WHERE anomalies <> '')
            GROUP BY name ORDER BY n DESC, name LIMIT $n
            """,
        ),
        inferred=_pairs(
            lens,
            """
            SELECT inferred AS name, count(*) AS n FROM steps WHERE inferred IS NOT NULL
            GROUP BY name ORDER BY n DESC, name LIMIT $n
            """,
        ),
        reasons=_pairs(
            lens,
            """
            SELECT string_split(identity_2, ' ')[1] AS name, count(*) AS n FROM findings
            WHERE kind = 'dead_letter' AND verdict NOT IN ('extra', 'duplicate')
            GROUP BY name ORDER BY n DESC, name LIMIT $n
            """,
        ),
    )


def _pairs(lens: Lens, query: str) -> list[tuple[str, int]]:
    return [(row["name"], row["n"]) for row in lens.rows(query, {"n": NAMES})]


def _longest(lens: Lens, query: str) -> list[StepRow]:
    return msgspec.convert(lens.rows(query, {"n": STEPS}), list[StepRow])


def _findings(lens: Lens) -> list[Found]:
    """Disagreements first; in each partition by the offset that caused them, so the first divergent one leads.

    Records without evidence (partition -1) belong to no log and stand behind.
    """
    rows = lens.rows(
        """
        SELECT * FROM disagreeing
        ORDER BY undecided, partition < 0, partition, cause_offset, first_offset, kind, identity_1, identity_2, topic,
            topic_partition, topic_offset, verdict
        LIMIT $limit
        """,
        {"limit": FINDINGS},
    )
    events = _events(lens, rows)
    found = []
    for row in rows:
        own = events.get(_which(row), [])
        total = own[0]["total"] if own else 0
        try:
            found.append(msgspec.convert({**row, "events": own, "events_total": total}, Found))
        except msgspec.ValidationError as error:  # a list of differences may hold nulls, whoever wrote it
            raise lens.unusable(error) from None
    return found


def _which(row: dict[str, Any]) -> tuple[int, str | int]:
    """What the events of a finding are found by: a step's id, or the offset of the record that was set aside."""
    return row["partition"], row["identity_1"] if row["kind"] == FindingKind.STEP.value else row["cause_offset"]


def _events(lens: Lens, rows: list[dict[str, Any]]) -> dict[tuple[int, str | int], list[dict[str, Any]]]:
    """The first events of each of these findings, all in one pass over the table."""
    if not rows:
        return {}
    wanted = sorted({_which(row) for row in rows}, key=str)
    steps = [(p, own) for p, own in wanted if isinstance(own, str)]
    letters = [(p, own) for p, own in wanted if isinstance(own, int)]
    lens.lay("of_steps", pa.table([[p for p, _ in steps], [own for _, own in steps]], schema=_OF_STEPS))
    lens.lay("of_letters", pa.table([[p for p, _ in letters], [own for _, own in letters]], schema=_OF_LETTERS))
    told = lens.rows(
        """
        WITH events AS (
            SELECT w.step_id AS step, NULL AS letter, t.* FROM transitions t
                JOIN of_steps w ON t.partition = w.partition AND t.step_id = w.step_id
            UNION ALL
            SELECT NULL, w.at, t.* FROM transitions t
                JOIN of_letters w ON t.partition = w.partition AND t."offset" = w.at
        )
        SELECT * FROM (
            SELECT step, letter, partition, "offset", timestamp, "from" AS before, "to" AS after, kind, refused,
                count(*) OVER own AS total,
                row_number() OVER (own ORDER BY "offset", kind, "from", "to", refused, step_id) AS rank
            FROM events WINDOW own AS (PARTITION BY step, letter, partition)
        ) WHERE rank <= $limit ORDER BY step, letter, partition, rank
        """,
        {"limit": EVENTS},
    )
    events: dict[tuple[int, str | int], list[dict[str, Any]]] = {}
    for row in told:
        own = row["step"] if row["step"] is not None else row["letter"]
        events.setdefault((row["partition"], own), []).append(row)
    return events


def _over_time(lens: Lens, bars: int) -> tuple[int, list[Minutes]]:
    extent = lens.rows("SELECT min(minute) AS low, max(minute) AS high FROM timeline")[0]
    if extent["low"] is None:
        return 1, []
    low, high = extent["low"], extent["high"]
    width = next((w for w in _SPANS if _count(low, high, w) <= bars), _SPANS[-1])
    while _count(low, high, width) > bars:
        width *= 2
    span = width * _MINUTE
    base = low - low % span
    empty = [0] * (len(OUTCOMES) + 1)
    found: dict[int, list[int]] = {}
    rows = lens.rows(
        """
        SELECT ((minute::HUGEINT - $base::HUGEINT) // $span::HUGEINT)::BIGINT AS slot, status,
            sum(count)::BIGINT AS n, sum(rejected)::BIGINT AS rejected
        FROM timeline GROUP BY slot, status
        """,
        {"base": base, "span": span},
    )
    for row in rows:
        numbers = found.setdefault(row["slot"], list(empty))
        if row["status"] in OUTCOMES:
            numbers[OUTCOMES.index(row["status"])] += row["n"]
        numbers[-1] += row["rejected"]
    bars_there = range(_count(low, high, width))
    return width, [Minutes(base + at * span, tuple(found.get(at, empty))) for at in bars_there]


def _count(low: int, high: int, minutes: int) -> int:
    span = minutes * _MINUTE
    return high // span - low // span + 1


def _took(lens: Lens) -> list[Took]:
    rows = lens.rows(
        """
        SELECT status, count(*) AS steps, quantile_disc(took_ms, 0.5) AS half, quantile_disc(took_ms, 0.95) AS most,
            quantile_disc(took_ms, 0.99) AS nearly_all, max(took_ms) AS longest
        FROM ended GROUP BY status ORDER BY status
        """
    )
    return msgspec.convert(rows, list[Took])


def _durations(lens: Lens) -> list[tuple[int, int]]:
    """(upper bound in milliseconds or -1 for none, steps), from the first bar that is not empty to the last."""
    rows = lens.rows(
        """
        SELECT len(list_filter($bounds::BIGINT[], lambda bound: bound <= took_ms)) AS slot, count(*) AS n
        FROM ended GROUP BY slot
        """,
        {"bounds": list(DURATIONS_MS)},
    )
    numbers = {row["slot"]: row["n"] for row in rows}
    if not numbers:
        return []
    bounds = [*DURATIONS_MS, -1]
    return [(bounds[at], numbers.get(at, 0)) for at in range(min(numbers), max(numbers) + 1)]
