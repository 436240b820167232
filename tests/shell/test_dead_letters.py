"""Dead letters without a broker: what is read of one, what is selected, and how redriven offsets are recorded."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from processor.core.effects import DeadLetter, LogRecord, Reason
from processor.core.headers import ATTEMPT, CLOCK_MARK, EVENT_NUMBER, REASON, REDRIVEN, dead_letter_headers
from processor.core.offset_metadata import LogIdentity
from processor.core.partition import PartitionState
from processor.core.rules import Rules
from processor.core.run_steps.step import Step
from processor.dead_letters.letter import Letter, State, letter_of, own_headers, source_record
from processor.dead_letters.redriven_offsets import MOST_METADATA_BYTES, RedrivenOffsets
from processor.dead_letters.selection import parse_position, parse_selection, time_ms
from processor.errors import CorruptLog, UsageError
from processor.kafka.output_records import (
    OMITTED_BYTES,
    OMITTED_DIGEST,
    OMITTED_HEADERS,
    OMITTED_KEY,
    fitting,
)
from processor.kafka.records import OutRecord
from tests.core.test_restart import mark

LOG = LogIdentity("cluster", "topic-id")
NAMES = st.sampled_from(["theirs", CLOCK_MARK, "runstep-digest", "traceparent", "empty", "\udcff", "source-x"])
HEADERS = st.lists(st.tuples(NAMES, st.none() | st.binary(max_size=8)), max_size=6)


def rejected(record: LogRecord, reason: Reason = Reason.NOT_JSON, number: str = "") -> OutRecord:
    """The dead letter that a worker writes."""
    headers = dead_letter_headers(b"in", b"3", record, reason, "some detail", number)
    return OutRecord("dead", None, record.key, record.value, max(0, record.timestamp), headers)


def read_back(letter: OutRecord, offset: int = 17) -> Letter:
    return letter_of("dead", 1, LogRecord(offset, letter.timestamp, letter.key, letter.value, tuple(letter.headers)))


def state(letter: Letter, max_redrives: int = 3) -> State:
    return letter.state("in", max_redrives, is_redriven=False)


@given(st.none() | st.binary(max_size=9), st.none() | st.binary(max_size=9), HEADERS, st.integers(0, 1 << 50))
def test_a_redriven_record_is_the_one_that_was_rejected(
    key: bytes | None, value: bytes | None, headers: list[tuple[str, bytes | None]], timestamp: int
) -> None:
    """Key, value, timestamp, partition and headers, also after it was rejected and redriven again and again."""
    record = LogRecord(5, timestamp, key, value, tuple(headers))
    for attempt in range(1, 4):
        letter = read_back(rejected(record))
        assert letter.attempt == attempt
        again = source_record(letter)
        assert (again.topic, again.partition, again.key, again.value, again.timestamp) == (
            "in",
            3,
            key,
            value,
            timestamp,
        )
        assert list(again.headers[:-2]) == headers
        assert dict(again.headers[-2:]) == {ATTEMPT: b"%d" % attempt, REDRIVEN: b"dead/1/17"}
        record = LogRecord(50 + attempt, again.timestamp, again.key, again.value, tuple(again.headers))


def test_what_a_redrive_leaves_alone() -> None:
    record = LogRecord(5, 1, b"run", b"x" * 100, (("theirs", b"1"),))
    assert state(read_back(rejected(record))) is State.WAITING
    assert state(read_back(rejected(record, Reason.SNAPSHOT_TOO_LARGE))) is State.REFERENCE
    assert state(read_back(rejected(record, number="2/3"))) is State.PART_OF_A_RECORD
    assert state(read_back(fitting(rejected(record), 150))) is State.INCOMPLETE
    assert letter_of("dead", 0, record).state("in", 3, is_redriven=False) is State.FOREIGN
    assert read_back(rejected(record)).state("other", 3, is_redriven=False) is State.FOREIGN
    assert read_back(rejected(record)).state("in", 3, is_redriven=True) is State.REDRIVEN


@pytest.mark.skipif(hasattr(Step, "__mypyc_attrs__"), reason="a compiled class takes no other methods")
@pytest.mark.parametrize("marked", [True, False])
def test_what_stands_for_a_step_is_no_source_record(marked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A deadline, or a clock mark, at which the fold breaks: there is no record that could be put back."""
    monkeypatch.setattr(Step, "infer", lambda *_, **__: 1 / 0)
    fold = PartitionState("in", 3, Rules())
    step = {"id": "step_1", "object": "thread.run.step", "run_id": "run_1", "status": "in_progress", "expires_at": 10}
    fold.apply([LogRecord(0, 5_000, b"run_1", json.dumps(step).encode(), (("theirs", b"1"),))])
    effects = mark(fold, 1) if marked else fold.apply([LogRecord(1, 10**9, None, None)])
    (letter,) = (effect for effect in effects if isinstance(effect, DeadLetter))
    assert letter.reason is Reason.INTERNAL_ERROR
    assert (CLOCK_MARK in dict(letter.headers)) is marked
    read = letter_of("dead", 1, LogRecord(17, letter.timestamp, letter.key, letter.value, tuple(letter.headers)))
    assert state(read) is State.REFERENCE


def test_a_record_at_which_the_fold_broke_is_put_back() -> None:
    """Also one that says no more than such a reference does."""
    record = LogRecord(5, 1, b"s", b'{"id":"s","run_id":"r"}', (("ce_specversion", b"1.0"), (CLOCK_MARK, b"1")))
    assert state(read_back(rejected(record, Reason.INTERNAL_ERROR))) is State.WAITING
    assert state(read_back(rejected(msgspec.structs.replace(record, headers=()), Reason.MALFORMED))) is State.WAITING


