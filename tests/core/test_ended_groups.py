"""Groups of ended steps change nothing: neither what is published nor what is checkpointed, whatever comes late."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from processor.core import ended_groups
from processor.core.effects import Effect, LogRecord, Publish, Status
from processor.core.ended_groups import Grouping
from processor.core.entry import Entry, Form
from processor.core.entry_queue import EntryQueue
from processor.core.merge import pack, unpack
from processor.core.partition import PartitionState
from processor.core.run_steps.step import Step
from tests.core.responses_strategies import response_logs
from tests.core.scripted_log import RULES, call, calls, step, text
from tests.core.strategies import RULES as LOG_RULES
from tests.core.strategies import lives, logs
from tests.core.test_restart import mark, portrait
from tests.examples import examples

UNGROUPED = Grouping(most_bytes=1 << 60, most_steps=1 << 60)
FUNCTIONS: dict[str, Any] = {"type": "tool_calls", "step_details": {"type": "tool_calls", "tool_calls": []}}


class Codec:
    """A reversible change of bytes that counts how often it was undone."""

    def __init__(self) -> None:
        self.undone = 0

    def grouping(self, most_steps: int) -> Grouping:
        return Grouping(most_steps=most_steps, compress=self.compress, decompress=self.decompress)

    def compress(self, content: bytes) -> bytes:
        return content[::-1]

    def decompress(self, content: bytes) -> bytes:
        self.undone += 1
        return content[::-1]


@settings(
    max_examples=examples(300), deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
@given(st.one_of(logs(), lives(), response_logs()), st.integers(1, 4), st.data())
def test_whatever_is_grouped_when_the_effects_are_the_same(
    records: list[LogRecord], most_steps: int, data: st.DataObject
) -> None:
    """Checkpoints, clock marks and what is forgotten included, byte by byte."""
    grouped = PartitionState("t", 3, LOG_RULES, grouping=Codec().grouping(most_steps))
    alone = PartitionState("t", 3, LOG_RULES, grouping=UNGROUPED)
    for record in records:
        assert grouped.apply([record]) == alone.apply([record])
        what = data.draw(st.sampled_from(["go on", "go on", "mark", "checkpoint"]))
        if what == "mark":
            assert mark(grouped, 1) == mark(alone, 1)
        elif what == "checkpoint":
            assert grouped.checkpoint(grouped.next_offset) == alone.checkpoint(alone.next_offset)
        assert grouped.restore_point() == alone.restore_point()
    held, expected = (state._transitions.retention.held_checkpoints() for state in (grouped, alone))
    assert held == expected
    assert portrait(grouped) == portrait(alone)


class Log:
    """Steps of function calls, told one after the other."""

    def __init__(self, grouping: Grouping) -> None:
        self.state = PartitionState("t", 3, RULES, grouping=grouping)
        self.offset = 0

    def say(self, name: str, data: dict[str, Any], event_id: str = "") -> list[Effect]:
        own = (("runstep-event-id", event_id.encode()),) if event_id else ()
        record = LogRecord(self.offset, 1_000_000, b"k", text({"event": f"thread.run.{name}", "data": data}), own)
        self.offset += 1
        return self.state.apply([record])

    def run(self, step_id: str, arguments: str = "ab") -> bytes:
        """One step from its begin to its end; returns what was published."""
        self.say("step.created", step(step_id=step_id, **FUNCTIONS), f"{step_id}-created")
        said = call(0, arguments, id="c", function={"name": "f"})
        self.say("step.delta", calls(said, step_id=step_id), f"{step_id}:1")
        (found,) = self.say("step.completed", step("completed", step_id, **FUNCTIONS), f"{step_id}-ended")
        assert isinstance(found, Publish)
        return found.value

    def entry(self, step_id: str) -> Entry:
        return self.state.steps[step_id]


LATE: dict[str, Callable[[Log], list[Effect]]] = {
    "a delta that amends": lambda log: log.say("step.delta", calls(call(0, "c"), step_id="s1"), "s1:2"),
    "a delta again": lambda log: log.say("step.delta", calls(call(0, "ab"), step_id="s1"), "s1:1"),
    "the same end": lambda log: log.say("step.completed", step("completed", "s1", **FUNCTIONS)),
    "another end": lambda log: log.say("step.failed", step("failed", "s1", **FUNCTIONS)),
    "an end that amends": lambda log: log.say("step.completed", step("completed", "s1", usage={"a": 1}, **FUNCTIONS)),
}


@pytest.mark.parametrize("late", LATE.values(), ids=LATE)
def test_a_late_event_finds_its_step_in_a_group(late: Callable[[Log], list[Effect]]) -> None:
    codec = Codec()
    grouped, alone = Log(codec.grouping(2)), Log(UNGROUPED)
    for log in (grouped, alone):
        log.run("s1")
        log.run("s2")
    assert [grouped.entry(name).form for name in ("s1", "s2")] == [Form.GROUPED] * 2
    assert alone.entry("s1").form is Form.COMPACT
    assert codec.undone == 0, "nothing is read that no event names"
    assert late(grouped) == late(alone)
    assert codec.undone == 1
    assert late(grouped) == late(alone)
    assert codec.undone == 1, "it is by itself from the first late event on"
    assert grouped.entry("s2").form is Form.GROUPED
    assert portrait(grouped.state) == portrait(alone.state)
    alike = [log.state._transitions.retention.held_checkpoints() for log in (grouped, alone)]
    assert alike[0] == alike[1]


@pytest.mark.parametrize("tool", [{"code_interpreter": {"input": "ab"}}, {"arguments": "ab"}], ids=["code", "mcp"])
def test_a_late_delta_appends_to_the_text_of_another_tool(tool: dict[str, Any]) -> None:
    """What deltas may append to is known of these steps, too."""
    kind = "mcp" if "arguments" in tool else "code_interpreter"
    told: list[list[Effect]] = []
    for grouping in (Codec().grouping(1), UNGROUPED):
        log = Log(grouping)
        usual: dict[str, Any] = {"created_at": 1, "assistant_id": "a", "thread_id": "t"} | FUNCTIONS
        log.say("step.created", step(**usual))
        log.say("step.delta", calls(call(0, id="c", type=kind, **tool)))
        log.say("step.completed", step("completed", **usual))
        assert log.entry("s1").form is (Form.COMPACT if grouping is UNGROUPED else Form.GROUPED)
        told.append(log.say("step.delta", calls(call(0, type=kind, **tool))))
    assert told[0] == told[1]
    (found,) = told[0]
    assert isinstance(found, Publish)
    assert b'"abab"' in found.value


def test_all_that_is_known_of_a_step_comes_back_from_its_bytes() -> None:
    log = Log(UNGROUPED)
    log.run("s1")
    ended = log.entry("s1").ended
    assert isinstance(ended, Step)
    ended.oversize, ended.irregular, ended.usable_expires_at = True, True, 77
    ended.anomalies, ended.trace = frozenset({"changed_field", "sequence_gap"}), (("traceparent", b"00"),)
    ended.events, ended.revision, ended.object_bytes, ended.characters = 11, 12, 13, 14
    ended.first_offset, ended.last_offset, ended.opened_s = 15, 16, 17
    found = Step.of_compacted("s1", ended.status, unpack(pack(ended.compacted())))
    assert found.materialise().pack() == ended.materialise().pack()
    assert (found.run_id, pack(found.compacted())) == (ended.run_id, pack(ended.compacted()))


def test_a_step_that_was_named_late_joins_another_group() -> None:
    log = Log(Codec().grouping(2))
    log.run("s1")
    log.run("s2")
    LATE["a delta that amends"](log)
    assert log.entry("s1").form is not Form.GROUPED
    log.run("s3")
    assert log.entry("s1").form is log.entry("s3").form is Form.GROUPED
    assert log.entry("s1").group is log.entry("s3").group is not log.entry("s2").group


def test_a_group_holds_bytes_alone() -> None:
    log = Log(Codec().grouping(1))
    log.run("s1")
    entry = log.entry("s1")
    assert (entry.step, entry.ended, entry.body) == (None, None, b"")


@pytest.mark.parametrize(("size", "is_alone"), [(ended_groups.LARGE_BYTES, True), (1_000, False)])
def test_a_large_step_is_alone_in_its_group(size: int, is_alone: bool) -> None:
    """A late event for another step does not decompress it."""
    log = Log(Codec().grouping(2))
    log.run("s1")
    log.run("s2", "x" * size)
    assert log.entry("s2").form is Form.GROUPED
    assert (log.entry("s1").form is Form.COMPACT) is is_alone
    log.run("s3")
    assert log.entry("s1").group is not None or not is_alone
    assert (log.entry("s1").group is not log.entry("s2").group) is is_alone


def test_a_group_is_made_by_bytes_or_by_steps() -> None:
    by_bytes = Log(Grouping(most_bytes=1_000, most_steps=1 << 60))
    size = len(by_bytes.run("s1"))
    ended = 1
    while ended * size < 1_000:
        assert by_bytes.entry("s1").form is Form.COMPACT
        ended += 1
        by_bytes.run(f"s{ended}")
    assert by_bytes.entry("s1").form is by_bytes.entry(f"s{ended}").form is Form.GROUPED


def test_a_forgotten_step_leaves_its_group_and_joins_none() -> None:
    log = Log(Codec().grouping(3))
    log.run("s1")
    log.run("s2")
    waiting, named = log.entry("s1"), log.entry("s2")
    log.offset += RULES.ended_retention_records + 1
    log.run("s3")
    assert set(log.state.steps) == {"s3"}
    assert log.entry("s3").form is Form.GROUPED, "three have waited"
    assert waiting.group is named.group is None


@pytest.mark.skipif(hasattr(Step, "__mypyc_attrs__"), reason="a compiled class takes no other methods")
def test_a_step_that_cannot_be_packed_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug there is no fault of the event at hand: nothing is set aside, and nothing is lost."""
    log, alone = Log(Codec().grouping(2)), Log(UNGROUPED)
    compacted = Step.compacted

    def broken(self: Step) -> list[Any]:
        if self.step_id == "s1":
            raise ZeroDivisionError
        return compacted(self)

    monkeypatch.setattr(Step, "compacted", broken)
    for name in ("s1", "s2"):
        assert log.run(name) == alone.run(name)
    assert [log.entry(name).form for name in ("s1", "s2")] == [Form.COMPACT, Form.GROUPED]
    assert LATE["a delta that amends"](log) == LATE["a delta that amends"](alone)


