"""A partition: time, ids, evidence, and that nothing but the log decides."""

from __future__ import annotations

import builtins
import os
import random
import time
import uuid
from hashlib import sha256
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processor.core.effects import FOLD_VERSION, Checkpoint, DeadLetter, Effect, LogRecord, Publish, Reason, Status
from processor.core.partition import PartitionState
from processor.core.rules import Rules
from tests.core.scripted_log import RULES, Play, call, calls, headers, published, refused, run, snapshot, step, text
from tests.core.strategies import RULES as LOG_RULES
from tests.core.strategies import lives, logs
from tests.core.test_restart import portrait, uninterrupted

# --- L7, T1-T3: time


def test_l7_a_step_expires_once_stream_time_reaches_its_deadline_and_grace() -> None:
    play = Play()
    play.created(expires_at=1_010)
    assert play.state.next_due_ms() == 1_015_000
    assert play.put(None, at=1_014.999) == []
    effect = published(play.put(None, at=1_015))
    assert (effect.status, effect.inferred, effect.revision, effect.anomalies) == (Status.EXPIRED, "deadline", 0, ())
    assert snapshot(effect)["expired_at"] == 1_010
    assert headers(effect)["inferred"] == "deadline"
    assert headers(effect)["last-offset"] == "2"
    assert effect.timestamp == 1_015_000


def test_l7_steps_due_at_once_end_by_due_time_and_then_by_id() -> None:
    play = Play()
    for step_id, expires_at in (("b", 1_010), ("a10", 1_020), ("c", 1_005), ("a9", 1_020)):
        play.created(step_id=step_id, expires_at=expires_at)
    assert [e.step_id for e in play.put(None, at=9_000) if isinstance(e, Publish)] == ["c", "b", "a10", "a9"]


def test_l7_the_deadline_moves_with_what_later_objects_say() -> None:
    play = Play()
    play.created(expires_at=1_010)
    play.say("step.in_progress", step(expires_at=1_100))
    assert play.put(None, at=1_050) == []
    play.say("step.in_progress", step(expires_at=1_060))
    play.say("step.in_progress", step(expires_at=None))
    play.say("step.in_progress", step())
    assert play.state.next_due_ms() == 1_065_000
    assert snapshot(published(play.put(None, at=1_065)))["expired_at"] == 1_060


@pytest.mark.parametrize("expires_at", [None, "1010", 1_010.0, True, 0, -5, (1 << 40) + 1, 995, 994])
def test_l7a_without_a_usable_deadline_the_age_counts(expires_at: Any) -> None:
    """995 and its grace are past when they come: an old recording, played now."""
    play = Play(at=1_000.9)
    play.created(expires_at=expires_at)
    assert play.state.next_due_ms() == (1_000 + 100 + 5) * 1000
    effect = published(play.put(None, at=1_105))
    assert snapshot(effect)["expired_at"] == 1_100
    assert snapshot(effect)["expires_at"] == expires_at, "what came is kept all the same"


@pytest.mark.parametrize(("expires_at", "due_s"), [(996, 1_001), (1 << 40, (1 << 40) + 5), (1_000, 1_005)])
def test_l7a_the_bounds_of_what_is_usable(expires_at: int, due_s: int) -> None:
    play = Play()
    play.created(expires_at=expires_at)
    assert play.state.next_due_ms() == due_s * 1000


def test_l7a_a_usable_deadline_stays_when_an_unusable_one_follows() -> None:
    play = Play()
    play.created(expires_at=1_010)
    play.say("step.in_progress", step(expires_at="x"))
    assert play.state.next_due_ms() == 1_015_000


def test_l7a_the_age_counts_from_before_any_record_had_a_time() -> None:
    """The shortest age of all ends in second 0 then, which must not be taken for no deadline."""
    play = Play(Rules(grace_s=0, max_age_s=1), at=-0.001)
    play.created()
    assert published(play.put(None, at=1)).inferred == "deadline"


