"""What `explain` reads of the output topics, and what it knows to be unread of them."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from processor.audit import explain as explaining
from processor.audit import output_reading
from processor.audit.explain import Explained, Marks, _OtherSettings, _Topics, explain
from processor.audit.judge.regimes import Accepted
from processor.audit.judge.verdicts import NEVER, Unreadable
from processor.audit.output_reading import OutputReading, Unread
from processor.config.settings import Settings
from processor.core.effects import LogRecord, Record
from processor.kafka.fetch import Hidden
from tests.shell import mutations
from tests.shell.empty_reader import EmptyReader

EXPIRED = Settings().outcome_topics["expired"]


def record(offset: int, *, source_partition: int = 0, cause: int = 7) -> LogRecord:
    headers = {
        "runstep-source-topic": b"run-step-events",
        "runstep-source-partition": b"%d" % source_partition,
        "runstep-first-offset": b"5",
        "runstep-last-offset": b"%d" % cause,
        "runstep-revision": b"0",
    }
    return LogRecord(offset, 0, b"s1", b"{}", tuple(headers.items()))


def read(monkeypatch: pytest.MonkeyPatch, **fields: Any) -> OutputReading:
    """Read the topic of expired steps, two partitions, up to offset 8."""
    for name, value in fields.items():
        monkeypatch.setattr(EmptyReader, name, value)
    monkeypatch.setattr(output_reading, "PartitionReader", EmptyReader)
    reading = OutputReading(lambda: cast(Any, None), "run-step-events", "run-steps.dead-letter")

    async def all_of() -> list[tuple[int, list[Record]]]:
        return [taken async for taken in reading.read(EXPIRED, range, 2)]

    asyncio.run(all_of())
    return reading


WHOLE: dict[int, list[Record]] = {p: [record(offset) for offset in range(8)] for p in range(2)}


def test_of_a_topic_that_is_whole_nothing_is_unread(monkeypatch: pytest.MonkeyPatch) -> None:
    reading = read(monkeypatch, records=WHOLE)
    assert reading.unread(0) == Unread()
    assert not reading.lacks(EXPIRED)
    assert reading.counts == {EXPIRED: 2}


def test_where_retention_took_the_first_records_the_first_cause_of_each_source_partition_is_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    records = {0: WHOLE[0], 1: [record(3, source_partition=1, cause=11), *(record(at, cause=at) for at in range(4, 8))]}
    reading = read(monkeypatch, begins={0: 0, 1: 3}, records=records)
    assert [reading.unread(p).kept_from for p in range(3)] == [
        {(EXPIRED, 1): 4}, {(EXPIRED, 1): 11}, {(EXPIRED, 1): NEVER},
    ]  # fmt: skip
    assert reading.lacks(EXPIRED)
    assert not reading.lacks("run-steps.completed")


def test_what_an_open_transaction_holds_back_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    reading = read(monkeypatch, stable={0: 8, 1: 5}, records={0: WHOLE[0], 1: WHOLE[1][:5]})
    assert reading.unread(0) == Unread(held=((EXPIRED, 1),))
    assert reading.lacks(EXPIRED)


@pytest.mark.parametrize("hidden", [0, 1, 2])
def test_offsets_that_nothing_explains_are_a_hole(monkeypatch: pytest.MonkeyPatch, hidden: int) -> None:
    """Markers and aborted records are none."""
    spans = {1: [Hidden(2, 1 + hidden, "marker")]} if hidden else {}
    reading = read(monkeypatch, records={0: WHOLE[0], 1: [*WHOLE[1][:2], *WHOLE[1][4:]]}, hidden=spans)
    assert reading.unread(0) == (Unread() if hidden == 2 else Unread(holes=((EXPIRED, 1),)))
    assert reading.lacks(EXPIRED) is (hidden != 2)


def test_times_of_the_broker_are_known_from_where_they_begin(monkeypatch: pytest.MonkeyPatch) -> None:
    reading = read(monkeypatch, records=WHOLE, times={1: 6})
    assert reading.unread(0) == Unread(broker_times=((EXPIRED, 1, 6),))
    assert not reading.lacks(EXPIRED)


@pytest.mark.parametrize(
    ("begins", "stable", "records", "complete"),
    [
        ({0: 0, 1: 0}, {0: 8, 1: 8}, WHOLE, True),
        ({0: 0, 1: 3}, {0: 8, 1: 8}, {0: WHOLE[0], 1: WHOLE[1][3:]}, False),
        ({0: 0, 1: 0}, {0: 8, 1: 5}, {0: WHOLE[0], 1: WHOLE[1][:5]}, False),
        ({0: 0, 1: 0}, {0: 8, 1: 8}, {0: WHOLE[0], 1: WHOLE[1][:5]}, False),
    ],
    ids=["whole", "shortened by retention", "held by an open transaction", "compacted"],
)
def test_marks_are_complete_where_the_topic_of_expired_steps_is(
    monkeypatch: pytest.MonkeyPatch,
    begins: dict[int, int],
    stable: dict[int, int],
    records: dict[int, list[Record]],
    complete: bool,
) -> None:
    for name, value in (("begins", begins), ("stable", stable), ("records", records)):
        monkeypatch.setattr(EmptyReader, name, value)
    monkeypatch.setattr(output_reading, "PartitionReader", EmptyReader)
    topics = _Topics(Settings(), lambda: cast(Any, None), _OtherSettings(Accepted(), ()), all_partitions=False)
    assert asyncio.run(topics.marks(0)) == Marks((), complete)


def test_before_a_step_is_called_different_all_partitions_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """What seems to be missing may stand where its key belonged before partitions were added."""
    made: list[bool] = []

    class Topics:
        def __init__(self, *_: object, all_partitions: bool) -> None:
            made.append(all_partitions)
            self.notes = [] if all_partitions else ["one partition alone"]

    async def found(topics: Topics, step_id: str, *_: object) -> Explained:
        stray = Unreadable(mutations.OUTCOMES["completed"], 0, 0, "no place")
        return Explained(step_id, (), () if topics.notes == [] or step_id == "right" else (stray,))

    monkeypatch.setattr(explaining, "_Topics", Topics)
    monkeypatch.setattr(explaining, "explain_from", found)
    assert explain("right", Settings(), lambda: cast(Any, None)).notes == ("one partition alone",)
    assert made == [False]
    assert explain("moved", Settings(), lambda: cast(Any, None)).notes == ()
    assert made == [False, False, True]
