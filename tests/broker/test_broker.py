"""The embedded broker is a real one, can be trusted with its parts, and leaves nothing behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin._acl import AclBinding, AclOperation, AclPermissionType
from confluent_kafka.admin._config import ConfigResource
from confluent_kafka.admin._resource import ResourcePatternType, ResourceType

from processor.broker import Broker, probe
from processor.broker.settings import Ports
from processor.errors import BrokerUnavailable, UsageError
from tests.broker.conftest import ADMIN, ADMIN_PASSWORD, PASSWORD, USER, SecureBroker
from tests.conftest import started_or_skipped
from tests.kafka_tools import Names, Sent, admin, committed, create_topics, produce, read_topic

DEADLINE_S = 180.0


def wait_until(holds: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not holds():
        assert time.monotonic() < deadline, f"not after {DEADLINE_S} s: {what}"
        threading.Event().wait(0.02)


def is_gone(pid: int) -> bool:
    """Whether the process ended; one that nobody reaped yet counts as ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except FileNotFoundError:
        return True


# --- it is a broker ---------------------------------------------------------------------------------------


def test_a_record_comes_back_as_it_was_sent(broker: Broker, names: Names) -> None:
    topic = names.topic("plain")
    create_topics(broker.bootstrap, topic, partitions=2)
    sent = Sent(b"value", key=b"key", headers=[("h", b"1"), ("none", None)], timestamp=1_700_000_000_123, partition=1)
    assert produce(broker.bootstrap, topic, [sent, Sent(None, partition=0)]) == [(1, 0), (0, 0)]
    tombstone, got = read_topic(broker.bootstrap, topic)
    assert (got.partition, got.offset, got.timestamp) == (1, 0, 1_700_000_000_123)
    assert (got.key, got.value, got.headers) == (b"key", b"value", (("h", b"1"), ("none", None)))
    assert tombstone.value is None


def test_a_topic_nobody_made_is_an_error(broker: Broker, names: Names) -> None:
    with pytest.raises(AssertionError, match="UNKNOWN_TOPIC"):
        read_topic(broker.bootstrap, names.topic("absent"))


def test_an_open_transaction_is_invisible_and_a_committed_one_is_not(broker: Broker, names: Names) -> None:
    topic = names.topic("transactions")
    create_topics(broker.bootstrap, topic)
    produce(broker.bootstrap, topic, [Sent(b"committed")], transactional_id=names.topic("one"))
    producer = Producer({"bootstrap.servers": broker.bootstrap, "transactional.id": names.topic("two")})
    producer.init_transactions(DEADLINE_S)
    producer.begin_transaction()
    producer.produce(topic, b"open")
    assert producer.flush(DEADLINE_S) == 0
    assert [got.value for got in read_topic(broker.bootstrap, topic)] == [b"committed"]
    assert len(read_topic(broker.bootstrap, topic, isolation="read_uncommitted")) == 2
    producer.abort_transaction(DEADLINE_S)
    assert [got.value for got in read_topic(broker.bootstrap, topic)] == [b"committed"]


def test_the_cluster_has_the_feature_levels_of_a_formatted_one(broker: Broker) -> None:
    """A directory formatted by hand starts, but its `transaction.version` is 0: no KIP-890."""
    metadata = broker.data_dir / "data" / "__cluster_metadata-0"
    assert any(b"transaction.version" in path.read_bytes() for path in metadata.glob("*.checkpoint"))


# --- ending and starting again ------------------------------------------------------------------------------


def test_records_survive_a_kill_and_a_restart(names: Names) -> None:
    topic = names.topic("kept")
    with started_or_skipped() as own:
        create_topics(own.bootstrap, topic)
        produce(own.bootstrap, topic, [Sent(b"before")])
        address, first = own.bootstrap, own.pid
        own.kill()
        assert not own.is_alive()
        own.restart()
        assert own.bootstrap == address
        assert own.pid != first
        produce(own.bootstrap, topic, [Sent(b"after")])
        assert [got.value for got in read_topic(own.bootstrap, topic)] == [b"before", b"after"]


def test_a_given_directory_outlives_its_broker(tmp_path: Path, names: Names) -> None:
    topic = names.topic("kept")
    with started_or_skipped(data_dir=tmp_path / "data") as first:
        create_topics(first.bootstrap, topic)
        produce(first.bootstrap, topic, [Sent(b"kept")])
    with started_or_skipped(data_dir=tmp_path / "data") as second:
        assert [got.value for got in read_topic(second.bootstrap, topic)] == [b"kept"]


def test_stop_leaves_no_process_and_no_directory() -> None:
    own = started_or_skipped()
    pid, watchdog = own.pid, own._watchdog
    assert watchdog is not None
    assert own.cpu_seconds() > 0
    own.stop()
    assert is_gone(pid)
    assert watchdog.poll() is not None
    assert not own.data_dir.exists()
    own.stop()
    with pytest.raises(BrokerUnavailable, match="not running"):
        own.kill()


