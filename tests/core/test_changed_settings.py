"""Settings that change while no worker runs: what was open is ended by nobody in silence, whatever they are now."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from processor.core.checkpoints import checkpoint_of, gone_checkpoint
from processor.core.effects import Checkpoint, Effect, LogRecord, Publish, Status
from processor.core.offset_metadata import OffsetMetadata
from processor.core.partition import PartitionState
from processor.core.rules import Rules
from processor.core.run_steps.fast_path import Paths
from tests.core.responses_strategies import response_logs
from tests.core.scripted_log import START_S, Play, published, snapshot, step, text
from tests.core.strategies import RULES, lives, logs
from tests.core.test_restart import Topics, outcomes, portrait
from tests.examples import examples

SHORTER = msgspec.structs.replace(RULES, max_age_s=10, grace_s=0, ended_retention_s=5, ended_retention_records=4)
NARROWER = msgspec.structs.replace(RULES, max_step_bytes=300, max_open_steps=1, max_record_bytes=400)
LONGER = msgspec.structs.replace(RULES, max_age_s=500, grace_s=60, ended_retention_s=200, ended_retention_records=90)
ANY = (RULES, SHORTER, NARROWER, LONGER)
PATIENT, HASTY = Rules(max_age_s=3_600), Rules(max_age_s=10)
ADDED = {
    "type": "response.output_item.added",
    "output_index": 0,
    "sequence_number": 1,
    "item": {"id": "m", "type": "message", "status": "in_progress", "content": []},
}
DELTA = {
    "type": "response.output_text.delta",
    "output_index": 0,
    "content_index": 0,
    "item_id": "m",
    "sequence_number": 2,
    "delta": "a",
}


def hung(rules: Rules) -> Play:
    """A step that names no `expires_at`, and another ten minutes later."""
    play = Play(rules)
    for name in ("hung", "other"):
        play.put(text({"event": "thread.run.step.created", "data": step(id=name, expires_at=None)}))
        play.wait(600)
    return play


def restored(play: Play, rules: Rules, silent_rules: Rules | None) -> PartitionState:
    """The state of the next owner, where nothing was checkpointed."""
    position = play.state.next_offset
    restore_from, stream_time, _ = play.state.restore_point_at(position)
    assert restore_from < position
    state = PartitionState(
        play.state.topic, play.state.partition, rules, next_offset=restore_from, live_from=position,
        stream_time=stream_time, paths=Paths.BOTH, silent_rules=silent_rules,
    )  # fmt: skip
    assert state.apply(play.log) == []
    state.moved_to(position)
    return state


def test_a_step_that_was_open_is_open_under_shorter_settings_and_is_published_when_it_ends() -> None:
    play = hung(PATIENT)
    assert [entry.key for entry in restored(play, HASTY, HASTY).open_entries()] != ["hung", "other"], "it was lost so"
    state = restored(play, HASTY, PATIENT)
    assert state.rules == HASTY
    assert [entry.key for entry in state.open_entries()] == ["hung", "other"]
    keys = {effect.key for effect in state.rebuilt() if isinstance(effect, Checkpoint)}
    assert keys == {b"shung", b"sother"}, "no later owner's silent fold begins in front of the change"
    assert state.restore_point() == (state.next_offset, state.stream_time)
    play.state = state
    found = play.wait(3_600)
    ended = [effect for effect in found if isinstance(effect, Publish)]
    assert [(effect.step_id, effect.status) for effect in ended] == [
        ("hung", Status.EXPIRED),
        ("other", Status.EXPIRED),
    ]


@pytest.mark.parametrize("expires_at", [2_000, None])
@pytest.mark.parametrize(("before_s", "now_s"), [(60, 3_600), (3_600, 60)])
def test_a_step_expires_when_its_service_said_whatever_grace_there_was_before(
    before_s: int, now_s: int, expires_at: int | None
) -> None:
    """Its deadline has the grace of before in it, which is not that of now."""
    play = Play(Rules(grace_s=before_s, max_age_s=1_000))
    play.created(expires_at=expires_at)
    play.state = restored(play, Rules(grace_s=now_s, max_age_s=1_000), play.state.rules)
    found = snapshot(published(play.wait(10_000)))
    if expires_at is not None:
        assert found["expired_at"] == expires_at
    else:
        assert START_S <= found["expired_at"] <= START_S + 1_000 + before_s


def test_a_deadline_that_shorter_settings_put_into_the_past_fires_on_an_idle_partition() -> None:
    """Its worker would ask for a clock mark that is not the next deadline, and end, and do so again."""
    play = hung(PATIENT)
    play.state = restored(play, HASTY, PATIENT)
    for name in ("hung", "other"):
        play.say("step.in_progress", step(id=name))
    due = play.state.next_due_ms()
    assert due == play.state.stream_time
    ended = [effect for effect in play.state.advance(due) if isinstance(effect, Publish)]
    assert [(effect.step_id, snapshot(effect)["expired_at"]) for effect in ended] == [
        ("hung", START_S + 10),
        ("other", START_S + 610),
    ]


def test_the_deadlines_of_a_response_are_those_of_now_and_each_clock_mark_ends_an_item() -> None:
    """A mark that no published record carries moves time where no replay knows of it."""
    play = Play(HASTY)
    play.put(text(ADDED))
    play.state = restored(play, PATIENT, HASTY)
    assert play.state.next_due_ms() == (START_S + PATIENT.max_age_s + PATIENT.grace_s) * 1_000
    play = Play(PATIENT)
    play.put(text(ADDED))
    play.wait(1_000)
    play.state = restored(play, HASTY, PATIENT)
    play.put(text(DELTA))
    due = play.state.next_due_ms()
    assert due == play.state.stream_time
    assert snapshot(published(outcomes(play.state.advance(due))))["expired_at"] == START_S + HASTY.max_age_s


def test_settings_that_change_no_fold_change_nothing_over() -> None:
    play = hung(PATIENT)
    told = msgspec.structs.replace(PATIENT, object_type="step", cloudevents_source="here")
    state = restored(play, told, told.with_folding(PATIENT.folding()))
    assert state.rebuilt() == []
    assert state.restore_point()[0] == 0


def test_the_metadata_of_an_offset_has_room_for_the_rules_and_gives_them_back() -> None:
    odd = msgspec.structs.replace(NARROWER, schema_frames=True)
    point = OffsetMetadata(1 << 40, 1 << 41, "run-steps.0123456789ab", 2, "k" * 22, "i" * 22, 99, 99, 2, 1 << 40)
    point = msgspec.structs.replace(point, rules=odd.folding())
    assert len(point.encode()) < 400
    read = OffsetMetadata.decode(point.encode())
    assert read == point
    assert RULES.with_folding(read.rules) == odd
    assert RULES.with_folding(()) == RULES, "of an earlier version"
    assert RULES.with_folding((7,)) == msgspec.structs.replace(RULES, grace_s=7), "of one with fewer rules"
    assert RULES.with_folding((*odd.folding(), 1, 2)) == odd, "of one with more"


class Changing(Topics):
    """The topics with the metadata's rules."""

    def __init__(self, start: int) -> None:
        super().__init__(start)
        self.rules: tuple[int, ...] = RULES.folding()

    def restored(self, rules: Rules, paths: Paths = Paths.FAST) -> PartitionState:
        offset, restore_from, stream_time = self.committed
        silent_rules = rules.with_folding(self.rules)
        state = PartitionState(
            "t", 3, rules, next_offset=restore_from, live_from=offset, stream_time=stream_time, paths=paths,
            silent_rules=silent_rules,
        )  # fmt: skip
        state.load(self.checkpoints.items())
        return state