def test_l7a_so_do_the_ages_of_an_output_item_and_of_a_response_without_one() -> None:
    play = Play(Rules(grace_s=0, max_age_s=1), at=-0.001)
    play.put(text({"type": "response.created", "sequence_number": 0, "response": {"id": "key"}}))
    play.wait(2)
    assert play.state.open_steps == 0
    play = Play(Rules(grace_s=0, max_age_s=1), at=-0.001)
    item = {"id": "m", "type": "message", "status": "in_progress", "content": []}
    play.put(text({"type": "response.output_item.added", "output_index": 0, "sequence_number": 1, "item": item}))
    assert published(play.put(None, at=1)).inferred == "deadline"


def test_l7a_a_step_that_only_deltas_know_has_an_age_too() -> None:
    play = Play()
    play.say("step.delta", calls(call(0, "a")))
    play.say("step.delta", calls(call(0, "b")), at=1_050)
    assert published(play.put(None, at=1_105)).anomalies == ("joined_midstream",)


def test_t1_stream_time_never_goes_back_and_garbage_moves_it() -> None:
    play = Play()
    play.created(expires_at=1_010)
    play.put(b"{", at=1_012)
    play.put(None, at=900)
    assert play.state.stream_time == 1_012_000
    play.say("step.delta", calls(call(0, "a"), step_id="s2"), at=900)
    assert play.state.steps["s2"].due_s == 1_012 + 100 + 5


def test_t2_time_moves_before_the_record_is_applied() -> None:
    play = Play()
    play.created(expires_at=1_010)
    expired, completed = play.say("step.completed", step("completed"), at=1_015)
    assert isinstance(expired, Publish)
    assert isinstance(completed, Publish)
    assert (expired.status, expired.revision) == (Status.EXPIRED, 0)
    assert (completed.status, completed.revision, completed.inferred) == (Status.COMPLETED, 1, None)


def test_t3_a_clock_mark_moves_time_to_the_due_deadline_and_no_further() -> None:
    play = Play()
    play.created(expires_at=1_010)
    play.created(step_id="s2", expires_at=1_020)
    play.state.moved_to(7)
    effect, *checkpoints = play.state.advance(1_015_000)
    assert isinstance(effect, Publish)
    assert (effect.step_id, effect.timestamp, effect.inferred) == ("s1", 1_015_000, "deadline")
    assert headers(effect)["clock-mark"] == "1015000@7"
    assert headers(effect)["last-offset"] == "0"
    assert {c.key for c in checkpoints if isinstance(c, Checkpoint)} == {b"ss1", b"ss2"}
    assert play.state.restore_point() == (7, 1_015_000), "what the log cannot give back is checkpointed at once"
    assert play.state.next_due_ms() == 1_025_000


@pytest.mark.parametrize("mark_ms", [1_014_999, 1_015_001, 0, 1_025_000])
def test_t3_a_mark_that_is_not_the_next_deadline_is_refused(mark_ms: int) -> None:
    play = Play()
    play.created(expires_at=1_010)
    play.created(step_id="s2", expires_at=1_020)
    with pytest.raises(ValueError, match="no step is due"):
        play.state.advance(mark_ms)
    assert play.state.open_steps == 2


def test_t3_without_open_steps_there_is_no_mark() -> None:
    play = Play()
    assert play.state.next_due_ms() is None
    with pytest.raises(ValueError, match="no step is due"):
        play.state.advance(5)


# --- L8-L10: before and after


def test_l8_what_is_unknown_at_the_end_is_null() -> None:
    play = Play()
    play.say("step.delta", calls(call(0, "a")))
    effect = published(play.put(text({"event": "thread.run.step.completed", "data": {"id": "s1"}})))
    found = snapshot(effect)
    assert (found["run_id"], found["thread_id"], found["assistant_id"]) == (None, None, None)
    assert effect.anomalies == ("joined_midstream",)


def test_l9_late_output_is_an_amendment() -> None:
    mcp = {"type": "mcp", "id": "c", "name": "n", "server_label": "l", "arguments": "{}", "output": None}
    play = Play()
    play.created(type="tool_calls")
    first = play.completed(step_details={"type": "tool_calls", "tool_calls": [mcp]})
    second = published(play.say("step.delta", calls(mcp | {"index": 0, "output": "long", "arguments": None})))
    assert (first.revision, second.revision, second.anomalies) == (0, 1, ())
    assert snapshot(second)["step_details"]["tool_calls"] == [mcp | {"output": "long"}]


