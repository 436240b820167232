"""Findings for the page: grouped by verdict and cause, with what each extra record is a copy of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

import msgspec
import pyarrow as pa

from processor.audit.judge.verdicts import FindingKind
from processor.audit.report.lens import Lens

FINDINGS: Final = 10_000
"""On the page; all are in the table."""
GROUPS: Final = 50
IN_FULL: Final = 20
"""Findings of a group that are shown with differences and events, up to this number of all groups:"""
ALL_IN_FULL: Final = 200
EVENTS: Final = 40

_OF_STEPS: Final = pa.schema([("partition", pa.int32()), ("step_id", pa.string())])
_OF_LETTERS: Final = pa.schema([("partition", pa.int32()), ("at", pa.int64())])


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
    """A row of `findings` that is not `equal`, with the events of its step (the first `EVENTS` of `events_total`).

    `same_...` say where the equal record of the same step and revision is, or of the same dead letter, if it is an
    extra one. Events are there if it is to be shown `in_full`.
    """

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
    cause: str
    same_topic: str | None
    same_partition: int | None
    same_offset: int | None
    events: list[Event] = []
    events_total: int = 0
    in_full: bool = True


class Group(msgspec.Struct, frozen=True):
    """Findings of one verdict, kind and cause; `total` of them are in the table, `found` on the page.

    Of findings in groups behind the first `GROUPS` verdict, kind and cause are "".
    """

    verdict: str
    kind: str
    cause: str
    total: int
    found: list[Found]


_CAUSED: Final = r"""
    CREATE OR REPLACE TEMP VIEW caused AS
    SELECT *, left(CASE
        WHEN verdict = 'out_of_order' THEN ''
        WHEN why <> '' THEN regexp_replace(why, '[0-9]+', 'N', 'g')
        ELSE array_to_string(list_slice(list_sort(list_distinct(list_transform(differences,
            lambda d: regexp_replace(d.path, '\[[0-9]+\]', '[]', 'g')))), 1, 5), ', ')
        END, 300) AS cause
    FROM disagreeing
"""
"""The cause of a finding: its reason without the numbers in it, else the fields that differ."""


def findings_of(lens: Lens) -> list[Found]:
    """List the findings: disagreements first, each partition by the offsets that caused them, so the first one leads.

    Records without evidence (partition -1) belong to no log and come last.
    """
    lens.rows(_CAUSED)
    total = lens.one("SELECT count(*) FROM disagreeing")
    if not total:
        return []
    # Of the equal records, nearly all there are, those alone that an extra one is a copy of: memory must not grow.
    rows = lens.rows(
        """
        WITH copies AS (
            SELECT DISTINCT kind, partition, identity_1, identity_2 FROM disagreeing
            WHERE verdict IN ('extra', 'duplicate') AND identity_1 <> ''
        ),
        same AS (
            SELECT kind, partition, identity_1, identity_2, min(struct_pack(t := topic, p := topic_partition,
                o := topic_offset)) AS place
            FROM findings SEMI JOIN copies USING (kind, partition, identity_1, identity_2)
            WHERE verdict = 'equal' AND topic IS NOT NULL GROUP BY ALL
        )
        SELECT caused.*, place.t AS same_topic, place.p AS same_partition, place.o AS same_offset
        FROM caused LEFT JOIN same ON caused.verdict IN ('extra', 'duplicate') AND caused.identity_1 <> ''
            AND caused.kind = same.kind AND caused.partition = same.partition
            AND caused.identity_1 = same.identity_1 AND caused.identity_2 = same.identity_2
        ORDER BY undecided, caused.partition < 0, caused.partition, cause_offset, first_offset, caused.kind,
            caused.identity_1, caused.identity_2, topic, topic_partition, topic_offset, verdict
        LIMIT $limit
        """,
        {"limit": FINDINGS},
    )
    in_full = _in_full(rows, total)
    events = _events(lens, [row for row, full in zip(rows, in_full, strict=True) if full])
    found = []
    for row, full in zip(rows, in_full, strict=True):
        own = events.get(_which(row), []) if full else []
        total = own[0]["total"] if own else 0
        try:
            found.append(msgspec.convert({**row, "events": own, "events_total": total, "in_full": full}, Found))
        except msgspec.ValidationError as error:  # a list of differences may hold nulls, as others wrote it
            raise lens.unusable(error) from None
    return found


def _in_full(rows: Sequence[dict[str, Any]], total: int) -> list[bool]:
    """Which of the findings are shown with all there is: the first of each group, then others while there is room."""
    counts: Counter[tuple[str, str, str]] = Counter()
    chosen = []
    for row in rows:
        key = (row["verdict"], row["kind"], row["cause"])
        full = total <= ALL_IN_FULL or (counts[key] < IN_FULL and counts.total() < ALL_IN_FULL)
        counts[key] += full
        chosen.append(full)
    for at, full in enumerate(chosen):
        if not full and counts.total() < ALL_IN_FULL:
            counts["", "", ""] += 1
            chosen[at] = True
    return chosen


def grouped(lens: Lens, findings: Sequence[Found]) -> list[Group]:
    """The findings by verdict, kind and cause: disagreements first, then the largest groups."""
    rows = lens.rows(
        "SELECT undecided, verdict, kind, cause, count(*) AS n FROM caused GROUP BY ALL "
        "ORDER BY undecided, n DESC, verdict, kind, cause"
    )
    groups = {(row["verdict"], row["kind"], row["cause"]): row["n"] for row in rows[:GROUPS]}
    rest = sum(row["n"] for row in rows[GROUPS:])
    if rest:
        groups["", "", ""] = rest
    members: dict[tuple[str, str, str], list[Found]] = {key: [] for key in groups}
    for one in findings:
        key = (one.verdict, one.kind, one.cause)
        members[key if key in members else ("", "", "")].append(one)
    return [Group(*key, total, members[key]) for key, total in groups.items()]


def _which(row: dict[str, Any]) -> tuple[int, str | int]:
    """Key of a finding's events: a step's id, or the offset of the dead-lettered record."""
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
