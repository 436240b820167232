"""The bench's check of what came out: it must find what is wrong, or a wrong peer (or we) would pass."""

from __future__ import annotations

import json

import pytest

from processor.broker import Broker
from tests.bench import worker
from tests.bench.load import DEAD, Expected
from tests.bench.verdict import Verdict, judge
from tests.kafka_tools import Names, Sent, produce

pytestmark = pytest.mark.broker


def step(step_id: str, arguments: str = "{}", status: str = "completed") -> Sent:
    calls = [{"function": {"arguments": arguments}}]
    return Sent(json.dumps({"id": step_id, "status": status, "step_details": {"tool_calls": calls}}).encode())


@pytest.fixture
def expected() -> Expected:
    """Two steps that complete, and a dead letter."""
    expected = Expected()
    for step_id in ("a", "b"):
        expected.ended("completed", step_id, ["{}"])
    expected.counts[DEAD] = 1
    return expected


def test_what_came_as_it_had_to_is_correct(broker: Broker, names: Names, expected: Expected) -> None:
    """Doubles are told, and break only the promise of exactly once."""
    topics = worker.make_outputs(broker, names.prefix, 2)
    produce(broker.bootstrap, topics["completed"], [step("a")], transactional_id=names.prefix)
    produce(broker.bootstrap, topics["completed"], [step("b")])
    produce(broker.bootstrap, topics[DEAD], [Sent(b"illegal")])
    assert judge(broker.bootstrap, topics, expected) == Verdict(lost=0, doubled=0, foreign=0)
    produce(broker.bootstrap, topics["completed"], [step("a")])
    produce(broker.bootstrap, topics[DEAD], [Sent(b"illegal")])
    doubled = judge(broker.bootstrap, topics, expected)
    assert doubled == Verdict(lost=0, doubled=2, foreign=0)
    assert doubled.is_correct(exactly_once=False)
    assert not doubled.is_correct(exactly_once=True)


def test_what_is_missing_or_other_is_told(broker: Broker, names: Names, expected: Expected) -> None:
    """Other arguments, another status than the topic's, no step at all, a letter too many; what had to come is lost."""
    topics = worker.make_outputs(broker, names.prefix, 2)
    produce(broker.bootstrap, topics["completed"], [step("a", "{ }"), Sent(b"no step"), Sent(None)])
    produce(broker.bootstrap, topics["completed"], [step("b", status="failed")])
    assert judge(broker.bootstrap, topics, expected) == Verdict(lost=3, doubled=0, foreign=4)
    produce(broker.bootstrap, topics[DEAD], [Sent(b"one"), Sent(b"two")])
    assert judge(broker.bootstrap, topics, expected) == Verdict(lost=2, doubled=0, foreign=5)