def test_steps_whose_group_cannot_be_made_stay_as_they_are() -> None:
    def broken(content: bytes) -> bytes:
        raise ZeroDivisionError

    log, alone = Log(Grouping(most_steps=2, compress=broken)), Log(UNGROUPED)
    for name in ("s1", "s2"):
        assert log.run(name) == alone.run(name)
    assert [log.entry(name).form for name in ("s1", "s2")] == [Form.COMPACT] * 2
    assert LATE["a delta that amends"](log) == LATE["a delta that amends"](alone)


@pytest.mark.skipif(hasattr(Step, "__mypyc_attrs__"), reason="a compiled class takes no other methods")
def test_want_of_memory_is_no_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    log = Log(Codec().grouping(1))

    def broken(self: Step) -> list[Any]:
        raise MemoryError

    monkeypatch.setattr(Step, "compacted", broken)
    with pytest.raises(MemoryError):
        log.run("s1")


def test_the_ended_steps_that_checkpoints_brought_are_grouped() -> None:
    log = Log(UNGROUPED)
    for name in ("s1", "s2"):
        log.run(name)
    found = log.state._transitions.retention.held_checkpoints()
    rules = msgspec.structs.replace(RULES)
    restored = PartitionState("t", 3, rules, next_offset=log.offset, live_from=log.offset, grouping=Codec().grouping(2))
    restored.load(found)
    assert [entry.form for entry in restored.steps.values()] == [Form.GROUPED] * 2
    assert restored._transitions.retention.held_checkpoints() == found


