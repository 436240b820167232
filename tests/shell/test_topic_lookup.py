"""What is made of a cluster's answers about one topic. A scripted client, no broker."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiokafka.errors import InvalidTopicError, LeaderNotAvailableError, UnknownTopicOrPartitionError

from processor.config.settings import Settings
from processor.errors import BrokerRefused, BrokerUnavailable
from processor.kafka import topic_lookup
from processor.kafka.client import Client
from processor.kafka.errors import PermissionMissing, TopicMissing
from processor.kafka.topic_lookup import MISSING_AFTER_S, find_topic, most_like
from processor.serve.restore import Restorer

UNKNOWN, NO_LEADER, INVALID = (
    UnknownTopicOrPartitionError.errno,
    LeaderNotAvailableError.errno,
    InvalidTopicError.errno,
)
FORBIDDEN = 29
FOUND, SILENT = 0, -1


class Scripted:
    """Answers in turn with these codes, and with the last one from then on."""

    def __init__(self, *codes: int) -> None:
        self._codes = list(codes)
        self.asked = 0
        self.topic_errors: dict[str, int] = {}
        self._code = SILENT
        self.cluster = SimpleNamespace(partitions_for_topic=lambda _: {0, 1} if self._code == FOUND else None)

    def add_topic(self, topic: str) -> None:
        self._topic = topic

    async def force_metadata_update(self) -> bool:
        self.asked += 1
        self._code = self._codes.pop(0) if len(self._codes) > 1 else self._codes[0]
        self.topic_errors = {self._topic: self._code} if self._code > 0 else {}
        return self._code != SILENT

    def nodes(self) -> list[Any]:
        return []


async def found(client: Scripted, *, missing_after_s: float = 0.0, timeout_s: float = 30.0) -> int:
    return await find_topic(cast("Client", client), "t", missing_after_s=missing_after_s, timeout_s=timeout_s)


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(topic_lookup, "_ASK_AGAIN_S", 0)


async def test_one_that_has_no_leader_yet_or_of_which_nobody_speaks_is_asked_for_again() -> None:
    client = Scripted(SILENT, NO_LEADER, SILENT, NO_LEADER, FOUND)
    assert await found(client) == 2
    assert client.asked == 5


async def test_it_is_missing_only_if_every_answer_said_so_for_long_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([0.0, 0.0, 0.9, 5.0, 5.0, 5.9, 6.0])
    monkeypatch.setattr(topic_lookup, "time", SimpleNamespace(monotonic=lambda: next(now)))
    client = Scripted(UNKNOWN, UNKNOWN, NO_LEADER, UNKNOWN, UNKNOWN, UNKNOWN)
    with pytest.raises(TopicMissing):
        await found(client, missing_after_s=1.0)
    assert client.asked == 6


@pytest.mark.parametrize(
    ("code", "kind", "told"),
    [
        (FORBIDDEN, PermissionMissing, "topic t: refused"),
        (INVALID, BrokerRefused, "topic t: refused"),
    ],
)
async def test_what_no_further_question_changes_is_told_at_once(code: int, kind: type[Exception], told: str) -> None:
    client = Scripted(code)
    with pytest.raises(kind, match=told):
        await found(client)
    assert client.asked == 1


@pytest.mark.parametrize(
    ("code", "told"), [(SILENT, "no broker says whether it exists"), (NO_LEADER, "topic t: ")], ids=["silent", "leader"]
)
async def test_what_lasts_as_long_as_the_timeout_is_unavailable_and_says_why(code: int, told: str) -> None:
    with pytest.raises(BrokerUnavailable, match=told):
        await found(Scripted(code), timeout_s=0.05)


async def test_a_timeout_amid_answers_that_there_is_none_is_a_missing_topic() -> None:
    with pytest.raises(TopicMissing):
        await found(Scripted(UNKNOWN), missing_after_s=60.0, timeout_s=0.05)


def test_names_that_are_like_it() -> None:
    names = ["run-step-events", "prod.run-step-events", "run-steps.completed", "payments", "x"]
    assert most_like("run-step-event", names)[0] == "run-step-events"
    assert "prod.run-step-events" in most_like("run-step-events2", names)
    assert most_like("prod.run-step-events.eu", names)[0] == "prod.run-step-events"
    assert most_like("orders", names) == ()


def test_a_restore_does_not_believe_the_first_broker_that_has_just_come_up() -> None:
    nobody = cast("Any", None)
    restorer = Restorer(Settings(), nobody, nobody, nobody, nobody, own_writer="", claim=nobody, highest=nobody)
    assert (
        restorer._reader("checkpoints")._missing_after_s == Settings().kafka.request_timeout_ms / 1000 > MISSING_AFTER_S
    )
