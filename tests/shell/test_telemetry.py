"""Happenings, metrics and log lines: what is counted, what is said, and above all what is never said."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiokafka.errors import for_code
from prometheus_client.parser import text_string_to_metric_families

from processor.core.effects import Checkpoint, DeadLetter, Publish, Reason, Status
from processor.errors import BrokerUnavailable, ConfigError
from processor.kafka.errors import OffsetsUnstable
from processor.telemetry import happenings, kafka_happenings, self_audit_happenings
from processor.telemetry.happenings import (
    BreakerTripped,
    ChildEnded,
    CommitFailed,
    DescriptorsFew,
    Happening,
    HttpConnectionRefused,
    Listening,
    LoopTurned,
    PartitionPaused,
    PartitionRestored,
    PartitionResumed,
    PartitionsAssigned,
    PartitionsRevoked,
    PartitionStatus,
    ProgressStalled,
    RecordsRejected,
    RestoreIrregular,
    RestoreProgressed,
    RestoreStalled,
    StateChanged,
    TransactionsRedone,
    UnitBoundLowered,
    UnitCommitted,
    UnitDropped,
    WorkerRestarted,
    WorkerStarted,
    WorkerStopped,
    WriterTakenOver,
)
from processor.telemetry.kafka_happenings import (
    BrokerBack,
    BrokerLost,
    BrokerThrottles,
    KeysChecked,
    OlderThanKept,
    PartitionsNotServed,
    SchemaFrameRead,
    SourceTimes,
    StreamTimeAhead,
    TopicChanged,
    TopicWarned,
)
from processor.telemetry.log import described
from processor.telemetry.meter import merged
from processor.telemetry.metrics import COMMIT_FAILURES, OTHER, RESTARTS, TAKEOVERS, UNITS_DROPPED, Metric
from processor.telemetry.self_audit_happenings import (
    AuditMismatch,
    AuditSkipped,
    AuditStatus,
    AuditUndecided,
    SelfAuditTroubled,
    StepVerified,
)
from processor.telemetry.telemetry import Telemetry

SECRET = "the-users-own-words"


class Clock:
    """Monotonic seconds, moved by hand."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


class Told:
    """A Telemetry with its log and its happenings at hand."""

    def __init__(self, **options: Any) -> None:
        self.stream = io.StringIO()
        self.clock = Clock()
        self.heard: list[Happening] = []
        self.telemetry = Telemetry(
            stream=self.stream, monotonic=self.clock, now=lambda: 42.0, heard=self.heard.append, **options
        )

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.stream.getvalue().splitlines()]

    def value(self, name: str, **labels: str) -> float | None:
        return samples(self.telemetry.exposition()).get((name, frozenset(labels.items())))


def samples(exposition: bytes) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(exposition.decode())
        for sample in family.samples
    }


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def libraries(told: Told) -> Iterator[Told]:
    told.telemetry.hear_libraries()
    yield told
    told.telemetry.close()


def raised(error: BaseException) -> BaseException:
    """The error with a traceback, as a worker meets it."""
    try:
        raise error
    except BaseException as caught:
        return caught


def published(status: Status, *, revision: int = 0, inferred: str | None = None, **more: Any) -> Publish:
    return Publish(
        status=status,
        step_id="step_1",
        value=SECRET.encode(),
        timestamp=1,
        headers=(),
        revision=revision,
        inferred=inferred,
        anomalies=more.get("anomalies", ()),
    )


def set_aside(reason: Reason, offset: int) -> DeadLetter:
    return DeadLetter(
        reason=reason,
        detail="at byte 3",
        key=None,
        value=SECRET.encode(),
        timestamp=1,
        headers=(),
        offset=offset,
    )