@pytest.mark.parametrize(
    ("seconds", "records", "remembered"), [(20, 1, True), (20.001, 1, False), (0, 1_000, True), (0, 1_001, False)]
)
def test_l10_both_bounds_of_the_memory_are_inclusive(seconds: float, records: int, remembered: bool) -> None:
    play = Play()
    play.completed()
    play.state.moved_to(play.state.next_offset + records - 1)
    effects = play.say("step.failed", step("failed"), at=play.at + seconds)
    if remembered:
        assert refused(effects) == "illegal_transition"
    else:
        assert published(effects).anomalies == ("joined_midstream",)


def test_l10_every_event_that_names_the_step_renews_its_memory() -> None:
    play = Play()
    play.completed()
    for name, data in (
        ("created", step()),
        ("failed", step("failed")),
        ("delta", calls(call(0, "a"))),
        ("delta", calls(call(-1, "a"))),
        ("completed", step("completed")),
    ):
        play.at += 15
        play.say(f"step.{name}", data)
    assert refused(play.say("step.failed", step("failed"), at=play.at + 20)) == "illegal_transition"


# --- event ids


def test_an_id_already_folded_is_a_duplicate_whatever_the_lifecycle_says_of_it() -> None:
    play = Play()
    events: list[tuple[str, Any, str]] = [
        ("step.created", step(), "e1"),
        ("step.delta", calls(call(0, "a")), "e2"),
        ("step.in_progress", step(), "e3"),
        ("step.completed", step("completed"), "e4"),
        ("step.delta", calls(call(0, "late")), "e5"),
    ]
    for name, data, event_id in events:
        play.say(name, data, event_id=event_id)
    before = portrait(play.state)[2]["s1"][-1]
    for name, data, event_id in events:
        assert play.say(name, data, event_id=event_id) == [], name
    assert play.state.counts["duplicate"] == 5
    assert play.state.counts["repeated"] == 0
    assert portrait(play.state)[2]["s1"][-1] == before


def test_the_same_id_in_another_step_is_another_event() -> None:
    play = Play()
    for step_id in ("s1", "s2"):
        play.say("step.delta", calls(call(0, "a"), step_id=step_id), event_id="e1")
    assert play.state.open_steps == 2
    assert play.state.counts["duplicate"] == 0


def test_what_was_refused_was_not_folded_so_its_id_may_come_again() -> None:
    play = Play()
    play.created(type="tool_calls")
    message = {"id": "s1", "delta": {"step_details": {"type": "message_creation"}}}
    for _ in range(2):
        assert refused(play.say("step.delta", message, event_id="e1")) == "type_changed"
    assert play.say("step.delta", calls(call(0, "a")), event_id="e1") == []
    assert play.state.counts["duplicate"] == 0


def test_without_ids_a_delta_is_never_taken_for_a_repeat() -> None:
    play = Play()
    for _ in range(3):
        play.say("step.delta", calls(call(0, "ha")))
    assert snapshot(play.completed())["step_details"]["tool_calls"][0]["function"]["arguments"] == "hahaha"


# --- evidence


def test_every_header_of_a_published_record() -> None:
    play = Play()
    play.state.moved_to(40)
    trace = [("traceparent", b"00-1-2-01"), ("tracestate", b"x=1"), ("other", b"y")]
    play.put(text({"event": "thread.run.step.in_progress", "data": step()}), headers=trace)
    play.put(b"{")
    play.put(text({"event": "thread.run.step.delta", "data": calls(call(0, "a"))}), headers=[("traceparent", b"late")])
    effect = play.completed(expired_at=5)
    assert headers(effect) == {
        "source-topic": "source",
        "source-partition": "3",
        "first-offset": "40",
        "last-offset": "43",
        "events": "3",
        "revision": "0",
        "fold-version": str(FOLD_VERSION),
        "rules": RULES.digest(),
        "digest": sha256(effect.value).hexdigest(),
        "anomalies": "expired_at_disagrees,joined_midstream",
        "traceparent": "00-1-2-01",
        "tracestate": "x=1",
    }
    assert effect.timestamp == play.log[-1].timestamp


