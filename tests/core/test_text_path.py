"""The fast path of Responses, asked directly: which deltas it takes, and which it leaves to the slow path."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from processor.core.effects import LogRecord, Publish
from processor.core.partition import PartitionState
from processor.core.responses.fast_path import TextPath
from processor.core.responses.response import Response
from processor.core.run_steps.fast_path import Paths
from tests.core.responses_log import RULES, item_in, snapshot, text
from tests.core.responses_strategies import TEXTS

Event = dict[str, Any]
KEY = b"resp_1"
SHAPE = ("type", "sequence_number", "item_id", "output_index", "content_index", "delta", "logprobs", "obfuscation")


class Life:
    """One partition with a response whose item 0 has begun; `delta` is offered to the fast path alone."""

    def __init__(self, key: bytes = KEY, rules: Any = RULES, deltas: int = 4) -> None:
        self.state = PartitionState("t", 3, rules)
        self.key, self.number, self.at_ms = key, 0, 1_000_000
        self.say({"type": "response.created", "response": {"id": key.decode()}})
        self.begin(0)
        for _ in range(deltas):
            self.say(self.delta("a"))

    @property
    def path(self) -> TextPath:
        return self.state._responses.fast

    @property
    def response(self) -> Response:
        found = self.state.steps["\0" + self.key.decode()].materialise()
        assert isinstance(found, Response)
        return found

    def begin(self, index: int) -> None:
        item = {"type": "message", "id": f"m{index}"}
        self.say({"type": "response.output_item.added", "output_index": index, "item": item})

    def say(self, event: Event, key: bytes | None = None) -> list[Any]:
        """The next event, by whichever path."""
        value = text(event if "sequence_number" in event else event | {"sequence_number": self.number})
        self.number += key is None and event.get("sequence_number", 0) is not None
        return self.state.apply([LogRecord(self.state.next_offset, self.at_ms, key or self.key, value, ())])

    def delta(self, piece: str, index: int = 0, **more: Any) -> Event:
        told = {
            "type": "response.output_text.delta", "sequence_number": self.number, "item_id": f"m{index}",
            "output_index": index, "content_index": 0, "delta": piece, "logprobs": [], "obfuscation": "aZ",
        }  # fmt: skip
        return {name: told[name] for name in SHAPE} | more

    def offer(self, value: Event | bytes, key: bytes | None = None, offset: int = -1) -> bool:
        """Whether the fast path takes it; where it does not, nothing may have changed."""
        content = value if isinstance(value, bytes) else text(value)
        before = self.response.pack()
        found = self.path.append(key or self.key, content, self.state.next_offset if offset < 0 else offset, self.at_ms)
        assert found or self.response.pack() == before
        return found


def opened() -> Life:
    return Life()


@pytest.mark.parametrize("key", [b"r", b"re", b"res", KEY])
@pytest.mark.parametrize("deltas", [1, 2, 3, 9])
def test_a_delta_in_order_is_taken(key: bytes, deltas: int) -> None:
    life = Life(key, deltas=deltas)
    assert life.offer(life.delta("b"))
    assert life.path.appended == 1
    item = life.response.items[0]
    assert [held.getvalue() for held in item.texts.values()] == ["a" * deltas + "b"]
    assert (item.numbered, item.events, item.last_offset) == (life.number, deltas + 2, life.state.next_offset)
    assert (life.response.numbers.next, life.response.last_offset) == (life.number + 1, life.state.next_offset)


def test_the_first_delta_of_a_text_is_not() -> None:
    """What the item began with is part of it."""
    life = Life(deltas=0)
    assert not life.offer(life.delta("b"))


Offer = Callable[[Life], "Event | bytes"]
LEFT_ALONE: dict[str, Offer] = {
    "a number that came": lambda life: life.delta("b", sequence_number=life.number - 1),
    "a number that is further": lambda life: life.delta("b", sequence_number=life.number + 1),
    "no number": lambda life: {name: value for name, value in life.delta("b").items() if name != "sequence_number"},
    "a number with a fraction": lambda life: life.delta("b", sequence_number=life.number + 0.5),
    "another index": lambda life: life.delta("b", output_index=1),
    "another part": lambda life: life.delta("b", content_index=1),
    "another text": lambda life: life.delta("b", type="response.refusal.delta"),
    "a type that is not known": lambda life: life.delta("b", type="response.brand_new.delta"),
    "a type that an SDK does not know": lambda life: life.delta("b", type="response.reasoning.delta"),
    "an envelope": lambda life: life.delta("b", event="thread.run.step.delta"),
    "a CloudEvent": lambda life: life.delta("b", specversion="1.0"),
    "no text": lambda life: life.delta("b", delta=None),
    "no UTF-8 in the text": lambda life: text(life.delta("@")).replace(b"@", b"\xff"),
    "no UTF-8 elsewhere": lambda life: text(life.delta("b", vendor="@")).replace(b"@", b"\xff"),
    "no JSON": lambda life: text(life.delta("b"))[:-1],
    "half an escape": lambda life: text(life.delta("@")).replace(b"@", b"\\x"),
    "more behind it": lambda life: text(life.delta("b")) + b"1",
}


@pytest.mark.parametrize("deltas", [1, 4])
@pytest.mark.parametrize("what", LEFT_ALONE)
def test_what_is_no_delta_in_order_is_left_alone(what: str, deltas: int) -> None:
    """By a text that has a template, and by one that has none yet."""
    life = Life(deltas=deltas)
    assert not life.offer(LEFT_ALONE[what](life))


def test_another_response_and_an_earlier_offset_are_left_alone() -> None:
    life = opened()
    assert not life.offer(life.delta("b"), key=b"resp_2")
    assert not life.offer(life.delta("b"), key=b"other_resp_1")
    life.state.steps["\0resp_1"].applied_below = life.state.next_offset + 1
    assert not life.offer(life.delta("b"))
    assert life.offer(life.delta("b"), offset=life.state.next_offset + 1)


def test_a_response_that_has_ended_is_left_alone() -> None:
    life = opened()
    life.say({"type": "response.completed", "response": {"output": []}})
    assert not life.offer(life.delta("b"))


@pytest.mark.parametrize("has_template", [True, False])
def test_an_item_that_its_deadline_ended_is_left_alone(has_template: bool) -> None:
    """The response is open, as another item of it is: what comes late amends the step."""
    life = Life(deltas=4 if has_template else 1)
    life.at_ms += 60_000
    life.begin(1)
    life.say(life.delta("x", 1))
    if has_template:
        life.say(life.delta("a"))
        life.say(life.delta("a"))
    life.at_ms += 50_000
    (expired,) = [effect for effect in life.say({"type": "ping"}, b"other") if isinstance(effect, Publish)]
    assert (expired.step_id, expired.status.value) == ("resp_1:0", "expired")
    assert not life.offer(life.delta("b"))
    (amended,) = [effect for effect in life.say(life.delta("b")) if isinstance(effect, Publish)]
    assert amended.revision == 1
    assert item_in(snapshot(amended))["content"][0]["text"].endswith("ab")


def test_a_response_is_filled_to_the_last_byte_and_not_further() -> None:
    rules = msgspec.structs.replace(RULES, max_step_bytes=1_000)
    life = Life(rules=rules)
    left = 1_000 - life.response.held_bytes
    assert not life.offer(life.delta("b" * (left + 1)))
    assert life.offer(life.delta("b" * left))
    life.number += 1
    assert not life.offer(life.delta("b"))
    assert life.response.held_bytes == 1_000


def test_an_item_of_which_a_piece_was_refused_takes_no_smaller_one() -> None:
    life = Life(rules=msgspec.structs.replace(RULES, max_step_bytes=1_000))
    life.say(life.delta("b" * 2_000))
    assert not life.offer(life.delta("b"))


@pytest.mark.parametrize("piece", ["é", "\\", "\n", '"', "😀", "\x01", "b" * 5_000])
def test_a_text_is_taken_as_it_is_read(piece: str) -> None:
    for ascii_only in (True, False):
        life = opened()
        before = life.response.held_bytes
        event = life.delta(piece)
        value = json.dumps(event, separators=(",", ":"), ensure_ascii=ascii_only).encode()
        assert life.offer(value)
        (held,) = life.response.items[0].texts.values()
        assert held.getvalue() == "aaaa" + piece
        assert life.response.held_bytes - before == len(piece)


def test_where_items_share_an_index_or_events_lack_numbers_the_slow_path_decides() -> None:
    life = opened()
    life.say({"type": "response.output_item.added", "output_index": 0, "item": {"type": "message", "id": "n"}})
    assert life.response.has_moved
    assert not life.offer(life.delta("b"))
    life = opened()
    life.say({"type": "response.in_progress", "response": {}, "sequence_number": None})
    assert life.response.unnumbered == 1
    assert not life.offer(life.delta("b")), "it may be one of those that are missing"


def test_a_delta_makes_a_response_dirty_that_a_checkpoint_holds() -> None:
    """Also where somebody who asked for the open steps had it read from its bytes meanwhile."""
    life = opened()
    life.state.checkpoint(1 << 40)
    offset = life.state.next_offset
    assert life.state.restore_point()[0] == offset
    assert life.response.cursor is None
    life.say(life.delta("b"))
    assert life.path.at_work[KEY].step is life.response
    assert (life.state.restore_point()[0], life.state.next_offset) == (offset, offset + 1)


def test_a_response_is_found_again_without_its_id_being_hashed() -> None:
    life = opened()
    life.path.at_work.clear()
    assert life.offer(life.delta("b"))
    life = Life(deltas=0)
    life.path.at_work.clear()
    assert not life.offer(life.delta("b"))


@pytest.mark.parametrize(("name", "index", "_field"), TEXTS)
def test_a_delta_of_every_text_is_taken_at_its_own_index_alone(name: str, index: str, _field: str) -> None:
    """The index of another list says nothing of it."""
    others = {other: 7 for other in ("content_index", "summary_index", "command_index") if other != index}
    life = Life(deltas=0)
    event = {
        "type": f"response.{name}.delta",
        "output_index": 0,
        "delta": "a",
        **others,
        **({index: 1} if index else {}),
    }
    life.say(event)
    for number in range(4):
        assert life.offer(event | {"sequence_number": life.number}), number
        life.number += 1
    (key,) = life.response.items[0].texts
    assert key == (name, 1 if index else 0)
    if index:
        assert not life.offer(event | {index: 2, "sequence_number": life.number})


def test_texts_in_turns_each_have_their_own_piece() -> None:
    """The template of one text takes no delta of the other, though all but its place is the same."""
    life = Life()
    life.begin(1)
    life.say(life.delta("x", 1))
    for n in range(12):
        assert life.offer(life.delta("ab"[n % 2], n % 2))
        life.number += 1
    held = [next(iter(item.texts.values())).getvalue() for item in life.response.items.values()]
    assert held == ["aaaa" + "a" * 6, "x" + "b" * 6]


def test_what_the_fast_path_did_is_what_the_slow_one_does() -> None:
    """The same log, and the same state behind it."""
    life, slow = opened(), opened()
    slow.state = PartitionState("t", 3, RULES, paths=Paths.SLOW)
    slow.number = 0
    slow.say({"type": "response.created", "response": {"id": "resp_1"}})
    slow.begin(0)
    for _ in range(4):
        slow.say(slow.delta("a"))
    for one in (life, slow):
        one.say(one.delta("é\\"))
    assert life.response.pack() == slow.response.pack()


def test_a_shape_is_learned_once_for_all_texts_and_few_are() -> None:
    """Producers have few; whoever writes another one each time costs no more than so many."""
    state = PartitionState("t", 3, RULES)
    path = state._responses.fast

    def streamed(number: int, **more: Any) -> None:
        life = Life(b"resp_%d" % number, deltas=0)
        life.state = state
        life.say({"type": "response.created", "response": {"id": f"resp_{number}"}, "sequence_number": 0})
        life.number = 1
        life.begin(0)
        for _ in range(5):
            life.say(more | life.delta("a"))

    for number in range(3):
        streamed(number)
    assert len(path._shapes) == 1
    for number in range(30):
        streamed(100 + number, **{f"other_{number}": 1})
    assert len(path._shapes) == 16
    state = PartitionState("t", 3, RULES)
    path = state._responses.fast
    for number in range(40):
        streamed(200 + number, obfuscation="before the text")
    assert (len(path._shapes), path._attempts) == (0, 0)
    assert [effect for effect in state.apply([]) if isinstance(effect, Publish)] == []