# One of each, with hostile contents where there is room for some.
HAPPENINGS: tuple[Happening, ...] = (
    WorkerStarted("events", "group", "exactly_once", "tx-0"),
    StateChanged("live"),
    WorkerRestarted(KeyError(SECRET), 1, 0.5),
    RestoreStalled((1,), 61.0, KeyError(SECRET)),
    ChildEnded("1", -9, True),
    Listening("http://127.0.0.1:1"),
    DescriptorsFew(64, 5),
    HttpConnectionRefused(OSError(24, "Too many open files"), 12, 64),
    PartitionsAssigned((0, 1), 3, 2),
    RestoreProgressed(0, 10, 5, 10),
    RestoreIrregular(0, "shortened", 1, 9, 1),
    RestoreIrregular(1, "metadata_missing", 0, 9, 0, 3),
    PartitionRestored(0, 1, 9, 2, 0.5),
    PartitionRestored(1, 1, 9, 0, 0.0, resumed=True),
    PartitionStatus(0, 5, 4, 1.5, 9, 3, 12.0, 7),
    PartitionPaused(0, "INC-7", is_new=True),
    PartitionResumed(0, "INC-7"),
    UnitCommitted(100, 7, 2, 0.02),
    CommitFailed("fenced", ValueError(SECRET), 100),
    UnitDropped("generation", 10, (0,)),
    RecordsRejected(Reason.NOT_JSON, 2, 0, 17, "at byte 3"),
    BreakerTripped(900, 1000, 400, "in", 3, 100, 499, "not_json"),
    WriterTakenOver(0, "tx-dead", 1.2, True),
    TransactionsRedone(2),
    SourceTimes(0, 12.5, 3.0),
    StreamTimeAhead(0, 4000.0, True),
    StreamTimeAhead(0, 4.0, False),
    KeysChecked(0, 50, 7, 17),
    SchemaFrameRead(0, 17, "a Schema Registry frame (byte 0, schema id 7)"),
    ProgressStalled(0, 17, 61.0),
    BrokerLost("127.0.0.1:9092", 4.0, UnicodeDecodeError("utf-8", SECRET.encode(), 0, 1, "bad")),
    UnitBoundLowered(100, 2000),
    BrokerThrottles("produce", 3, 1.5),
    TopicChanged("out", "written", "retention.ms", "1000", "2000", "nothing"),
    TopicWarned("topic out: keeps records for less time"),
    OlderThanKept(0, "out", 604_800_000, 1),
    PartitionsNotServed((2,), "add one"),
    PartitionsNotServed((), ""),
    BrokerBack("127.0.0.1:9092", 5.0),
    StepVerified(0, 18),
    AuditMismatch("step_1", "0", "different", "", 0, 3, 17, ("out", 1, 5), ("value.status",)),
    AuditUndecided("step_1", "0", "different", "why", 0, 3, 17, ("out", 1, 5), ()),
    AuditSkipped("retention"),
    AuditStatus(0, 3.5),
    SelfAuditTroubled(KeyError(SECRET), 1.0),
    LoopTurned(0.75),
    PartitionsRevoked((0, 1), 3, 0, True),
    WorkerStopped(0, 60.0),
)


def test_the_list_of_happenings_above_is_complete() -> None:
    classes = {
        c
        for module in (happenings, kafka_happenings, self_audit_happenings)
        for c in vars(module).values()
        if isinstance(c, type) and hasattr(c, "__dataclass_fields__") and hasattr(c, "emit")
    }
    assert {type(happening) for happening in HAPPENINGS} == classes


@pytest.mark.parametrize("happening", HAPPENINGS, ids=lambda h: type(h).__name__)
def test_every_happening_is_heard_and_its_lines_are_json_without_payload(happening: Happening) -> None:
    told = Told(level="debug")
    told.telemetry.happened(happening)
    assert told.heard == [happening]
    assert SECRET not in told.stream.getvalue()
    for line in told.lines():
        assert line["event"].isidentifier()
        assert line["level"] in ("debug", "info", "warning", "error", "critical")
        assert line["timestamp"].endswith("Z")


