"""Queries for the page. Every answer has a fixed order and a bounded length.

All conditions are fixed texts; values from the tables never become part of a query.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec
import pyarrow as pa

from processor.audit.report.findings import Found, Group, findings_of, grouped
from processor.audit.report.lens import NOW, Lens

STEPS: Final = 10
HOLES: Final = 50
NAMES: Final = 20
OUTCOMES: Final = ("completed", "failed", "cancelled", "expired")

_MINUTE: Final = 60_000
_BARS: Final = 48
"""At most so many bars over time."""
_SPANS: Final = (1, 2, 5, 10, 15, 30, 60, 120, 240, 360, 720, 1_440, 2_880, 7_200, 14_400)
"""Widths of a bar over time, in minutes; beyond them the last is doubled until it fits."""

DURATIONS_MS: Final = (
    100, 300, 1_000, 3_000, 10_000, 30_000, 60_000, 300_000, 900_000, 3_600_000, 14_400_000, 86_400_000,
)  # fmt: skip
"""Upper bounds (not included) of the bars over durations; above the last is a bar of its own."""


class StepRow(msgspec.Struct, frozen=True):
    step_id: str
    run_id: str | None
    partition: int
    first_offset: int
    last_offset: int
    status: str
    events: int
    took_ms: int


_STEP_COLUMNS: Final = ", ".join(StepRow.__struct_fields__)


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
    groups: list[Group]
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


def summarise(lens: Lens, stream_times: Mapping[int, int]) -> Summary:
    """Run all queries of the page.

    Args:
        stream_times: partition -> stream time at the end of its range, in milliseconds: how old the open steps are.
    """
    now = {"partition": list(stream_times), "stream_time": list(stream_times.values())}
    lens.lay("now", pa.table(now, schema=NOW))
    bar_minutes, minutes = _over_time(lens, _BARS)
    holes = lens.rows("SELECT * FROM unaccounted ORDER BY partition, first LIMIT $limit", {"limit": HOLES})
    findings = findings_of(lens)
    return Summary(
        findings=findings,
        groups=grouped(lens, findings),
        findings_total=lens.one("SELECT count(*) FROM disagreeing"),
        holes=msgspec.convert(holes, list[Hole]),
        holes_total=lens.one("SELECT count(*) FROM unaccounted"),
        bar_minutes=bar_minutes,
        minutes=minutes,
        took=_took(lens),
        durations=_durations(lens),
        slowest=_longest(lens, "ended"),
        ended_total=lens.one("SELECT count(*) FROM ended"),
        stuck=_longest(lens, "stuck"),
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


def _longest(lens: Lens, view: str) -> list[StepRow]:
    """The steps of a view that took longest. Columns that are not named are not read."""
    query = f"SELECT {_STEP_COLUMNS} FROM {view} ORDER BY took_ms DESC, partition, first_offset, step_id LIMIT $n"  # noqa: S608
    return msgspec.convert(lens.rows(query, {"n": STEPS}), list[StepRow])


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
        SELECT status, steps, parts[1] AS half, parts[2] AS most, parts[3] AS nearly_all, longest
        FROM (
            SELECT status, count(*) AS steps, max(took_ms) AS longest,
                quantile_disc(took_ms, [0.5, 0.95, 0.99]) AS parts
            FROM ended GROUP BY status
        ) ORDER BY status
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