# --- the queue of entries ---------------------------------------------------------------------------------------


@example([5, 2, "clean", 2, None])
@given(st.lists(st.one_of(st.integers(0, 20), st.none(), st.just("clean")), max_size=60))
def test_the_queue_gives_the_smallest_offset_first_and_of_equal_ones_the_first(moves: list[Any]) -> None:
    """A number is put, None takes the first out, `clean` drops what is not dirty since the offset it was put with."""
    queue = EntryQueue()
    expected: list[tuple[int, int, Entry]] = []
    for number, move in enumerate(moves):
        if move == "clean":
            expected = [item for item in expected if item[2].dirty_from == item[0]]
            queue.keep_dirty()
        elif move is None:
            if expected:
                first = min(expected, key=lambda item: item[:2])
                expected.remove(first)
                assert (queue.first_offset(), queue.first()) == (first[0], first[2])
                queue.drop_first()
        else:
            entry = Entry(f"s{number}", 0)
            entry.dirty_from = move if number % 3 else -1
            entry.status = Status.COMPLETED
            queue.put(move, entry)
            expected.append((move, number, entry))
        assert len(queue) == len(expected)


def test_the_queue_forgets_the_offsets_of_what_was_taken_out() -> None:
    queue = EntryQueue()
    entry = Entry("s", 0)
    for offset in range(100_000):
        queue.put(offset, entry)
        if offset >= 10:
            assert queue.first_offset() == offset - 10
            queue.drop_first()
    assert len(queue._offsets) < 20_000