def test_everything_that_happens_leaves_an_exposition_that_parses(told: Told) -> None:
    for happening in HAPPENINGS:
        told.telemetry.happened(happening)
    assert told.value("runstep_worker_state", state="live") == 1
    assert told.value("runstep_worker_state", state="starting") == 0
    assert told.value("runstep_worker_restarts_total", reason="internal_error") == 1
    assert told.value("runstep_commit_failures_total", reason="fenced") == 1
    assert told.value("runstep_records_rejected_total", reason="not_json") == 2
    assert told.value("runstep_records_restored_total", partition="0") == 10
    assert told.value("runstep_commit_seconds_count") == 1
    assert told.value("runstep_restore_seconds_count") == 1  # a resumed partition restored nothing
    assert told.value("runstep_takeovers_total") == 1
    assert told.value("runstep_worker_up") == 0
    assert b"_created" not in told.telemetry.exposition()


def test_bulk_counters_count_by_partition_and_kind(told: Told) -> None:
    told.telemetry.applied(3, records=500, bytes=150_000)
    told.telemetry.applied(3, records=1, bytes=1)
    told.telemetry.counted(
        {"responses/delta": 7, "sequence_gap": 1, "delta": 400, "run_end": 1, "duplicate": 2, "deadline_by_mark": 1}
    )
    assert told.value("runstep_records_applied_total", partition="3") == 501
    assert told.value("runstep_applied_bytes_total", partition="3") == 150_001
    assert told.value("runstep_events_total", kind="delta", dialect="run_steps") == 400
    assert told.value("runstep_events_total", kind="delta", dialect="responses") == 7
    assert told.value("runstep_sequence_gaps_total") == 1
    assert told.value("runstep_events_total", kind="run_end", dialect="run_steps") == 1
    assert told.value("runstep_events_without_effect_total", kind="duplicate") == 2
    assert told.value("runstep_deadlines_fired_total", by="clock_mark") == 1
    assert told.value("runstep_last_progress_timestamp_seconds") == 42.0


def test_acked_effects_are_counted_and_rejections_said_once_per_reason(told: Told) -> None:
    told.telemetry.acked(
        0,
        [
            published(Status.COMPLETED),
            published(Status.COMPLETED, anomalies=("changed_field", "joined_midstream")),
            published(Status.COMPLETED, revision=1),
            published(Status.EXPIRED, inferred="deadline"),
            set_aside(Reason.MALFORMED, 8),
            set_aside(Reason.MALFORMED, 9),
            set_aside(Reason.INTERNAL_ERROR, 10),
            Checkpoint(b"k", b"v"),
        ],
    )
    assert told.value("runstep_steps_published_total", status="completed", inferred="no") == 2
    assert told.value("runstep_steps_published_total", status="expired", inferred="deadline") == 1
    assert told.value("runstep_amendments_total") == 1
    assert told.value("runstep_anomalies_total", kind="joined_midstream") == 1
    assert told.value("runstep_checkpoints_written_total") == 1
    assert told.value("runstep_records_rejected_total", reason="malformed") == 2
    assert told.heard == [
        RecordsRejected(Reason.MALFORMED, 2, 0, 8, "at byte 3"),
        RecordsRejected(Reason.INTERNAL_ERROR, 1, 0, 10, "at byte 3"),
    ]
    assert [line["level"] for line in told.lines()] == ["warning", "error"]
    assert SECRET not in told.stream.getvalue()


def test_closed_sets_are_there_at_zero_and_strangers_become_other(told: Told) -> None:
    assert told.value("runstep_records_rejected_total", reason="too_deep") == 0
    told.telemetry.counted({f"thread.run.step.{SECRET}": 3})
    assert told.value("runstep_events_without_effect_total", kind="other") == 3
    assert SECRET.encode() not in told.telemetry.exposition()


def test_all_that_the_core_counts_has_a_label_of_its_own(told: Told) -> None:
    core = Path(happenings.__file__).parents[1] / "core"
    source = "".join(file.read_text(encoding="utf-8") for file in core.rglob("*.py"))
    counts = set(re.findall(r'"(\w+)"', " ".join(re.findall(r"counts\[(.*?)\] \+=", source))))
    counts |= set(re.findall(r'Ignored\("(\w+)"\)', source))
    anomalies = set(re.findall(r'\.add_anomaly\("(\w+)"\)', source))
    assert len(counts) > 5
    assert len(anomalies) > 3
    told.telemetry.counted(dict.fromkeys(counts, 1))
    told.telemetry.acked(0, [published(Status.COMPLETED, anomalies=tuple(anomalies))])
    assert told.value("runstep_events_total", kind="other", dialect="run_steps") == 0, counts
    for name in ("events_without_effect", "anomalies"):
        assert told.value(f"runstep_{name}_total", kind="other") == 0, (counts, anomalies)