@pytest.mark.parametrize(
    ("given_headers", "kept"),
    [
        ([("traceparent", b"a"), ("traceparent", b"b")], {"traceparent": "b"}),
        ([("traceparent", b"x" * 5_000), ("tracestate", b"s")], {"tracestate": "s"}),
        ([("traceparent", None), ("Tracestate", b"s")], {}),
    ],
)
def test_a_trace_context_is_taken_where_it_is_sane(
    given_headers: list[tuple[str, bytes | None]], kept: dict[str, str]
) -> None:
    play = Play()
    play.put(text({"event": "thread.run.step.created", "data": step()}), headers=given_headers)
    found = headers(play.completed())
    assert {name: value for name, value in found.items() if name.lower().startswith("trace")} == kept


def test_every_header_of_a_dead_letter_and_the_attempts_count_up() -> None:
    play = Play()
    own = [("a", b"1"), ("runstep-attempt", b"2"), ("a", None), ("runstep-reason", b"old"), ("runstep-event-id", b"e")]
    (effect,) = play.put(b"{", headers=own)
    assert isinstance(effect, DeadLetter)
    assert (effect.key, effect.value, effect.offset, effect.timestamp) == (b"key", b"{", 0, 1_000_000)
    assert effect.headers == (
        ("a", b"1"),
        ("a", None),
        ("runstep-event-id", b"e"),
        ("runstep-reason", b"not_json"),
        ("runstep-detail", effect.detail.encode()),
        ("runstep-source-topic", b"source"),
        ("runstep-source-partition", b"3"),
        ("runstep-source-offset", b"0"),
        ("runstep-source-timestamp", b"1000000"),
        ("runstep-attempt", b"3"),
        ("runstep-fold-version", b"%d" % FOLD_VERSION),
    )
    again = play.put(b"{", headers=effect.headers)[0]
    assert headers(again)["attempt"] == "4"


@pytest.mark.parametrize("attempt", [None, b"", b"x", b"-1", b"9999999", "²".encode()])
def test_an_attempt_that_is_no_number_counts_as_none(attempt: bytes | None) -> None:
    (effect,) = Play().put(b"{", headers=[("runstep-attempt", attempt)])
    assert isinstance(effect, DeadLetter)
    assert headers(effect)["attempt"] == "1"


@given(logs())
def test_every_effect_proves_itself(records: list[LogRecord]) -> None:
    by_offset = {record.offset: record for record in records}
    revisions: dict[tuple[str, str | None], int] = {}
    for effect in PartitionState("t", 3, LOG_RULES).apply(records):
        if isinstance(effect, Publish):
            told = headers(effect)
            assert told["digest"] == sha256(effect.value).hexdigest()
            assert int(told["first-offset"] or "") <= int(told["last-offset"] or "")
            assert told.get("inferred") == effect.inferred
            assert (told.get("anomalies") or "") == ",".join(sorted(effect.anomalies))
            life = (effect.step_id, told["first-offset"])
            assert effect.revision == revisions.get(life, -1) + 1, "revisions of one life count up from 0"
            revisions[life] = effect.revision
        elif isinstance(effect, DeadLetter):
            record = by_offset[effect.offset]
            assert (effect.key, effect.value, effect.timestamp) == (record.key, record.value, record.timestamp)
            assert effect.headers[: len(record.headers)] == record.headers
            assert len(effect.detail) <= 220


@given(logs())
def test_folding_its_own_records_again_gives_the_same_bytes(records: list[LogRecord]) -> None:
    """What an auditor does with one record: read from first to last offset, fold, compare."""
    for effect in PartitionState("t", 3, LOG_RULES).apply(records):
        if not isinstance(effect, Publish) or effect.inferred or effect.anomalies or effect.revision:
            continue
        told = headers(effect)
        first, last = int(told["first-offset"] or ""), int(told["last-offset"] or "")
        part = [record for record in records if first <= record.offset <= last]
        again = PartitionState("t", 3, LOG_RULES, next_offset=first, live_from=first).apply(part)
        assert effect.value in {e.value for e in again if isinstance(e, Publish) and e.step_id == effect.step_id}