def changed(state: PartitionState, rules: Rules) -> PartitionState:
    """The state of an owner with other settings that has all of it from checkpoints."""
    retention = state._transitions.retention
    entries = (*state.steps.values(), *state.runs.values())
    held = [checkpoint_of(entry, state.next_offset, "") for entry in entries]
    held += [gone_checkpoint(key, last, "") for key, last in retention._gone.items()]
    at = state.next_offset
    found = PartitionState("t", 3, rules, next_offset=at, live_from=at, stream_time=state.stream_time)
    found.load([(one.key, one.value or b"") for one in held])
    return found


def in_one_life(
    records: Sequence[LogRecord], changes: Sequence[tuple[int, Rules | int]], start: int
) -> tuple[list[Effect], PartitionState]:
    """One state for all; `changes`: at which position which settings came, or which clock mark was set."""
    state = PartitionState("t", 3, RULES, next_offset=start, live_from=start)
    effects: list[Effect] = []
    rest = list(records)
    for position, change in changes:
        effects += state.apply([record for record in rest if record.offset < position])
        state.moved_to(position)
        rest = [record for record in rest if record.offset >= position]
        if isinstance(change, int):
            effects += state.advance(change)
        elif change != state.rules:
            state = changed(state, change)
    return [*effects, *state.apply(rest)], state