def test_a_metric_refuses_labels_that_are_not_its_own(told: Told) -> None:
    with pytest.raises(TypeError, match="runstep_takeovers_total"):
        told.telemetry.meter.count(TAKEOVERS, 1, partition=0)


def test_a_revoked_partition_takes_its_gauges_along_and_nothing_else(told: Told) -> None:
    happened = told.telemetry.happened
    told.telemetry.applied(1, 10, 10)
    for partition in (1, 11):
        happened(PartitionStatus(partition, 5, 5, 1.0, 9, 3, 12.0, 7))
    happened(PartitionsRevoked((1,), 2, 1, True))
    assert told.value("runstep_lag_records", partition="1", end="last_stable") is None
    assert told.value("runstep_open_steps", partition="1") is None
    assert told.value("runstep_lag_records", partition="11", end="last_stable") == 5
    assert told.value("runstep_records_applied_total", partition="1") == 10
    happened(PartitionStatus(1, lag_high_watermark=8))
    assert told.value("runstep_lag_records", partition="1", end="high_watermark") == 8


def test_two_telemetries_share_nothing() -> None:
    one, other = Told(), Told()
    one.telemetry.applied(0, 5, 5)
    assert other.value("runstep_records_applied_total", partition="0") is None


# --- The log


def test_the_level_filters(told: Told) -> None:
    quiet = Told(level="error")
    for each in (told, quiet):
        each.telemetry.happened(Listening("http://127.0.0.1:1"))
        each.telemetry.happened(ProgressStalled(0, 1, 2.0))
    assert [line["event"] for line in told.lines()] == ["listening", "progress_stalled"]
    assert [line["event"] for line in quiet.lines()] == ["progress_stalled"]


@pytest.mark.parametrize(("option", "where"), [("level", "log.level"), ("format", "log.format")])
def test_an_unknown_setting_is_named(option: str, where: str) -> None:
    with pytest.raises(ConfigError, match=where):
        Told(**{option: "loud"})


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_auto_is_for_people_on_a_terminal_and_json_elsewhere(told: Told) -> None:
    terminal = Terminal()
    for log in (Telemetry(stream=terminal), told.telemetry):
        log.happened(Listening("http://127.0.0.1:1"))
    assert told.lines()[0]["url"] == "http://127.0.0.1:1"
    assert "listening" in terminal.getvalue()
    with pytest.raises(json.JSONDecodeError):
        json.loads(terminal.getvalue())


def test_control_characters_cannot_write_to_the_terminal() -> None:
    terminal = Terminal()
    Telemetry(stream=terminal).log.info("listening", url="x\x1b]0;owned\x07\n\u202e\udc80y")
    assert not {"\x07", "\u202e", "\udc80"} & set(terminal.getvalue())
    assert "\x1b]0;" not in terminal.getvalue()
    assert terminal.getvalue().count("\n") == 1


def test_bytes_objects_and_long_texts_are_not_written_out(told: Told) -> None:
    told.telemetry.log.info(
        "odd", value=SECRET.encode(), thing=set_aside(Reason.NOT_JSON, 1), text="x" * 9_999, many=range(3)
    )
    (line,) = told.lines()
    assert SECRET not in told.stream.getvalue()
    assert line["value"] == "<bytes>"
    assert line["thing"] == "<DeadLetter>"
    assert len(line["text"]) == 500


def test_the_worker_s_name_stands_on_every_line() -> None:
    told = Told(worker="2")
    told.telemetry.happened(Listening("http://127.0.0.1:1"))
    assert told.lines()[0]["worker"] == "2"