# --- nothing but the log


@given(st.one_of(logs(), lives()), st.data())
def test_the_bytes_of_all_live_values_are_counted(records: list[LogRecord], data: st.DataObject) -> None:
    live_from = data.draw(st.integers(0, 40))
    state = PartitionState("t", 3, LOG_RULES, live_from=live_from)
    cut = data.draw(st.integers(0, len(records)))
    for part in (records[:cut], records[cut:]):
        state.apply(part)
    assert state.value_bytes == sum(len(r.value or b"") for r in records if r.offset >= live_from)


def test_a_record_is_taken_once_and_in_order() -> None:
    play = Play()
    play.created()
    play.say("step.delta", calls(call(0, "a")))
    assert play.state.apply(play.log) == []
    assert play.state.counts["delta"] == 1


def test_what_lies_below_the_committed_offset_has_no_effects_and_no_counts() -> None:
    play = Play()
    play.created()
    play.put(b"{")
    play.completed()
    play.say("step.failed", step("failed"))
    state = PartitionState("source", 3, RULES, live_from=3)
    assert not state.is_live
    assert [type(effect) for effect in state.apply(play.log)] == [DeadLetter]
    assert state.is_live
    assert {kind: n for kind, n in state.counts.items() if n} == {"failed": 1}


@given(logs(max_size=30), st.integers(0, 3))
def test_neither_clock_nor_dice_nor_surroundings_are_asked(records: list[LogRecord], number: int) -> None:
    def asked(*_: object, **__: object) -> Any:
        raise AssertionError("only the log decides")

    expected: list[Effect] = uninterrupted(records, {number: 1})[0]
    with pytest.MonkeyPatch.context() as patch:
        for name in (
            "time",
            "time_ns",
            "monotonic",
            "monotonic_ns",
            "perf_counter",
            "perf_counter_ns",
            "localtime",
            "gmtime",
        ):
            patch.setattr(time, name, asked)
        for name in ("random", "randrange", "choice", "getrandbits"):
            patch.setattr(random, name, asked)
        patch.setattr(os, "urandom", asked)
        patch.setattr(os, "getenv", asked)
        patch.setattr(os, "environ", None)
        patch.setattr(uuid, "uuid4", asked)
        patch.setattr(builtins, "open", asked)
        patch.setattr(builtins, "print", asked)
        found = uninterrupted(records, {number: 1})[0]
    assert found == expected


def test_only_the_rules_change_what_a_log_means_and_their_digest_tells() -> None:
    assert Rules().digest() == Rules().digest()
    seen = {Rules().digest()}
    for name in Rules.__struct_fields__:
        value = getattr(Rules(), name)
        other: Any = value + 1 if isinstance(value, int) else f"{value}x"
        seen.add(Rules(**{name: other}).digest())
    assert len(seen) == len(Rules.__struct_fields__) + 1


def test_two_lives_in_two_partitions_of_one_step_know_nothing_of_each_other() -> None:
    one, other = Play(), Play()
    one.created()
    one.say("run.failed", run("failed"))
    assert one.effects != []
    assert other.completed().anomalies == ("joined_midstream",)


def test_a_checkpoint_that_is_not_ours_is_named() -> None:
    for key, value, words in ((b"ss1", b"\xc1", "checkpoint"), (b"ss1", b"\x92\x05\xa4step", "version 5")):
        with pytest.raises(ValueError, match=words):
            PartitionState("t", 0, RULES).load([(key, value)])


def test_reasons_and_statuses_are_the_closed_sets_of_the_page() -> None:
    assert {reason.value for reason in Reason} == {
        "not_json", "too_deep", "malformed", "unknown_event", "bad_index", "illegal_transition", "type_changed",
        "step_too_large", "too_many_open_steps", "snapshot_too_large", "internal_error",
    }  # fmt: skip
