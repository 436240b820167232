"""Crash anywhere, same bytes: an owner that dies and one that takes over are as one that lived on."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from processor.core.effects import Checkpoint, DeadLetter, Effect, LogRecord, Publish, Status
from processor.core.ended_groups import Grouping
from processor.core.entry import Entry
from processor.core.merge import plain
from processor.core.partition import PartitionState
from processor.core.responses.response import Response
from processor.core.rules import Rules
from processor.core.run_steps.step import Step
from processor.core.step_state import StepState
from tests.core.responses_strategies import response_logs
from tests.core.scripted_log import step, text
from tests.core.strategies import RULES, lives, logs
from tests.examples import examples

SMALL_GROUPS = Grouping(most_steps=2)


def outcomes(effects: list[Effect]) -> list[Effect]:
    return [effect for effect in effects if isinstance(effect, Publish | DeadLetter)]


def uninterrupted(records: list[LogRecord], marks: dict[int, int], rules: Rules = RULES) -> tuple[list[Effect], Any]:
    """One life, record by record; `marks`: at which record position how many clock marks are set."""
    state = PartitionState("t", 3, rules)
    effects: list[Effect] = []
    for number, record in enumerate(records):
        effects += state.apply([record])
        effects += mark(state, marks.get(number, 0))
    return outcomes(effects), portrait(state)


def mark(state: PartitionState, times: int) -> list[Effect]:
    effects: list[Effect] = []
    for _ in range(times):
        due = state.next_due_ms()
        if due is None or due < state.stream_time:
            break
        effects += state.advance(due)
    return effects


def portrait(state: PartitionState) -> Any:
    """All of a state that can ever show in an outcome."""

    def step_of(step: StepState) -> Any:
        if isinstance(step, Response):
            own, *others = step.summary()
            own = [said for said in own if said is not step.trace]  # no outcome has it: its items have their own
            return own, others, [(i.index, i.packed()[3:], i.stated_digest) for i in step.items.values()]
        assert isinstance(step, Step)
        fields = getattr(Step, "__mypyc_attrs__", None) or (*StepState.__slots__, *Step.__slots__)
        how = ("irregular", "template", "prefix", "compact_form")
        names = [name for name in fields if name not in how and not name.startswith("_")]
        held = {"fields": step.fields, "tree": plain(step.tree), "ids": step.folded_ids()}
        return {name: getattr(step, name) for name in names} | held

    def entry_of(entry: Entry) -> Any:
        return (
            entry.status,
            entry.inferred,
            entry.refused,
            entry.due_s,
            entry.opened_s if entry.status is Status.IN_PROGRESS else (entry.touched_ms, entry.touched_offset),
            entry.run,
            step_of(entry.materialise()) if entry.step or entry.body or entry.ended or entry.group else None,
        )

    return (
        state.stream_time,
        state.open_steps,
        {key: entry_of(entry) for key, entry in state.steps.items()},
        {key: entry_of(entry) for key, entry in state.runs.items()},
        state.open_by_run(),
        state.deadlines(),
    )


class Topics:
    """What a broker keeps of a transaction: outcomes, checkpoints (compacted), and the offset with its metadata."""

    def __init__(self, start: int) -> None:
        self.outcomes: list[Effect] = []
        self.checkpoints: dict[bytes, bytes] = {}
        self.committed = (start, start, -1)  # offset, restore_from, stream time

    def commit(self, state: PartitionState, effects: list[Effect]) -> None:
        position = state.next_offset
        restore_from, stream_time, needless = state.restore_point_at(position)
        assert position >= self.committed[0], "a committed offset never goes back"
        assert restore_from <= position
        for effect in (*effects, *needless):
            if not isinstance(effect, Checkpoint):
                self.outcomes.append(effect)
            elif effect.value is None:
                self.checkpoints.pop(effect.key, None)
            else:
                self.checkpoints[effect.key] = effect.value
        self.committed = (position, restore_from, stream_time)

    def restore(self, rules: Rules) -> PartitionState:
        offset, restore_from, stream_time = self.committed
        state = PartitionState(
            "t", 3, rules, next_offset=restore_from, live_from=offset, stream_time=stream_time, grouping=SMALL_GROUPS
        )
        state.load(self.checkpoints.items())
        for entry in state.steps.values():
            if entry.status is Status.IN_PROGRESS:
                entry.materialise()  # as somebody does who asks for the open steps meanwhile
        return state


@settings(
    max_examples=examples(400), deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
@given(st.one_of(logs(), lives(), response_logs()), st.data())
def test_crash_anywhere_same_bytes(records: list[LogRecord], data: st.DataObject) -> None:
    """Any batching, any commits, any crashes, any checkpoints, clock marks included: the outcomes of one life."""
    marks: dict[int, int] = {}
    topics = Topics(records[0].offset if records else 0)
    state = topics.restore(RULES)
    pending: list[Effect] = []
    pending_marks: dict[int, int] = {}
    done = at = 0  # records committed, records applied
    while done < len(records):
        size = data.draw(st.integers(1, 12))
        batch = [record for record in records if record.offset >= state.next_offset][:size]
        pending += state.apply(batch)
        at = sum(record.offset < state.next_offset for record in records)
        if state.is_live and at and data.draw(st.integers(0, 5)) == 0:
            wanted = data.draw(st.integers(1, 2))
            fired = 0
            for _ in range(wanted):
                effects = mark(state, 1)
                fired += bool(effects)
                pending += effects
            if fired:
                pending_marks[at - 1] = pending_marks.get(at - 1, 0) + fired
        what = data.draw(st.sampled_from(["go on", "commit", "commit", "crash", "checkpoint"]))
        if what == "checkpoint" and state.is_live:
            pending += state.checkpoint(data.draw(st.integers(0, state.next_offset + 1)))
        if what == "crash":
            state, pending, pending_marks = topics.restore(RULES), [], {}
        elif state.is_live and (what == "commit" or at == len(records)):
            topics.commit(state, pending)
            for number, times in pending_marks.items():
                marks[number] = marks.get(number, 0) + times
            pending, pending_marks = [], {}
            done = at
    expected, expected_state = uninterrupted(records, marks)
    assert topics.outcomes == expected
    restored = topics.restore(RULES)
    restored.apply(records[sum(record.offset < restored.next_offset for record in records) :])
    restored.moved_to(topics.committed[0])
    assert portrait(restored) == expected_state


@settings(max_examples=examples(200), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.one_of(logs(), lives(), response_logs()), st.data())
def test_how_the_log_is_cut_into_batches_changes_nothing(records: list[LogRecord], data: st.DataObject) -> None:
    state = PartitionState("t", 3, RULES)
    effects: list[Effect] = []
    rest = records
    while rest:
        size = data.draw(st.integers(1, len(rest)))
        effects += state.apply(rest[:size])
        rest = rest[size:]
    expected, expected_state = uninterrupted(records, {})
    assert outcomes(effects) == expected
    assert portrait(state) == expected_state


_OF_ANOTHER_TYPE: dict[str, Any] = {
    "type": "message_creation",
    "step_details": {"type": "message_creation", "message_creation": {}},
}
_CALLS: dict[str, Any] = {"type": "tool_calls", "step_details": {"type": "tool_calls", "tool_calls": []}}


@pytest.mark.parametrize(
    ("repeated", "ids"),
    [
        (step(step_id="s2", **_CALLS), (None, None)),
        (step(step_id="s2", **_CALLS), (b"a", b"a")),
        (step(step_id="s2", **_OF_ANOTHER_TYPE) | {"run_id": "r9"}, (None, None)),
    ],
    ids=["of-another-type", "of-another-type-with-the-same-id", "of-another-run"],
)
@pytest.mark.parametrize("ends", ["step", "run"])
def test_an_ignored_repeat_is_not_taken_for_the_begin_of_a_life(
    repeated: dict[str, Any], ids: tuple[bytes | None, bytes | None], ends: str
) -> None:
    """A restore that begins right before the repeat reads it first: it must not leave a step open that had ended."""
    created = {"event": "thread.run.step.created"}
    first = created | {"data": step(step_id="s2", **_OF_ANOTHER_TYPE)}
    ended = {"event": "thread.run.step.completed", "data": step("completed", "s2", **_OF_ANOTHER_TYPE)}
    over = {"event": "thread.run.cancelled", "data": {"id": "r1", "object": "thread.run", "status": "cancelled"}}
    told: list[tuple[int, dict[str, Any], bytes | None]] = [
        (1000, first, ids[0]),
        (1000, created | {"data": step(step_id="s1") | {"run_id": "r5"}}, None),
        (1000, created | {"data": repeated}, ids[1]),
        (1000, ended if ends == "step" else over, None),
        (1030, {"event": "thread.run.step.completed", "data": step("completed", "s2", **_CALLS)}, None),
    ]
    rules = msgspec.structs.replace(RULES, ended_retention_s=20)
    records = [
        LogRecord(at, second * 1000, b"k", text(value), () if own is None else (("runstep-event-id", own),))
        for at, (second, value, own) in enumerate(told)
    ]
    state, topics = PartitionState("t", 3, rules), Topics(0)
    topics.commit(state, state.apply(records))
    assert topics.committed[1] == 1, "the open step holds the restore at its own begin"
    restored = topics.restore(rules)
    restored.apply(records[1:])
    restored.moved_to(topics.committed[0])
    assert portrait(restored) == portrait(state)