def test_a_log_that_cannot_be_written_is_counted_and_stops_nothing() -> None:
    class Full(io.StringIO):
        def write(self, _: str) -> int:
            raise OSError(28, "No space left on device")

    log = Telemetry(stream=Full())
    log.happened(Listening("http://127.0.0.1:1"))
    found = samples(log.exposition())
    assert found["runstep_log_lines_dropped_total", frozenset({("reason", "unwritable")})] == 1


def test_a_character_the_stream_cannot_encode_is_escaped() -> None:
    raw = io.BytesIO()
    log = Telemetry(stream=io.TextIOWrapper(raw, "ascii"), format="console")
    log.happened(Listening("http://schön:1"))
    assert b"sch\\xf6n" in raw.getvalue()


# --- Repeats


def test_a_repeating_warning_is_written_once_in_ten_seconds_and_says_how_many_were_held_back(told: Told) -> None:
    rejected = RecordsRejected(Reason.NOT_JSON, 1, 0, 17, "at byte 3")
    for _ in range(5):
        told.telemetry.happened(rejected)
    told.clock.now += 9.9
    told.telemetry.happened(rejected)
    assert len(told.lines()) == 1
    told.clock.now += 0.1
    told.telemetry.happened(rejected)
    assert [line.get("held_back") for line in told.lines()] == [None, 5]
    assert told.value("runstep_records_rejected_total", reason="not_json") == 7  # counting is never held back
    assert told.value("runstep_log_lines_dropped_total", reason="repeated") == 5


def test_what_was_held_back_is_told_even_if_it_never_comes_again(told: Told) -> None:
    for _ in range(3):
        told.telemetry.happened(UnitDropped("generation", 10, (0,)))
    told.telemetry.tell_held_back()
    assert len(told.lines()) == 1
    told.clock.now += 10
    told.telemetry.tell_held_back()
    told.telemetry.tell_held_back()
    assert [(line["event"], line.get("of"), line.get("held_back")) for line in told.lines()] == [
        ("unit_dropped", None, None),
        ("log_lines_held_back", "unit_dropped generation", 2),
    ]


def test_different_reasons_do_not_hold_each_other_back(told: Told) -> None:
    for reason in (Reason.NOT_JSON, Reason.MALFORMED):
        told.telemetry.happened(RecordsRejected(reason, 1, 0, 17, ""))
    assert [line["reason"] for line in told.lines()] == ["not_json", "malformed"]


def test_infos_and_criticals_are_never_held_back(told: Told) -> None:
    for _ in range(3):
        told.telemetry.happened(Listening("http://127.0.0.1:1"))
        told.telemetry.happened(BreakerTripped(1, 1, 1, "in", 0, 0, 0, "not_json"))
    assert len(told.lines()) == 6


def test_the_kinds_that_are_watched_are_bounded(told: Told) -> None:
    for n in range(1_000):
        told.telemetry.log.warning("unbounded", reason=str(n))
    assert len(told.lines()) < 300


def test_closing_tells_what_was_held_back(told: Told) -> None:
    for _ in range(4):
        told.telemetry.happened(UnitDropped("generation", 10, (0,)))
    told.telemetry.close()
    assert told.lines()[-1]["held_back"] == 3


# --- Exceptions and libraries


def test_our_own_errors_keep_message_and_hint(told: Told) -> None:
    error = BrokerUnavailable("kafka: 127.0.0.1:9092: no answer for 30 s", hint="is it up?")
    told.telemetry.happened(WorkerRestarted(error, 2, 1.0))
    (line,) = told.lines()
    assert line["reason"] == "broker_unavailable"
    assert line["message"] == "kafka: 127.0.0.1:9092: no answer for 30 s"
    assert line["hint"] == "is it up?"


def test_the_operating_system_s_errors_keep_their_message() -> None:
    assert "Connection refused" in str(described(ConnectionRefusedError(111, "Connection refused")))


def test_of_any_other_error_class_and_place_are_told_but_not_its_text() -> None:
    said = described(raised(KeyError(SECRET)))
    assert said["error"] == "KeyError"
    assert "shell/test_telemetry.py" in str(said["at"])
    assert SECRET not in str(said)