@settings(
    max_examples=examples(300), deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
@given(st.one_of(logs(), lives(), response_logs()), st.data())
def test_settings_change_at_the_committed_offset_wherever_owners_crash(
    records: list[LogRecord], data: st.DataObject
) -> None:
    start = records[0].offset if records else 0
    paths = data.draw(st.sampled_from([Paths.FAST, Paths.FAST, Paths.BOTH]))
    topics, changes, marks = Changing(start), list[tuple[int, Rules | int]](), list[tuple[int, Rules | int]]()
    rules, pending, done, has_committed = RULES, list[Effect](), 0, False
    state = topics.restored(rules, paths)
    while done < len(records):
        was_live = state.is_live
        size = data.draw(st.integers(1, 12))
        found = state.apply([record for record in records if record.offset >= state.next_offset][:size])
        at = sum(record.offset < state.next_offset for record in records)
        pending += found if was_live else [*state.rebuilt(), *found] if state.is_live else []
        what = data.draw(st.sampled_from(["go on", "commit", "commit", "crash", "checkpoint", "mark"]))
        if what == "checkpoint" and state.is_live:
            pending += state.checkpoint(data.draw(st.integers(0, state.next_offset + 1)))
        if what == "mark" and state.is_live and (due := state.next_due_ms()) is not None:
            fired = state.advance(due)
            assert outcomes(fired), "or no replay knew that time has moved"
            marks.append((state.next_offset, due))
            pending += fired
        if what == "crash":
            rules = data.draw(st.sampled_from(ANY))
            state, pending, marks, has_committed = topics.restored(rules, paths), [], [], False
        elif state.is_live and (what == "commit" or at == len(records)):
            if not has_committed:
                changes.append((state.live_from, rules))
            topics.commit(state, pending)
            changes += marks
            topics.rules, pending, marks, done, has_committed = rules.folding(), [], [], at, True
    expected, lived = in_one_life(records, changes, start)
    assert topics.outcomes == outcomes(expected)
    last = topics.restored(rules)
    last.apply([record for record in records if record.offset >= last.next_offset])
    last.moved_to(topics.committed[0])
    assert portrait(last) == portrait(lived)


@pytest.mark.parametrize("rules", ANY[1:])
def test_what_a_change_checkpoints_is_what_the_next_owner_needs(rules: Rules) -> None:
    """Ended steps, runs, refused and gone ones included."""
    play = Play(RULES)
    for number in range(8):
        play.created(id=f"s{number}", run_id=f"r{number % 3}")
        if number % 2:
            play.say("step.completed", step("completed", id=f"s{number}", run_id=f"r{number % 3}"))
    play.put(
        text({"event": "thread.run.completed", "data": {"id": "r0", "object": "thread.run", "status": "completed"}})
    )
    position = play.state.next_offset
    restore_from, stream_time, _ = play.state.restore_point_at(position)
    state = PartitionState(
        "source", 3, rules, next_offset=restore_from, live_from=position, stream_time=stream_time, silent_rules=RULES
    )
    state.apply(play.log)
    state.moved_to(position)
    checkpoints = (effect for effect in state.rebuilt() if isinstance(effect, Checkpoint))
    written = [(one.key, one.value) for one in checkpoints if one.value is not None]
    later = PartitionState("source", 3, rules, next_offset=position, live_from=position, stream_time=state.stream_time)
    later.load(written)
    assert portrait(later) == portrait(state)


def test_what_a_forgotten_step_has_left_on_the_topic_is_forgotten_when_nobody_can_need_it() -> None:
    play = Play(msgspec.structs.replace(RULES, ended_retention_records=5))
    play.created(id="twice")
    play.say("step.completed", step("completed", id="twice"))
    play.say("step.completed", step("completed", id="twice"))  # irregular: its tail alone looks like a step
    for number in range(8):
        play.created(id=f"open{number % 2}")
    assert play.state.gone_steps == 1
    position = play.state.next_offset
    state = PartitionState("source", 3, SHORTER, next_offset=0, live_from=position, silent_rules=play.state.rules)
    state.apply(play.log)
    state.moved_to(position)
    assert state.gone_steps == 1
    *_, needless = state.restore_point_at(position)
    assert [(one.key, one.value) for one in needless] == [(b"stwice", None)]
