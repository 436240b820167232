"""What came out, held against what had to: the same reading for our worker and for every peer."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from confluent_kafka import IsolationLevel, TopicPartition
from confluent_kafka.admin._listoffsets import OffsetSpec

from tests import kafka_tools
from tests.bench.load import DEAD, Expected, line

_SETTLED_S: Final = 120.0
"""A killed producer's transaction stays open until the broker aborts it: a minute by default, and its scan."""
LOOK_S: Final = 0.1


@dataclass(frozen=True, slots=True)
class Verdict:
    """Steps and dead letters, counted as a reader of committed records sees them.

    Args:
        lost: had to come and did not, at least not with this status and these contents.
        doubled: came once more, unchanged.
        foreign: came and had not to: another status, other contents, a letter too many.
        held_up: partitions that a transaction left open hides the rest of.
    """

    lost: int
    doubled: int
    foreign: int
    held_up: int = 0

    def is_correct(self, *, exactly_once: bool) -> bool:
        return not self.lost and not self.foreign and not (exactly_once and self.doubled)

    def __str__(self) -> str:
        told = f"{self.lost} lost, {self.doubled} doubled, {self.foreign} foreign"
        return f"{told}; a transaction left open holds up {self.held_up} partitions" if self.held_up else told


def judge(bootstrap: str, topics: Mapping[str, str], expected: Expected) -> Verdict:
    """Read all that was published, when no transaction is open any more.

    Args:
        topics: by status, and `DEAD`.
    """
    held_up = _until_settled(bootstrap, topics.values())
    came: Counter[str] = Counter()
    for status in topics.keys() - {DEAD}:
        for got in kafka_tools.read_topic(bootstrap, topics[status]):
            came[line_of(status, got.value)] += 1
    letters = kafka_tools.read_topic(bootstrap, topics[DEAD])
    distinct, wanted = len({got.value for got in letters}), expected.counts[DEAD]
    steps = set(expected.lines)
    return Verdict(
        lost=len(steps - came.keys()) + max(0, wanted - distinct),
        doubled=came.total() - len(came) + len(letters) - distinct,
        foreign=len(came.keys() - steps) + max(0, distinct - wanted),
        held_up=held_up,
    )


def line_of(status: str, value: bytes | None) -> str:
    """A published step as a line of `Expected`; what is none as itself."""
    try:
        snapshot = json.loads(value or b"")
        calls = snapshot["step_details"].get("tool_calls") or ()
        if snapshot["status"] == status:
            return line(status, snapshot["id"], [text for call in calls for text in _texts(call)])
    except (ValueError, TypeError, KeyError, AttributeError):
        pass
    return f"on {status}: {value!r}"


def _texts(call: Mapping[str, Any]) -> list[str]:
    """A function's arguments; of another tool's call each folded text, with the tool's type and the text's field."""
    tool = call.get("type", "function")
    if tool == "function":
        return [call["function"]["arguments"]]
    own = call.get(tool, call)
    outputs = [("logs", output["logs"]) for output in own.get("outputs") or ()]
    stated = [(name, own.get(name)) for name in ("input", "arguments", "output")]
    return [named(tool, name, text) for name, text in (*stated, *outputs) if text is not None]


def named(tool: str, name: str, text: str) -> str:
    """The text of a tool other than a function, as it stands in a line of `Expected`."""
    return f"{tool} {name}: {text}"


def _until_settled(bootstrap: str, topics: Iterable[str]) -> int:
    """Wait, not for ever, until no transaction is open; returns how many partitions still have one.

    Even after the last commit the markers reach the partitions one by one.
    """
    client = kafka_tools.admin(bootstrap)
    places = [
        TopicPartition(topic, number)
        for topic in topics
        for number in client.list_topics(topic, timeout=kafka_tools.DEADLINE_S).topics[topic].partitions
    ]
    latest = OffsetSpec.latest()  # type: ignore[no-untyped-call]
    ask = dict.fromkeys(places, latest)
    deadline = time.monotonic() + _SETTLED_S
    while True:
        ends = [
            {(at.topic, at.partition): told.result(kafka_tools.DEADLINE_S).offset for at, told in answers.items()}
            for answers in (
                client.list_offsets(ask, isolation_level=level)
                for level in (IsolationLevel.READ_COMMITTED, IsolationLevel.READ_UNCOMMITTED)
            )
        ]
        held_up: int = sum(ends[0][place] != ends[1][place] for place in ends[0])
        if not held_up or time.monotonic() > deadline:
            return held_up
        time.sleep(LOOK_S)