def test_of_a_group_the_first_error_and_the_number_are_told() -> None:
    group = ExceptionGroup(SECRET, [OSError(28, "No space left"), KeyError(SECRET)])
    said = described(raised(group))
    assert (said["error"], said["errors"]) == ("OSError", 2)
    assert SECRET not in str(said)


def test_the_client_s_connection_errors_come_through_once_in_ten_seconds(libraries: Told) -> None:
    client = logging.getLogger("aiokafka.conn")
    for port in range(5):
        client.error('Unable connect to "%s:%s": %s', "127.0.0.1", port, OSError(111, "refused"))
    client.info("joined %s", SECRET)
    (line,) = libraries.lines()
    assert (line["event"], line["library"], line["level"]) == ("library_log", "aiokafka.conn", "error")
    assert line["message"].startswith('Unable connect to "127.0.0.1:0"')
    libraries.clock.now += 10
    client.error('Unable connect to "%s:%s": %s', "127.0.0.1", 9, "refused")
    assert libraries.lines()[-1]["held_back"] == 4


@pytest.mark.parametrize(("code", "level"), [(14, "info"), (15, "info"), (16, "info"), (30, "error")])
def test_a_coordinator_that_is_not_there_yet_is_no_error(libraries: Told, code: int, level: str) -> None:
    """The first start of a cluster's first group; what must be seen to (30: not authorized) stays one."""
    log = logging.getLogger("aiokafka.consumer.group_coordinator")
    log.error("Group Coordinator Request failed: %s", for_code(code)())
    (line,) = libraries.lines()
    assert (line["level"], line["event"]) == (level, "library_log")


@pytest.mark.parametrize(
    ("message", "level"),
    [
        ("Heartbeat failed for group %s because it is rebalancing", "info"),
        ("Marking the coordinator dead (node 1)for group %s.", "info"),
        ("Heartbeat failed for group %s because it is unknown", "warning"),
    ],
)
def test_a_rebalance_and_a_coordinator_s_move_are_no_warnings(libraries: Told, message: str, level: str) -> None:
    logging.getLogger("aiokafka.consumer.group_coordinator").warning(message, "a group, of any name")
    (line,) = libraries.lines()
    assert line["level"] == level


def test_a_library_s_traceback_comes_without_payload(libraries: Told) -> None:
    try:
        raise KeyError(SECRET)
    except KeyError:
        logging.getLogger("aiokafka.consumer").exception("Unexpected error in fetcher routine")
    (line,) = libraries.lines()
    assert line["error"] == "KeyError"
    assert SECRET not in libraries.stream.getvalue()


async def test_an_unheard_task_exception_comes_without_payload(libraries: Told) -> None:
    loop = asyncio.get_running_loop()
    loop.default_exception_handler(
        {"message": "Task exception was never retrieved", "exception": KeyError(SECRET), "task": SECRET}
    )
    (line,) = libraries.lines()
    assert (line["library"], line["message"]) == ("asyncio", "Task exception was never retrieved")
    assert SECRET not in libraries.stream.getvalue()


def test_a_library_record_with_wrong_arguments_is_told_all_the_same(libraries: Told) -> None:
    # Straight to our handler: the test runner's own refuses such a record.
    (ours,) = (h for h in logging.getLogger().handlers if type(h).__module__ == "processor.telemetry.log")
    ours.handle(logging.makeLogRecord({"levelno": 30, "msg": "one %s two %s", "args": ("only one",)}))
    assert libraries.lines()[0]["message"] == "one %s two %s"


def test_after_closing_the_libraries_are_left_alone(told: Told) -> None:
    told.telemetry.hear_libraries()
    told.telemetry.hear_libraries()
    told.telemetry.close()
    assert not [h for h in logging.getLogger().handlers if type(h).__module__ == "processor.telemetry.log"]


async def test_the_watch_samples_the_loop_until_it_is_cancelled(told: Told) -> None:
    sampled = asyncio.Event()
    log = Telemetry(stream=told.stream, heard=lambda _: sampled.set())
    task = asyncio.create_task(log.watch(0.001))
    await asyncio.wait_for(sampled.wait(), 60)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    count = samples(log.exposition())["runstep_event_loop_lag_seconds_count", frozenset()]
    assert count >= 1