@pytest.mark.usefixtures("broker")  # skips where the parts are missing
def test_the_broker_dies_with_the_process_that_started_it() -> None:
    script = "from processor.broker import Broker; b = Broker.start(); print(b.pid, b.data_dir, flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pid, home = parent.stdout.readline().decode().split()
        assert not is_gone(int(pid))
        parent.kill()
    wait_until(lambda: is_gone(int(pid)), f"broker {pid} gone with its parent")
    wait_until(lambda: not Path(home).exists(), f"{home} removed")


def test_a_broker_started_from_a_thread_outlives_the_thread() -> None:
    with ThreadPoolExecutor(1) as pool:
        own = pool.submit(started_or_skipped).result()
    with own:
        assert admin(own.bootstrap).list_topics(timeout=DEADLINE_S).brokers
        assert own.is_alive()


def test_a_broker_that_dies_at_its_start_says_why() -> None:
    with pytest.raises(BrokerUnavailable, match=r"(?s)ended while starting.*log\.retention\.bytes"):
        started_or_skipped(settings={"log.retention.bytes": "plenty"})


@pytest.mark.parametrize("name", ["node.id", "log.dirs"])
def test_what_the_broker_chooses_itself_cannot_be_set(name: str) -> None:
    with pytest.raises(UsageError, match=name):
        started_or_skipped(settings={name: "2"})


def test_a_taken_port_is_named(broker: Broker) -> None:
    port = int(broker.bootstrap.rpartition(":")[2])
    with pytest.raises(UsageError, match=f"127.0.0.1:{port}: the port is taken"):
        started_or_skipped(port=port)


