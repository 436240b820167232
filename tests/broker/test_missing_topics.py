"""A topic or a partition that does not exist: every command says so at once, and which key names it."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Final

import pytest

from processor.broker import Broker
from processor.cli import main as cli
from processor.errors import BrokerUnavailable
from processor.kafka.client_config import Connection
from processor.kafka.errors import PermissionMissing, TopicMissing
from processor.kafka.partition_reader import PartitionReader
from tests.broker.conftest import PASSWORD, USER, SecureBroker
from tests.kafka_tools import Names, create_topics

REFUSED, USAGE, UNAVAILABLE = 77, 64, 75
SOON_S: Final = 20.0
"""A busy machine included; the library would ask for 30 s."""
STATUSES = ("completed", "failed", "cancelled", "expired")
EVENT = b'event: thread.run.created\ndata: {"id":"run_1","object":"thread.run","status":"queued","thread_id":"t"}\n\n'


class Commands:
    """Commands of this process with their settings in the environment."""

    def __init__(self, broker: Broker, names: Names, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.source, self.dead_letter = names.topic("events"), names.topic("dead")
        self.outcomes = {status: names.topic(status) for status in STATUSES}
        self.bootstrap = broker.bootstrap
        settings = {
            "KAFKA__BOOTSTRAP_SERVERS": broker.bootstrap,
            "SOURCE__TOPIC": self.source,
            "SOURCE__GROUP_ID": names.group,
            "OUTPUT__DEAD_LETTER": self.dead_letter,
            **{f"OUTPUT__{status.upper()}": topic for status, topic in self.outcomes.items()},
        }
        self._env = monkeypatch
        for name, value in settings.items():
            self.set(name, value)
        self.events, self.lists = home / "one.sse", home / "list.json"
        self.events.write_bytes(EVENT)
        step = {"id": "step_1", "object": "thread.run.step", "run_id": "run_1", "status": "completed"}
        self.lists.write_text(json.dumps({"object": "list", "data": [step], "has_more": False}))

    def set(self, name: str, value: str) -> None:
        self._env.setenv(f"RUN_STEPS_{name}", value)

    def run(self, command: str) -> tuple[int, float]:
        """Exit code and seconds."""
        began = time.monotonic()
        code = cli._run([word.format(events=self.events, lists=self.lists) for word in command.split()])
        return code, time.monotonic() - began


@pytest.fixture
def commands(broker: Broker, names: Names, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Commands:
    return Commands(broker, names, tmp_path, monkeypatch)


OF_SOURCE = (
    "replay",
    "replay --to end",
    "explain step_1",
    "explain step_1 --partition 0 --offset 0",
    "reconcile {lists}",
    "reset --to earliest",
    "publish {events}",
    "simulate --runs 1",
)
OF_DEAD_LETTERS = (
    "dead-letters list",
    "dead-letters show 0:0",
    "dead-letters stats",
    "dead-letters redrive --first --max 1",
)


@pytest.mark.parametrize(
    ("command", "key"),
    [
        *((command, "source.topic") for command in OF_SOURCE),
        *((command, "output.dead_letter") for command in OF_DEAD_LETTERS),
        ("export otlp --endpoint http://127.0.0.1:1", "output.cancelled"),
    ],
)
def test_it_is_named_at_once_with_the_key_that_names_it(
    commands: Commands, capsys: pytest.CaptureFixture[str], command: str, key: str
) -> None:
    topics = {"source.topic": commands.source, "output.dead_letter": commands.dead_letter, **commands.outcomes}
    topics["output.cancelled"] = commands.outcomes["cancelled"]
    code, seconds = commands.run(command)
    said = capsys.readouterr().err
    assert code == REFUSED, said
    assert f"topic {topics[key]}: does not exist\n" in said
    assert f"named by: {key} (`run-steps check-config`" in said
    assert ('"" there if this outcome is not published' in said) == (key == "output.cancelled")
    assert seconds < SOON_S


def test_topics_with_names_like_it_are_listed(
    commands: Commands, names: Names, capsys: pytest.CaptureFixture[str]
) -> None:
    create_topics(commands.bootstrap, commands.source)
    commands.set("SOURCE__TOPIC", commands.source[:-1])
    assert commands.run("replay")[0] == REFUSED
    assert f"names like it: {commands.source}" in capsys.readouterr().err
    assert commands.run(f"publish {{events}} --topic {names.topic('evnets')}")[0] == REFUSED
    said = capsys.readouterr().err
    assert commands.source in said
    assert "named by: --topic\n" in said


def test_an_outcome_topic_that_a_replay_needs(commands: Commands, capsys: pytest.CaptureFixture[str]) -> None:
    create_topics(commands.bootstrap, commands.source)
    code, seconds = commands.run("replay")
    said = capsys.readouterr().err
    assert code == REFUSED
    assert f"topic {commands.outcomes['cancelled']}: does not exist" in said
    assert "named by: output.cancelled" in said
    assert seconds < SOON_S


@pytest.mark.parametrize(
    "command", ["explain step_1 --partition 9 --offset 0", "replay --partition 9", "reset --to earliest --partition 9"]
)
def test_a_partition_that_does_not_exist(commands: Commands, capsys: pytest.CaptureFixture[str], command: str) -> None:
    everything = (commands.source, f"{commands.source}.checkpoints", commands.dead_letter, *commands.outcomes.values())
    create_topics(commands.bootstrap, *everything)
    code, seconds = commands.run(command)
    said = capsys.readouterr().err
    assert code == USAGE, said
    assert "--partition: " in said
    assert seconds < SOON_S


def test_without_a_broker_nothing_is_said_of_the_topic(commands: Commands, capsys: pytest.CaptureFixture[str]) -> None:
    commands.set("KAFKA__BOOTSTRAP_SERVERS", "127.0.0.1:1")
    for command in ("replay --to end", "dead-letters list", "publish {events}"):
        code, _ = commands.run(command)
        said = capsys.readouterr().err
        assert code == UNAVAILABLE, said
        assert "127.0.0.1:1: nothing listens there" in said
        assert "does not exist" not in said


async def test_a_topic_that_may_not_be_seen_is_refused_as_such(secure_broker: SecureBroker, names: Names) -> None:
    topic = names.topic("secret")
    create_topics(secure_broker.broker.bootstrap, topic)
    connection = Connection.build(
        secure_broker.broker.bootstrap_sasl_ssl,
        security_protocol="SASL_SSL",
        ssl_ca_file=str(secure_broker.authority),
        sasl_mechanism="SCRAM-SHA-512",
        sasl_username=USER,
        sasl_password=PASSWORD,
    )
    for asked in (topic, names.topic("nowhere")):  # the broker does not tell one from the other either
        with pytest.raises(PermissionMissing, match=f"topic {asked}: refused") as caught:
            async with PartitionReader(connection, topic=asked, client_id="r"):
                pass
        assert "the same of a topic that does not exist" in caught.value.hint


async def test_a_reader_with_patience_finds_a_topic_that_is_made_meanwhile(broker: Broker, names: Names) -> None:
    topic, connection = names.topic("late"), Connection.build(broker.bootstrap)
    with pytest.raises(TopicMissing):
        async with PartitionReader(connection, topic=topic, client_id="r", missing_after_s=0):
            pass
    patient = PartitionReader(connection, topic=topic, client_id="r", missing_after_s=20)
    starting = asyncio.create_task(patient.start())
    await asyncio.to_thread(create_topics, broker.bootstrap, topic, partitions=3)
    await starting
    assert patient.partitions_of_topic() == 3
    await patient.stop(1.0)


async def test_a_broker_that_goes_silent_is_no_missing_topic(names: Names, broker: Broker) -> None:
    """Its answer about the topic is never heard: what that says of the topic is nothing."""
    connection = Connection.build(broker.bootstrap, request_timeout_ms=1000)
    reader = PartitionReader(connection, topic=names.topic("x"), client_id="r")
    make = reader._make

    def deaf() -> object:
        consumer = make()

        async def nothing(*_: object) -> bool:
            return False

        consumer._client._metadata_update = nothing
        return consumer

    reader._make = deaf  # type: ignore[assignment]
    with pytest.raises(BrokerUnavailable, match="no broker says whether it exists"):
        await reader.start()
