"""Build the judge of a task from the task's data: `replay` and `explain` use it."""

from __future__ import annotations

from collections.abc import Callable

from processor.audit.expected_records import ExpectedRecords
from processor.audit.judge.arrival_times import ArrivalTimes
from processor.audit.judge.equal_steps import EqualSteps
from processor.audit.judge.partition_audit import MakeState, PartitionAudit
from processor.audit.judge.record_order import RecordOrder
from processor.audit.judge.transition_observer import TransitionObserver
from processor.audit.judge.verdicts import PublishedIndex
from processor.audit.replay.step_filter import belonging
from processor.audit.replay.task import Task
from processor.core.effects import Status, Transition
from processor.core.observer import Observer
from processor.core.partition import PartitionState
from processor.core.rules import Rules
from processor.kafka.output_records import Outputs


def expected_records(task: Task) -> ExpectedRecords:
    return ExpectedRecords(Outputs(task.outcome_topics, task.dead_letter, ""), task.partition, task.output_partitions)


def audit_of(
    task: Task,
    index: PublishedIndex,
    state_at: MakeState,
    *,
    yield_equal: bool,
    equal_steps: EqualSteps | None = None,
    order: RecordOrder | None = None,
) -> PartitionAudit:
    """The judge of the task's range against the records of `index`."""
    expected = expected_records(task)
    return PartitionAudit(
        state_at,
        index,
        expected.whole,
        begin=task.begin,
        end=task.end,
        complete=task.complete,
        log_end=task.log_end,
        latest_mark_ms=task.latest_mark_ms,
        ignored_marks=task.ignored_marks,
        shortened=expected.shortened,
        kept_from=index.kept_from(task.shortened),
        held=task.held,
        holes=task.holes,
        is_archived=bool(task.archives),
        arrival_times=ArrivalTimes(
            index,
            of_source=task.is_captured,
            lacks_headers=task.is_headless,
            outputs=task.captured_outputs,
            hides_ends=not all(task.outcome_topics.values()),
        ),
        placements=expected.placements,
        broker_times={(topic, partition): offset for topic, partition, offset in task.broker_times},
        dead_letter=task.dead_letter,
        expired=task.outcome_topics.get(Status.EXPIRED.value, ""),
        accepted=task.accepted,
        earlier=task.earlier_rules,
        yield_equal=yield_equal,
        equal_steps=equal_steps,
        order=order,
    )


def plain_state(
    task: Task, offset: int, stream_time: int, rules: Rules | None = None, *, observer: Observer | None = None
) -> PartitionState:
    """The task's state at an offset, at a stream time in milliseconds. `rules` in the place of the task's."""
    return PartitionState(
        task.topic,
        task.partition,
        rules or task.rules,
        next_offset=offset,
        live_from=offset,
        stream_time=stream_time,
        observer=observer,
    )


def observed_state(
    task: Task,
    offset: int,
    stream_time: int,
    on_transition: Callable[[Transition], None],
    rules: Rules | None = None,
) -> tuple[PartitionState, TransitionObserver]:
    """Make the state of `plain_state` with an observer of its transitions; returns both."""
    observer = TransitionObserver(on_transition, belonging(task.only) if task.only else None)
    return plain_state(task, offset, stream_time, rules, observer=observer), observer
