"""What is learned of producers takes a bounded number of bytes, whatever they write."""

from __future__ import annotations

import gc
import tracemalloc
from typing import Any

import pytest

from processor.core.effects import LogRecord
from processor.core.growing_text import Text
from processor.core.learned_bytes import MOST_BYTES, MOST_OF_ONE, LearnedBytes, size_of
from processor.core.lifecycle import Kind
from processor.core.merge import Indexed, Tree
from processor.core.partition import PartitionState
from processor.core.rules import Rules
from processor.core.run_steps.exact_reader import DataReader
from processor.core.run_steps.tool_calls import Outlines
from tests.bench import recorded_job
from tests.bench.responses_job import responses
from tests.core.scripted_log import Play, call, calls, published, step, text
from tests.core.test_paths import come_to_the_same

DETAILS: dict[str, Any] = {"type": "tool_calls", "tool_calls": []}
FORGETTING = Rules(ended_retention_s=0, ended_retention_records=0)


def test_what_is_taken_counts_and_what_is_large_is_not_taken() -> None:
    learned = LearnedBytes()
    assert not learned.take(MOST_OF_ONE + 1)
    assert learned.left == MOST_BYTES
    for _ in range(MOST_BYTES // MOST_OF_ONE):
        assert learned.take(MOST_OF_ONE)
    assert not learned.take(1)
    assert size_of((b"ab", b"")) > 2


def padded(data: dict[str, Any], size: int) -> bytes:
    """The same with so many spaces in it: no two producers would write so, and none of them is a step's own."""
    return text(data).replace(b',"', b"," + b" " * size + b'"', 1)


def lives(steps: int, size: int) -> list[bytes]:
    """Steps of all tools, each event with more spaces than the one before it."""
    values: list[bytes] = []

    def say(name: str, data: dict[str, Any]) -> None:
        values.append(b'{"event":"thread.run.step.%b","data":%b}' % (name.encode(), padded(data, size + len(values))))

    for number in range(steps):
        of_step: dict[str, Any] = {"step_id": f"step_{number}", "thread_id": "t", "type": "tool_calls", "usage": None}
        mcp = {"id": "c", "type": "mcp", "name": "f", "server_label": "s", "arguments": "a"}
        function = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "a"}}
        one = mcp if number % 2 else function
        say("created", step(**of_step, step_details=DETAILS))
        values.append(values[-1].replace(b"step.created", b"step.in_progress", 1))
        say("delta", calls({"index": 0} | one, step_id=f"step_{number}"))
        more = {"arguments": "b"} if number % 2 else {"function": {"arguments": "b"}}
        for _ in range(3):
            piece = calls({"index": 0, "type": one["type"]} | more, step_id=f"step_{number}")
            say("delta", piece)
            values.append(padded(piece, size + len(values)))  # without an envelope
        whole = {"arguments": "abbbbbb"}
        told = one | (whole if number % 2 else {"function": {"name": "f"} | whole})
        said = DETAILS | {"tool_calls": [told]} if number % 4 < 2 else DETAILS
        say("completed", step("completed", **of_step, completed_at=5, step_details=said))
    return values


def kept_bytes(values: list[bytes]) -> int:
    """What a state holds once it has folded these, and forgotten all steps."""
    gc.collect()
    tracemalloc.start()
    state = PartitionState("t", 0, FORGETTING)
    for offset, value in enumerate(values):
        state.apply([LogRecord(offset, 1_000_000 + offset * 1_000, b"k", value)])
    gc.collect()
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert not state.open_steps
    return kept


@pytest.mark.parametrize("size", [100, 3_000, 10_000, 30_000, 100_000])
def test_unusual_objects_do_not_grow_memory_without_bound(size: int) -> None:
    values = lives(60, size)
    assert kept_bytes(values) < MOST_BYTES + (1 << 19)


