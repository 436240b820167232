"""What a worker is refused, and refuses, at its start: one line that names it, the remedy, the exit code, soon.

All through `run-steps serve` as a process, TLS, SASL and ACLs against a broker that has them.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import sys
import threading
import time
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Final

import pytest
from confluent_kafka.admin._acl import AclBinding, AclBindingFilter, AclOperation, AclPermissionType
from confluent_kafka.admin._resource import ResourcePatternType, ResourceType

from processor.broker import Broker
from tests.broker.conftest import PASSWORD, USER, SecureBroker
from tests.faults.service import Service, Stage, Tables, created, ended
from tests.kafka_tools import DEADLINE_S, Names, admin, create_topics

SOON_S = 45.0
"""A start that cannot be takes no longer, the start of Python on a busy machine included."""

CONFIG, REFUSED, UNAVAILABLE = 78, 77, 75


def refused(service: Service, code: int) -> str:
    """Its last word; it has ended by itself, soon, with that code, and told nobody a traceback."""
    began = time.monotonic()
    with service:
        assert service.ended(SOON_S) == code, service.tail()
        assert time.monotonic() - began < SOON_S
        said = service.said()
        assert not service.logged("worker_restarted")
    assert said.startswith("run-steps: ")
    assert "hint:" in said
    assert "Traceback" not in service.tail(1000)
    return said


# --- settings -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "names_it"),
    [
        ({"source": {"topik": "x"}}, ("source.topik", "did you mean topic?")),
        ({"delivery": {"commit_interval_ms": "100ms"}}, ("delivery.commit_interval_ms", "expected")),
        ({"kafka": {"ssl_ca_file": "/nowhere/ca.pem", "security_protocol": "SSL"}}, ("/nowhere/ca.pem", "ssl_ca_file")),
        ({"kafka": {"bootstrap_servers": "localhost"}}, ("kafka.bootstrap_servers", "host:port")),
    ],
    ids=["unknown key", "wrong type", "missing file", "no port"],
)
def test_wrong_settings(names: Names, tmp_path: Path, changes: Tables, names_it: tuple[str, ...]) -> None:
    stage = Stage("127.0.0.1:1", names, tmp_path, make=False)
    said = refused(stage.serve(changes), CONFIG)
    for part in names_it:
        assert part in said


def test_a_config_file_that_is_not_there(names: Names, tmp_path: Path) -> None:
    stage = Stage("127.0.0.1:1", names, tmp_path, make=False)
    with stage.serve() as service:
        service.send(9)
    (tmp_path / f"{names.prefix}-1.toml").unlink()
    command = [sys.executable, "-m", "processor", "serve", "--config", str(tmp_path / f"{names.prefix}-1.toml")]
    said = refused(Service(command, tmp_path, "again"), CONFIG)
    assert f"{names.prefix}-1.toml" in said


def test_a_port_that_is_taken(broker: Broker, names: Names, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = refused(Stage(broker.bootstrap, names, tmp_path, make=False).serve({"http": {"port": port}}), CONFIG)
    assert f"127.0.0.1:{port}" in said
    assert "[http]" in said


# --- topics ---------------------------------------------------------------------------------------------------------


def test_missing_topics_are_all_named(broker: Broker, names: Names, tmp_path: Path) -> None:
    stage = Stage(broker.bootstrap, names, tmp_path, make=False)
    said = refused(stage.serve(), CONFIG)
    for topic in (stage.source, stage.dead_letter, stage.checkpoints, *stage.outcomes.values()):
        assert f"topic {topic}: missing" in said
    assert "--create-topics" in said


@pytest.mark.parametrize("workers", [1, 2])
def test_a_missing_topic_with_any_number_of_workers(broker: Broker, names: Names, tmp_path: Path, workers: int) -> None:
    stage = Stage(broker.bootstrap, names, tmp_path)
    said = refused(stage.serve({"output": {"failed": "no-such-topic"}}, workers=workers), CONFIG)
    assert said.startswith("run-steps: topic no-such-topic: missing")


def test_checkpoint_topics_as_they_must_not_be(broker: Broker, names: Names, tmp_path: Path) -> None:
    """Too few partitions, and not compacted: both at once, a line each."""
    stage = Stage(broker.bootstrap, names, tmp_path, partitions=3)
    wrong = names.topic("wrong")
    create_topics(broker.bootstrap, wrong, partitions=1, config={"max.message.bytes": str(80 << 20)})
    said = refused(stage.serve({"checkpoints": {"topic": wrong}}), CONFIG)
    assert f"topic {wrong}: must be compacted and nothing else (got delete); set cleanup.policy=compact" in said
    assert f"topic {wrong}: fewer partitions than {stage.source} (got 1); add 2" in said


def test_topics_that_are_made(broker: Broker, names: Names, tmp_path: Path) -> None:
    """What --create-topics makes is what the next start is content with."""
    stage = Stage(broker.bootstrap, names, tmp_path, make=False)
    with stage.serve(create_topics=True) as service:
        assert service.until_live().terminate() == 0
    with stage.serve() as service:
        assert service.until_live().terminate() == 0


# --- a broker without -----------------------------------------------------------------------------------------------

API_VERSIONS: Final = 18
TXN_OFFSET_COMMIT: Final = 28
TRANSACTIONS: Final = (22, 24, 25, 26, TXN_OFFSET_COMMIT)
"""InitProducerId, AddPartitionsToTxn, AddOffsetsToTxn, EndTxn, TxnOffsetCommit."""


class Older:
    """A real broker, seen through a proxy that keeps silent about some of what it can do.

    It takes the versions above `most` (a version below 0: all of them) out of every answer to ApiVersions, and its own
    port stands for the broker's in every other answer, so that nobody finds the way round it.
    """

    def __init__(self, broker: Broker, most: Mapping[int, int]) -> None:
        host, port = broker.bootstrap.split(":")
        self._to = (host, int(port))
        self._most = most
        self._server = socket.create_server(("127.0.0.1", 0))
        self.bootstrap = f"127.0.0.1:{self._server.getsockname()[1]}"
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        for sock in (self._server, *self._open):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                ours, _ = self._server.accept()
                theirs = socket.create_connection(self._to)
                self._open += [ours, theirs]
                asked: dict[int, tuple[int, int]] = {}
                for pump, source, sink in ((self._requests, ours, theirs), (self._answers, theirs, ours)):
                    threading.Thread(target=pump, args=(source, sink, asked), daemon=True).start()

    def _requests(self, source: socket.socket, sink: socket.socket, asked: dict[int, tuple[int, int]]) -> None:
        for frame in frames(source):
            key, version, correlation = struct.unpack_from(">hhi", frame)
            asked[correlation] = (key, version)
            with contextlib.suppress(OSError):
                sink.sendall(struct.pack(">i", len(frame)) + frame)

    def _answers(self, source: socket.socket, sink: socket.socket, asked: dict[int, tuple[int, int]]) -> None:
        for frame in frames(source):
            (correlation,) = struct.unpack_from(">i", frame)
            if asked.pop(correlation, None) == (API_VERSIONS, 0):
                frame = self._fewer(frame)
            else:
                frame = frame.replace(self._address(*self._to), self._address(*self._server.getsockname()[:2]))
            with contextlib.suppress(OSError):
                sink.sendall(struct.pack(">i", len(frame)) + frame)

    def _fewer(self, frame: bytes) -> bytes:
        """ApiVersions v0: correlation, error, and an array of (key, lowest, highest)."""
        head, rows = frame[:6], list(struct.iter_unpack(">hhh", frame[10:]))
        rows = [(key, low, min(high, self._most.get(key, high))) for key, low, high in rows]
        rows = [row for row in rows if row[1] <= row[2]]
        return head + struct.pack(">i", len(rows)) + b"".join(struct.pack(">hhh", *row) for row in rows)

    def _address(self, host: str, port: int) -> bytes:
        return struct.pack(f">h{len(host)}si", len(host), host.encode(), port)


def frames(sock: socket.socket) -> Iterator[bytes]:
    with contextlib.suppress(OSError), sock.makefile("rb") as stream:
        while len(size := stream.read(4)) == 4:
            yield stream.read(*struct.unpack(">i", size))


@pytest.mark.parametrize(
    "most", [dict.fromkeys(TRANSACTIONS, -1), {TXN_OFFSET_COMMIT: 2}], ids=["no transactions", "Kafka 2.4"]
)
def test_a_broker_that_cannot_do_it_exactly_once(
    broker: Broker, names: Names, tmp_path: Path, most: Mapping[int, int]
) -> None:
    """Never a silent downgrade; and the mode it can do is named."""
    Stage(broker.bootstrap, names, tmp_path)
    older = Older(broker, most)
    try:
        said = refused(Stage(older.bootstrap, names, tmp_path, make=False).serve(), REFUSED)
    finally:
        older.close()
    assert "at_least_once" in said
    assert "2.5" in said


def test_a_broker_that_can_still_do_it_at_least_once(broker: Broker, names: Names, tmp_path: Path) -> None:
    Stage(broker.bootstrap, names, tmp_path)
    older = Older(broker, {TXN_OFFSET_COMMIT: 2})
    stage = Stage(older.bootstrap, names, tmp_path, make=False)
    try:
        with stage.serve({"delivery": {"mode": "at_least_once"}}) as service:
            service.until_live()
            assert service.terminate() == 0
    finally:
        older.close()


# --- who may --------------------------------------------------------------------------------------------------------


def by_password(secure: SecureBroker, **changes: object) -> dict[str, object]:
    return {
        "bootstrap_servers": secure.broker.bootstrap_sasl_ssl,
        "security_protocol": "SASL_SSL",
        "ssl_ca_file": str(secure.authority),
        "sasl_mechanism": "SCRAM-SHA-512",
        "sasl_username": USER,
        "sasl_password": PASSWORD,
        **changes,
    }


def by_certificate(secure: SecureBroker, **changes: object) -> dict[str, object]:
    return {
        "bootstrap_servers": secure.broker.bootstrap_ssl,
        "security_protocol": "SSL",
        "ssl_ca_file": str(secure.authority),
        "ssl_cert_file": str(secure.app.certificate),
        "ssl_key_file": str(secure.app.key),
        **changes,
    }


def test_a_wrong_password(secure_broker: SecureBroker, names: Names, tmp_path: Path) -> None:
    stage = Stage(secure_broker.broker.bootstrap, names, tmp_path, make=False)
    said = refused(stage.serve({"kafka": by_password(secure_broker, sasl_password="guessed")}), REFUSED)
    assert (
        f"broker {secure_broker.broker.bootstrap_sasl_ssl}: SASL SCRAM-SHA-512: authentication failed for app" in said
    )
    assert "sasl_password_file" in said
    assert "guessed" not in said


def test_a_missing_client_certificate(secure_broker: SecureBroker, names: Names, tmp_path: Path) -> None:
    stage = Stage(secure_broker.broker.bootstrap, names, tmp_path, make=False)
    kafka = by_certificate(secure_broker, ssl_cert_file="", ssl_key_file="")
    said = refused(stage.serve({"kafka": kafka}), REFUSED)
    assert secure_broker.broker.bootstrap_ssl in said
    assert "kafka.ssl_cert_file" in said


def test_an_untrusted_authority(secure_broker: SecureBroker, names: Names, tmp_path: Path) -> None:
    stage = Stage(secure_broker.broker.bootstrap, names, tmp_path, make=False)
    kafka = by_certificate(secure_broker, ssl_ca_file=str(secure_broker.other_authority))
    said = refused(stage.serve({"kafka": kafka}), REFUSED)
    assert "its certificate is not trusted" in said
    assert "kafka.ssl_ca_file" in said


OPERATIONS: Final = {
    "read": (ResourceType.TOPIC, AclOperation.READ),
    "write": (ResourceType.TOPIC, AclOperation.WRITE),
    "describe configs": (ResourceType.TOPIC, AclOperation.DESCRIBE_CONFIGS),
    "group": (ResourceType.GROUP, AclOperation.READ),
    "transactional id": (ResourceType.TRANSACTIONAL_ID, AclOperation.WRITE),
}


@contextlib.contextmanager
def granted(secure: SecureBroker, names: Names, without: Collection[str] = ()) -> Iterator[None]:
    """All that the documentation asks for, for the names of this test; but for these."""
    client = admin(secure.broker.bootstrap)
    granted = [
        AclBinding(
            kind, names.prefix, ResourcePatternType.PREFIXED, f"User:{USER}", "*", operation, AclPermissionType.ALLOW
        )
        for name, (kind, operation) in OPERATIONS.items()
        if name not in without
    ]
    for future in client.create_acls(granted).values():
        future.result(DEADLINE_S)
    try:
        yield
    finally:
        found = [
            AclBindingFilter(
                kind,
                names.prefix,
                ResourcePatternType.PREFIXED,
                f"User:{USER}",
                None,  # type: ignore[arg-type]  # the stub does not know that None is any
                AclOperation.ANY,
                AclPermissionType.ANY,
            )
            for kind in {kind for kind, _ in OPERATIONS.values()}
        ]
        for removal in client.delete_acls(found).values():
            removal.result(DEADLINE_S)


@pytest.mark.parametrize("how", [by_password, by_certificate], ids=["password", "certificate"])
def test_enough_is_enough(secure_broker: SecureBroker, names: Names, tmp_path: Path, how: object) -> None:
    """With what is documented a worker does its work; the refusals below are about what they take away."""
    stage = Stage(secure_broker.broker.bootstrap, names, tmp_path)
    assert callable(how)
    with granted(secure_broker, names), stage.serve({"kafka": how(secure_broker)}) as service:
        service.until_live()
        stage.say(created("step_1"), ended("step_1"))
        service.until("published", lambda: stage.published("completed"))
        assert service.terminate() == 0


@pytest.mark.parametrize(
    ("without", "names_it"),
    [
        ("transactional id", ("transactional id", "Write", 'mode = "at_least_once"')),
        ("group", ("group ", "Read")),
        ("describe configs", ("topic ", "DescribeConfigs")),
        ("read", ("topic", "Read")),
    ],
)
def test_a_permission_that_is_missing(
    secure_broker: SecureBroker, names: Names, tmp_path: Path, without: str, names_it: tuple[str, ...]
) -> None:
    stage = Stage(secure_broker.broker.bootstrap, names, tmp_path)
    with granted(secure_broker, names, without=[without]):
        said = refused(stage.serve({"kafka": by_password(secure_broker)}), REFUSED)
    assert names.prefix in said
    for part in names_it:
        assert part in said
    # The error, its hint, what this principal lacks of what a worker needs, and where all of it is told.
    assert [line.split(":")[0].strip() for line in said.splitlines()] == [
        "run-steps", "hint", "principal", "all that is missing",
    ], said  # fmt: skip


def test_an_output_that_may_not_be_written(secure_broker: SecureBroker, names: Names, tmp_path: Path) -> None:
    """Nobody can be asked for it beforehand: it shows with the first step that ends so, and stops the worker there."""
    stage = Stage(secure_broker.broker.bootstrap, names, tmp_path)
    with granted(secure_broker, names, without=["write"]):
        service = stage.serve({"kafka": by_password(secure_broker)})
        service.until_live()
        stage.say(created("step_1"), ended("step_1"))
        said = refused(service, REFUSED)
    assert "Write" in said
    assert stage.published() == []
    assert stage.committed().get(0, 0) < 2
