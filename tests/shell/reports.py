"""Reports for the tests: a made-up replay of any size and any verdict, seeded, through the real tables."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

from processor.audit.judge.block_digests import BlockDigests
from processor.audit.judge.range_result import RangeResult
from processor.audit.judge.verdicts import Difference, Finding, FindingKind, Verdict
from processor.audit.report.folder import write
from processor.audit.report.manifest import About, Manifest
from processor.audit.report.tables import Tables
from processor.core.effects import FOLD_VERSION, LogRecord
from processor.core.rules import Rules

PROGRAM = "run-steps 0.0.0-test"
DAY_MS = 1_720_000_000_000
HOSTILE = "<script>alert('x')</script>\"&'</style><img src=x onerror=alert(1)>\u202etxt\x1b[31m\x00{{ 7*7 }}"
OUTCOMES = ("completed", "failed", "cancelled", "expired")


def about(**changed: object) -> About:
    settings: dict[str, object] = {
        "program": PROGRAM,
        "fold_version": FOLD_VERSION,
        "topic": "run-step-events",
        "source": "the topic run-step-events",
        "rules": Rules(),
        "outcome_topics": {name: f"run-steps.{name}" for name in OUTCOMES},
        "dead_letter": "run-steps.dead-letter",
        "output_partitions": {f"run-steps.{name}": 4 for name in OUTCOMES},
    }
    return About(**{**settings, **changed})  # type: ignore[arg-type]


def records_of(partition: int, count: int) -> list[LogRecord]:
    """The source records that the chain digests of `make` are of."""
    return [
        LogRecord(
            at, DAY_MS + at * 100, b"key", None if at % 7 == 0 else b"v%d" % partition, (("h", b"1"), ("n", None))
        )
        for at in range(count)
    ]


def make(
    folder: Path,
    *,
    partitions: int = 2,
    steps: int = 40,
    seed: int = 1,
    wrong: tuple[Verdict, ...] = (),
    hole: int = 0,
    hostile: bool = False,
    created: str | None = None,
    settings: About | None = None,
) -> Manifest:
    """A report of `steps` steps in each partition.

    Args:
        wrong: verdicts to be found, spread over the partitions.
        hole: so many offsets of partition 0 are missing.
        hostile: ids and texts are an attack on whoever shows them.
    """
    with TemporaryDirectory() as work:
        results = [
            _partition(
                Path(work), p, steps, Random(seed * 1_000 + p), wrong[p::partitions], hole if p == 0 else 0, hostile
            )
            for p in range(partitions)
        ]
        return write(folder, Path(work), results, settings or about(), created=created)


def _partition(
    work: Path, partition: int, steps: int, random: Random, wrong: tuple[Verdict, ...], hole: int, hostile: bool
) -> RangeResult:
    tables = Tables(work / "tables", partition)
    counts: dict[str, Counter[str]] = {}
    minutes: Counter[tuple[int, str]] = Counter()
    offset, clock = 0, DAY_MS + partition * 1_234

    def judged(finding: Finding) -> None:
        counts.setdefault(finding.kind.value, Counter())[finding.verdict.value] += 1
        tables.finding(finding)

    for n in range(steps):
        name = f"step_{random.getrandbits(96):024x}" + (HOSTILE if hostile and n % 3 == 0 else "")
        first, opened = offset, clock
        events = random.randrange(3, 60)
        took = int(random.lognormvariate(9, 1.6))
        status = random.choices(OUTCOMES, (80, 9, 6, 5))[0]
        offset += events
        clock += random.randrange(200, 9_000)
        ended = opened + took
        verdict = wrong[n] if n < len(wrong) else Verdict.EQUAL
        anomalies = (
            ("changed_field", "joined_midstream") if n % 11 == 0 else ("fold_divergence",) if n % 17 == 0 else ()
        )
        inferred = "deadline" if status == "expired" else None
        at = (f"run-steps.{status}", random.randrange(4), n) if verdict is not Verdict.MISSING else None
        told: tuple[Difference, ...] = ()
        if verdict is Verdict.DIFFERENT:
            sick = HOSTILE if hostile else "42 °C"
            told = (
                Difference("header runstep-events", str(events), str(events + 1)),
                Difference("value.step_details.tool_calls[0].function.arguments", '{"city":"Zürich"}', sick),
                Difference("value.usage.total_tokens", "1841", "1814"),
            )
        why = "the step began before the range" if verdict is Verdict.UNVERIFIABLE else ""
        judged(Finding(verdict, FindingKind.STEP, partition, (name, "0"), first, offset - 1, at, why, told))
        tables.transition(
            step_id=name, offset=first, timestamp=opened, before=None, after="in_progress", kind="created"
        )
        if n % 5 == 0:
            tables.transition(
                step_id=name, offset=first + 1, timestamp=opened + took // 2, before="in_progress",
                after="in_progress", kind="delta", refused="bad_index",
            )  # fmt: skip
        tables.transition(
            step_id=name, offset=offset - 1, timestamp=ended, before="in_progress", after=status, kind=status
        )
        tables.step(
            step_id=name, run_id=f"run_{n // 4:016x}", thread_id=f"thread_{n // 9:016x}", first_offset=first,
            last_offset=offset - 1, events=events, revision=0, status=status, inferred=inferred, anomalies=anomalies,
            opened_ms=opened, ended_ms=ended, published=at, published_ms=ended if at else None, verdict=verdict.value,
        )  # fmt: skip
        minutes[ended - ended % 60_000, status] += 1
        if n % 9 == 0:
            reason = random.choice(("not_json", "illegal_transition", "malformed", "bad_index"))
            where = ("run-steps.dead-letter", 0, n)
            judged(
                Finding(Verdict.EQUAL, FindingKind.DEAD_LETTER, partition, (str(first), reason), first, first, where)
            )
            minutes[ended - ended % 60_000, ""] += 1
    for n in range(3):
        tables.step(
            step_id=f"step_open_{partition}_{n}", run_id=None, thread_id=None, first_offset=n, last_offset=offset - 1,
            events=4, revision=None, status="in_progress", opened_ms=DAY_MS + n * 1_000,
        )  # fmt: skip
    for (minute, status), n in sorted(minutes.items()):
        tables.timeline(minute, status, n if status else 0, 0 if status else n)
    records, coverage = offset, {"data": offset}
    tables.coverage(0, offset - 1, "data")
    if hole:
        tables.coverage(offset, offset + hole - 1, "missing")
        coverage["missing"] = hole
    tables.coverage(offset + hole, offset + hole, "marker")
    coverage["marker"] = 1
    digests = BlockDigests(0, offset + hole + 1)
    for block in (*digests.take(records_of(partition, records)), *digests.finish()):
        tables.block(block)
    return RangeResult(
        partition=partition,
        begin=0,
        end=offset + hole + 1,
        complete=True,
        records=records,
        chain=digests.range_digest,
        counts={kind: dict(found) for kind, found in counts.items()},
        coverage=coverage,
        published=sum(sum(found.values()) for found in counts.values()),
        out_of_range=0,
        first_ms=DAY_MS,
        last_ms=clock,
        files=tuple(f"tables/{name}" for name in tables.close()),
        open_steps=3,
        stream_time=clock,
    )