@pytest.mark.parametrize("name", [OMITTED_BYTES, OMITTED_DIGEST, OMITTED_HEADERS, OMITTED_KEY, EVENT_NUMBER])
def test_a_producers_header_makes_no_letter_a_part(name: str) -> None:
    """Of a dead letter that another program has put back with all its headers, and that was rejected again."""
    record = LogRecord(5, 1, b"run", b"x", ((name, b"1"), ("theirs", b"1")))
    letter = read_back(rejected(record))
    assert state(letter) is State.WAITING
    assert (letter.is_whole, letter.event_number) == (True, "")
    assert (
        state(read_back(fitting(rejected(msgspec.structs.replace(record, value=b"x" * 500)), 300))) is State.INCOMPLETE
    )


@pytest.mark.parametrize(("attempt", "expected"), [(0, State.WAITING), (2, State.WAITING), (3, State.PARKED)])
def test_a_record_that_comes_back_each_time_is_parked(attempt: int, expected: State) -> None:
    record = LogRecord(5, 1, None, b"x", ((ATTEMPT, b"%d" % attempt),))
    assert state(read_back(rejected(record))) is expected


def test_headers_that_are_no_numbers_are_not_believed() -> None:
    headers = ((REASON, b"not_json"), ("runstep-source-partition", b"-1"), ("runstep-source-offset", b"9" * 30))
    letter = letter_of("dead", 0, LogRecord(0, 7, None, None, headers))
    assert (letter.source_partition, letter.source_offset, letter.timestamp, letter.attempt) == (-1, -1, 7, 1)
    assert state(letter) is State.FOREIGN


def test_the_producers_own_headers() -> None:
    record = LogRecord(5, 1, None, b"x", ((CLOCK_MARK, b"1"), ("theirs", None)))
    assert own_headers(rejected(record).headers) == [(CLOCK_MARK, b"1"), ("theirs", None)]


# --- redriven offsets ---------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(1, 4), st.booleans()), max_size=60), st.data())
def test_redriven_offsets_come_back_from_the_metadata(steps: list[tuple[int, bool]], data: st.DataObject) -> None:
    """Records with gaps between them, some redriven in one run and some in the next: none forgotten, none added."""
    offsets, at = [], 0
    for gap, _ in steps:
        at += gap
        offsets.append(at - 1)
    done: set[int] = set()
    committed, ranges = 0, RedrivenOffsets()
    for _ in range(2):
        since = committed
        for offset, (_, chosen) in zip(offsets, steps, strict=True):
            if offset < committed:
                continue
            if offset not in ranges and (chosen or data.draw(st.booleans())):
                ranges.add(offset, since)
                done.add(offset)
            since = offset + 1
        committed = ranges.committed_offset(committed)
        ranges.forget_below(committed)
        log, ranges = RedrivenOffsets.decode("here", committed, ranges.encode(committed, LOG))
        assert log == LOG
        assert {offset for offset in offsets if offset < committed or offset in ranges} == done
    if done == set(offsets):
        assert committed == at
        assert not ranges.ranges()


def test_a_position_behind_which_all_is_redriven_is_one_number() -> None:
    ranges = RedrivenOffsets()
    for offset in range(0, 10_000, 3):
        ranges.add(offset, max(0, offset - 2))
    assert ranges.ranges() == [(0, 10_000)]
    assert ranges.committed_offset(0) == 10_000


def test_a_thousand_scattered_letters_can_be_recorded() -> None:
    ranges = RedrivenOffsets()
    for offset in range(0, 20_000, 20):
        ranges.add(offset + offset % 7, offset + offset % 7)
    assert len(ranges.ranges()) == 1000
    assert len(ranges.encode(0, LOG)) < MOST_METADATA_BYTES


@pytest.mark.parametrize("metadata", ["", "{}", '{"r": 5, "v": 2}', json.dumps({"v": 1, "k": "", "i": "", "r": "zz"})])
def test_metadata_of_others_is_refused(metadata: str) -> None:
    with pytest.raises(CorruptLog, match="not that of a redrive"):
        RedrivenOffsets.decode("here", 5, metadata)


# --- selection ----------------------------------------------------------------------------------------------------


def test_a_selection_takes_what_all_of_it_takes() -> None:
    letter = read_back(rejected(LogRecord(5, 1_700_000_000_000, None, b"x")))
    takes = {
        "all": parse_selection((), None, None, (), ()),
        "reason": parse_selection(["not_json", "malformed"], None, None, (), ()),
        "time": parse_selection((), "2023-11-14T22:13:20Z", "2023-11-14T23:13:20+01:00", (), ()),
        "later": parse_selection((), "2023-11-14T22:13:21", None, (), ()),
        "other reason": parse_selection(["malformed"], None, None, (), ()),
        "partition": parse_selection((), None, None, [3], ["1:17"]),
        "other letter": parse_selection((), None, None, [3], ["1:18"]),
    }
    assert [name for name, selection in takes.items() if selection.takes(letter)] == ["all", "reason", "partition"]


@pytest.mark.parametrize("text", ["", "1", "1:", ":1", "a:1", "1:2:3", "-1:0", "1:" + "9" * 40, "\u0661:1"])
def test_what_is_no_position(text: str) -> None:
    with pytest.raises(UsageError):
        parse_position(text)


def test_a_time_before_1970_is_1970() -> None:
    """The client, which `export otlp --since` asks for its offset, takes none before."""
    assert time_ms("0001-01-01", "--since") == 0
    assert time_ms("1970-01-01T00:00:01", "--since") == 1000


def test_what_cannot_be_selected_is_named() -> None:
    with pytest.raises(UsageError, match="no such reason"):
        parse_selection(["nonsense"], None, None, (), ())
    with pytest.raises(UsageError, match="--since: not a time"):
        parse_selection((), "yesterday", None, (), ())