def test_of_large_objects_no_template_is_kept() -> None:
    state = PartitionState("t", 0, FORGETTING)
    for offset, value in enumerate(lives(5, 40_000)):
        state.apply([LogRecord(offset, 1_000_000 + offset * 1_000, b"k", value)])
    objects = state._run_steps.objects
    assert not objects._begins
    assert not objects._calls
    assert not any(objects._ends)


def test_objects_that_were_read_lately_take_a_bounded_number_of_bytes() -> None:
    reader = DataReader()
    message = {"type": "message_creation", "message_creation": {"message_id": "m"}}
    tracemalloc.start()
    for number in range(250):
        data = text(step(step_id=f"s{number}", assistant_id="a" * 3_500, type="message_creation", step_details=message))
        assert reader.object_in(data, Kind.CREATED) is not None
        assert reader.bare_in(data) is not None
    del data
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 1 << 20


def test_outlines_take_of_what_is_left() -> None:
    def tree(name: str) -> Tree:
        held = Text()
        held.write("a")
        return {"type": "tool_calls", "tool_calls": Indexed({0: {"id": "c", "type": "mcp", name: held}})}

    outlines = Outlines()
    assert outlines.of(tree("n" * MOST_OF_ONE), []) is None
    assert outlines.of(tree("arguments"), []) is not None
    outlines.learned.left = 0
    assert outlines.of(tree("arguments"), []) is not None, "it is known"
    assert outlines.of(tree("other"), []) is None


def test_producers_of_a_topic_take_a_part_of_it() -> None:
    state = PartitionState("t", 0, Rules())
    made = [
        *recorded_job.recorded(3_000, recorded_job.Expected()),
        *responses(2_000, recorded_job.Expected()),
    ]
    for offset, one in enumerate(made):
        state.apply([LogRecord(offset, one.timestamp, one.key, one.value, tuple(one.headers))])
    assert MOST_BYTES - 100_000 < state._transitions.learned.left < MOST_BYTES


def test_objects_with_more_numbers_than_there_are_places_come_to_the_same() -> None:
    play = Play()
    for size in (90, 95, 100, 105, 150, 300):
        for number in range(3):
            usage = {f"n{n}": n + 1 for n in range(size)}
            whole: dict[str, Any] = {"step_id": f"step_{size}_{number}", "thread_id": "t", "type": "tool_calls"}
            play.say("step.created", step(**whole, usage=usage, step_details=DETAILS))
            published(play.say("step.completed", step("completed", **whole, usage=usage, step_details=DETAILS)))
    come_to_the_same(play.log)


@pytest.mark.parametrize("names", [False, True])
def test_ends_of_steps_with_any_number_of_calls_come_to_the_same(*, names: bool) -> None:
    """What is published with so many of them is known for a few numbers, and put together for the others."""
    play = Play()
    number = 0
    for outputs, kind in ((0, "function"), (1, "function"), (0, "other"), (256, "function"), (5, "function")):
        for count in (1, 2, 3, 0, 8, 9, 1, 2, 8, 9, 4, 5, 6, 7, 50):
            number += 1
            whole: dict[str, Any] = {"step_id": f"step_{number}", "thread_id": "t", "type": "tool_calls", "usage": None}
            play.say("step.created", step(**whole, step_details=DETAILS))
            told: list[dict[str, Any]] = []
            for index in range(count):
                function = {"name": "f"} | ({"output": None} if outputs >> index & 1 else {})
                one = call(index, "a", id=f"call_{index}", function=function, type=kind)
                play.say("step.delta", calls(one, step_id=f"step_{number}"))
                told.append({name: held for name, held in one.items() if name != "index"})
            details = DETAILS | {"tool_calls": told if names else []}
            published(play.say("step.completed", step("completed", **whole, completed_at=5, step_details=details)))
    come_to_the_same(play.log)
    ends = [template for templates in play.state._run_steps.objects._ends for template in templates]
    assert 0 < max(len(template._frames) for template in ends) <= 16