# --- Several processes as one


def test_merging_keeps_every_series_apart_by_worker_and_every_family_whole() -> None:
    one, other = Told(), Told()
    one.telemetry.applied(0, 5, 50)
    other.telemetry.applied(1, 7, 70)
    whole = merged({"0": one.telemetry.exposition(), "1": other.telemetry.exposition()}, ["2"])
    found = samples(whole)
    assert found["runstep_records_applied_total", frozenset({("partition", "0"), ("worker", "0")})] == 5
    assert found["runstep_records_applied_total", frozenset({("partition", "1"), ("worker", "1")})] == 7
    up = {w: found["runstep_worker_up", frozenset({("worker", w)})] for w in "012"}
    assert up == {"0": 1, "1": 1, "2": 0}
    heads = [line for line in whole.decode().splitlines() if line.startswith("#")]
    assert len(heads) == len(set(heads))
    families = [line.split()[2] for line in heads if line.startswith("# TYPE")]
    assert len(families) == len(set(families))
    assert len(samples(one.telemetry.exposition())) * 2 <= len(found)


def test_merging_nothing_still_says_who_is_missing() -> None:
    assert samples(merged({}, ["0"])) == {("runstep_worker_up", frozenset({("worker", "0")})): 0}


def test_merging_survives_a_stranger_and_an_awkward_name() -> None:
    whole = merged({'a"b\\': b'x 1\n# \n# HELP y z\n# TYPE y gauge\ny{l="{ }"} 2\n\xff'})
    assert samples(whole) == {("y", frozenset({("l", "{ }"), ("worker", 'a"b\\')})): 2}


def test_a_library_is_heard_in_json_lines_to_the_end_of_the_process() -> None:
    program = """
import asyncio, warnings
from processor.telemetry.telemetry import Telemetry

async def main():
    telemetry = Telemetry(format="json")
    telemetry.hear_libraries()
    warnings.warn("old", UserWarning)
    forgotten = asyncio.get_running_loop().create_future()
    forgotten.set_exception(KeyError("the-users-own-words"))
    asyncio.get_running_loop().call_soon(lambda: 1 / 0)
    telemetry.close(keep_hearing=True)
    await asyncio.sleep(0)

asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=True)
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert {line["library"] for line in lines} == {"asyncio", "py.warnings"}
    assert any("never retrieved" in line["message"] for line in lines)
    assert any("Exception in callback" in line["message"] for line in lines)
    assert "the-users-own-words" not in done.stderr


def test_a_restart_is_counted_by_what_its_error_is_a_kind_of_and_never_held_back() -> None:
    """A subclass of BrokerUnavailable was an internal error by its name; and repeats were held back."""
    lines = io.StringIO()
    told = Telemetry(stream=lines, format="json")
    for attempt in range(5):
        told.happened(WorkerRestarted(OffsetsUnstable("pending", partitions=[1]), attempt, 0.1))
    told.close()
    assert b'runstep_worker_restarts_total{reason="broker_unavailable"} 5.0' in told.exposition()
    assert lines.getvalue().count('"event": "worker_restarted"') == 5


def test_a_process_that_has_just_begun_has_not_stood_still_since_1970() -> None:
    told = Telemetry(stream=io.StringIO(), format="json", now=lambda: 42.0)
    told.close()
    assert b"runstep_last_progress_timestamp_seconds 42.0" in told.exposition()


@pytest.mark.parametrize("metric", [COMMIT_FAILURES, UNITS_DROPPED, RESTARTS])
def test_each_documented_reason_has_an_emitter(metric: Metric) -> None:
    """Values that nothing could ever emit were documented, and operators looked for them."""
    source = "".join(path.read_text() for path in Path(happenings.__file__).parents[1].rglob("*.py"))
    declared = source.replace(" ", "")
    for value in metric.labels[0].values:
        if value != OTHER:
            assert declared.count(f'"{value}"') > 1, f"{metric.name}: {value} is declared and nowhere emitted"