def test_a_port_lost_in_a_race_is_chosen_again(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = int(broker.bootstrap.rpartition(":")[2])
    real, calls = probe.choose_ports, []

    def first_time_taken(plain: int | None) -> Ports:
        calls.append(plain)
        ports = real(plain)
        return Ports(taken, ports.controller, ports.ssl, ports.sasl_ssl) if len(calls) == 1 else ports

    monkeypatch.setattr(probe, "choose_ports", first_time_taken)
    with started_or_skipped() as own:
        assert own.bootstrap != broker.bootstrap
    assert len(calls) == 2


def test_two_starts_at_once_do_not_meet(names: Names) -> None:
    with ThreadPoolExecutor(2) as pool:
        first, second = (started.result() for started in [pool.submit(started_or_skipped) for _ in range(2)])
    with first, second:
        assert first.bootstrap != second.bootstrap
        assert admin(first.bootstrap).list_topics().cluster_id != admin(second.bootstrap).list_topics().cluster_id


def test_committed_offsets_are_read_back(broker: Broker, names: Names) -> None:
    topic = names.topic("offsets")
    create_topics(broker.bootstrap, topic, partitions=2)
    consumer = Consumer({"bootstrap.servers": broker.bootstrap, "group.id": names.group})
    try:
        consumer.commit(offsets=[TopicPartition(topic, 1, 7, "m")], asynchronous=False)
    finally:
        consumer.close()
    assert committed(broker.bootstrap, names.group, topic) == {1: (7, "m")}


SERVE = """
import sys
from functools import partial
from pathlib import Path
from processor.broker import serve
sys.exit(serve(None, Path(sys.argv[1]), partial(print, flush=True)))
"""


@pytest.mark.usefixtures("broker")
def test_what_is_tried_by_hand_keeps_simulated_records(tmp_path: Path) -> None:
    """`run-steps broker` is for trials: its topics keep records of any age; what is ahead is refused as by default."""
    with subprocess.Popen([sys.executable, "-c", SERVE, str(tmp_path)], stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        bootstrap = next(re.findall(r"serves on (\S+)", line)[0] for line in running.stdout if "serves on" in line)
        try:
            create_topics(bootstrap, "kept")
            resource, client = ConfigResource(ResourceType.TOPIC, "kept"), admin(bootstrap)
            found = client.describe_configs([resource])[resource].result(DEADLINE_S)
        finally:
            running.send_signal(signal.SIGTERM)
        assert running.wait(DEADLINE_S) == 0
    assert found["retention.ms"].value == "-1"
    assert int(found["message.timestamp.after.max.ms"].value) == 3_600_000


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.usefixtures("broker")
def test_serve_runs_until_a_signal(number: signal.Signals, tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", SERVE, str(tmp_path / "data")], stdout=subprocess.PIPE, text=True
    ) as running:
        assert running.stdout is not None
        assert any("serves on 127.0.0.1:" in line for line in running.stdout)
        running.send_signal(number)
        assert running.wait(DEADLINE_S) == 0
    assert (tmp_path / "data" / "data" / "meta.properties").exists()


@pytest.mark.usefixtures("broker")
def test_serve_tells_when_the_broker_ends_by_itself(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", SERVE, str(tmp_path)], stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        assert any("serves on 127.0.0.1:" in line for line in running.stdout)
        os.kill(_child_java(running.pid), signal.SIGKILL)
        assert "ended by itself" in running.stdout.read()
        assert running.wait(DEADLINE_S) == 75


def _child_java(parent: int) -> int:
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    (java,) = [int(pid) for pid in children if Path(f"/proc/{pid}/comm").read_text().strip() == "java"]
    return java


# --- guarded listeners --------------------------------------------------------------------------------------


def _tls(secure: SecureBroker, **more: str) -> dict[str, str]:
    return {"security_protocol": "SSL", "ssl_ca_location": str(secure.authority), **more}


def _sasl(secure: SecureBroker, mechanism: str, user: str, password: str) -> dict[str, str]:
    return _tls(secure) | {
        "security_protocol": "SASL_SSL",
        "sasl_mechanism": mechanism,
        "sasl_username": user,
        "sasl_password": password,
    }


def _allow(secure: SecureBroker, topic: str, principal: str) -> None:
    binding = AclBinding(
        ResourceType.TOPIC,
        topic,
        ResourcePatternType.LITERAL,
        f"User:{principal}",
        "*",
        AclOperation.ALL,
        AclPermissionType.ALLOW,
    )
    client = admin(secure.broker.bootstrap)
    for future in client.create_acls([binding]).values():
        future.result(DEADLINE_S)


def _first_error(bootstrap: str, settings: dict[str, str]) -> str:
    """The client's own first words about a connection that does not come about."""
    heard: list[str] = []
    client = admin(bootstrap, error_cb=lambda error: heard.append(error.str()), **settings)
    wait_until(lambda: client.poll(0.05) >= 0 and bool(heard), "the client says what is wrong")
    return heard[0]


def test_a_known_certificate_is_let_in_and_acls_hold_it(secure_broker: SecureBroker, names: Names) -> None:
    mine, other = names.topic("mine"), names.topic("other")
    create_topics(secure_broker.broker.bootstrap, mine, other)
    _allow(secure_broker, mine, secure_broker.app.name)
    identity = _tls(
        secure_broker,
        ssl_certificate_location=str(secure_broker.app.certificate),
        ssl_key_location=str(secure_broker.app.key),
    )
    produce(secure_broker.broker.bootstrap_ssl, mine, [Sent(b"in")], **identity)
    with pytest.raises(AssertionError, match="TOPIC_AUTHORIZATION_FAILED"):
        produce(secure_broker.broker.bootstrap_ssl, other, [Sent(b"out")], **identity)


@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-512", "PLAIN"])
def test_a_known_user_is_let_in_and_acls_hold_it(secure_broker: SecureBroker, names: Names, mechanism: str) -> None:
    topic = names.topic("guarded")
    create_topics(secure_broker.broker.bootstrap, topic)
    address = secure_broker.broker.bootstrap_sasl_ssl
    produce(address, topic, [Sent(b"admin")], **_sasl(secure_broker, mechanism, ADMIN, ADMIN_PASSWORD))
    user = _sasl(secure_broker, mechanism, USER, PASSWORD)
    with pytest.raises(AssertionError, match="TOPIC_AUTHORIZATION_FAILED"):
        produce(address, topic, [Sent(b"user")], **user)


@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-512", "PLAIN"])
def test_a_wrong_password_is_refused(secure_broker: SecureBroker, mechanism: str) -> None:
    error = _first_error(secure_broker.broker.bootstrap_sasl_ssl, _sasl(secure_broker, mechanism, USER, "wrong-pw"))
    assert "uthentication failed" in error


def test_no_certificate_is_refused(secure_broker: SecureBroker) -> None:
    assert "certificate" in _first_error(secure_broker.broker.bootstrap_ssl, _tls(secure_broker))


def test_a_certificate_of_another_authority_is_refused(secure_broker: SecureBroker) -> None:
    stranger = _tls(
        secure_broker,
        ssl_certificate_location=str(secure_broker.stranger.certificate),
        ssl_key_location=str(secure_broker.stranger.key),
    )
    assert "certificate" in _first_error(secure_broker.broker.bootstrap_ssl, stranger)


def test_a_client_that_trusts_another_authority_stays_out(secure_broker: SecureBroker) -> None:
    settings = _tls(secure_broker) | {"ssl_ca_location": str(secure_broker.other_authority)}
    assert "verify failed" in _first_error(secure_broker.broker.bootstrap_ssl, settings)
