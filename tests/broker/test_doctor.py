"""`run-steps doctor` against a real broker: a cluster in order, and one with planted faults, all named at once."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin._acl import AclBinding, AclOperation, AclPermissionType
from confluent_kafka.admin._resource import ResourcePatternType, ResourceType

from processor.broker import Broker
from processor.cli.main import _run
from processor.config.loading import load
from processor.kafka.client_config import Connection
from processor.serve.topics import check_or_create_topics
from tests.broker.conftest import PASSWORD, USER, SecureBroker
from tests.faults.service import Stage, created, ended, toml
from tests.kafka_tools import Names, Sent, admin, create_topics, produce, revoke_all

DEADLINE_S = 180.0
MINUTE_MS = 60_000


def doctor(stage: Stage, changes: Any = None, *options: str) -> tuple[int, list[dict[str, str]]]:
    config = stage.home / "doctor.toml"
    config.write_text(toml(stage.tables(changes)))
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = _run(["doctor", "--json", "--config", str(config), *options])
    assert out.getvalue(), err.getvalue()
    return code, json.loads(out.getvalue())["findings"]


def told(findings: list[dict[str, str]], light: str) -> list[str]:
    return [
        f"{one['area']}: {one['subject']}: {one['what']} [{one['remedy']}]" for one in findings if one["light"] == light
    ]


def test_a_cluster_in_order_has_no_red_light(broker: Broker, names: Names, tmp_path: Path) -> None:
    """Topics as --create-topics makes them, before the first start and after a worker has published."""
    stage = Stage(broker.bootstrap, names, tmp_path, make=False)
    config = stage.home / "config.toml"
    config.write_text(toml(stage.tables()))
    settings = load(config, {})
    connection = Connection.build(**settings.kafka.connection())
    asyncio.run(check_or_create_topics(settings, connection, create=True))
    code, findings = doctor(stage)
    assert (code, told(findings, "red")) == (0, [])
    with stage.serve() as service:
        service.until_live()
        stage.say(created("step_1"), ended("step_1"), partition=None)
        service.until("published", lambda: stage.published("completed"))
        code, findings = doctor(stage)
        assert (code, told(findings, "red")) == (0, [])
        assert not [line for line in told(findings, "yellow") if line.startswith("group:")]
        greens = "\n".join(told(findings, "green"))
        assert f"Stable; members: {stage.group}." in greens, greens
        assert "2 runs and steps sampled, each on one partition" in greens
        assert "as here" in greens
        assert service.terminate() == 0
        lines = [json.loads(line) for line in service.tail(10_000).splitlines() if line.startswith("{")]
    assert not [line for line in lines if line["level"] in ("warning", "error", "critical")], "a first start is normal"
    (rules,) = told(doctor(stage, {"steps": {"grace_s": 7}})[1], "yellow")[-1:]
    assert "the newest are of other rules" in rules


@pytest.fixture
def acls(secure_broker: SecureBroker) -> Iterator[list[AclBinding]]:
    """What is granted to the user: fill it in; taken away afterwards."""
    client = admin(secure_broker.broker.bootstrap)
    granted: list[AclBinding] = []
    yield granted
    revoke_all(client, f"User:{USER}")


def grant(client: Any, topic: str, *operations: str) -> None:
    bindings = [
        AclBinding(
            ResourceType.TOPIC,
            topic,
            ResourcePatternType.LITERAL,
            f"User:{USER}",
            "*",
            AclOperation[operation],
            AclPermissionType.ALLOW,
        )
        for operation in operations
    ]
    for future in client.create_acls(bindings).values():
        future.result(DEADLINE_S)


def closed_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def plant(stage: Stage) -> Producer:
    """Topics with a fault each; returns the producer that holds a transaction open."""
    make, out = stage.bootstrap, stage.outcomes
    create_topics(make, stage.source, partitions=2, config={"retention.ms": "3600000"})
    create_topics(make, out["completed"], config={"min.insync.replicas": "2", "max.message.bytes": "2000000"})
    create_topics(make, out["cancelled"], config={"message.timestamp.type": "LogAppendTime"})
    create_topics(make, out["expired"], config={"max.message.bytes": "2000000"})
    create_topics(make, stage.dead_letter, config={"max.message.bytes": "500000"})
    create_topics(make, stage.checkpoints, config={"cleanup.policy": "delete", "max.message.bytes": "80000000"})
    now = int(time.time() * 1000)
    split = [Sent(created("step_split"), b"a", timestamp=now, partition=partition) for partition in (0, 1)]
    produce(make, stage.source, [*split, Sent(ended("step_late"), b"b", timestamp=now + 30 * MINUTE_MS, partition=1)])
    holder = Producer(
        {
            "bootstrap.servers": make,
            "transactional.id": stage.group,
            "transaction.timeout.ms": 600_000,
            "log_level": 2,
        }
    )
    holder.init_transactions(DEADLINE_S)
    holder.begin_transaction()
    holder.produce(stage.source, b"x", partition=0, timestamp=now - 20 * MINUTE_MS)
    assert holder.flush(DEADLINE_S) == 0
    return holder


def test_planted_faults_are_all_named_with_their_remedy(
    secure_broker: SecureBroker, acls: list[AclBinding], names: Names, tmp_path: Path
) -> None:
    """In one run, as a user that lacks permissions of three kinds."""
    stage = Stage(secure_broker.broker.bootstrap, names, tmp_path, make=False)
    holder = plant(stage)
    client = admin(stage.bootstrap)
    dead = closed_port()
    for topic in (stage.source, stage.dead_letter, stage.checkpoints, stage.outcomes["failed"]):
        grant(client, topic, "READ", "WRITE", "DESCRIBE_CONFIGS")
    for status in ("completed", "cancelled", "expired"):
        grant(client, stage.outcomes[status], "READ", "DESCRIBE_CONFIGS", *(["WRITE"] if status != "expired" else []))
    kafka = {
        "bootstrap_servers": f"{secure_broker.broker.bootstrap_sasl_ssl},127.0.0.1:{dead}",
        "security_protocol": "SASL_SSL",
        "ssl_ca_file": str(secure_broker.authority),
        "sasl_mechanism": "SCRAM-SHA-512",
        "sasl_username": USER,
        "sasl_password": PASSWORD,
    }
    code, findings = doctor(stage, {"kafka": kafka})
    assert code == 1
    found = told(findings, "red")
    acl = f"kafka-acls.sh --bootstrap-server {kafka['bootstrap_servers']} --add --allow-principal 'User:{USER}' "
    out = stage.outcomes
    planted = [
        (f"127.0.0.1:{dead}", "nothing listens there", "check the port"),
        (f"topic {out['failed']}", "missing", "create it"),
        (f"topic {stage.checkpoints}", "must be compacted", "set cleanup.policy=compact"),
        (f"topic {stage.checkpoints}", "fewer partitions than", "add 1"),
        (f"topic {stage.dead_letter}", "max.message.bytes is too small", "set at least"),
        (f"topic {out['cancelled']}", "LogAppendTime", "set message.timestamp.type=CreateTime"),
        (f"topic {out['completed']}", "min.insync.replicas is 2", "set min.insync.replicas=1"),
        (f"topic {stage.source}", "shorter than the longest stop", "set retention.ms above 86400000"),
        (f"topic {out['expired']}", "may not WRITE it", f"{acl}--operation Write --topic '{out['expired']}'"),
        (f"group {stage.group}", "may not READ it", f"{acl}--operation Read --group '{stage.group}'"),
        (
            f"transactional id {stage.group}.",
            "may not WRITE it",
            f"{acl}--operation Write --transactional-id '{stage.group}.' --resource-pattern-type prefixed",
        ),
        (f"topic {stage.source} partition 0", "holds a transaction open from offset 1", "--start-offset 1"),
        (f"topic {stage.source}", "run run_1: 0, 1", "key every event by its run id"),
        (f"topic {stage.source}", "s ahead of this machine's clock", "NTP"),
    ]
    unnamed = [one for one in planted if not any(all(part in line for part in one) for line in found)]
    assert not unnamed, "\n".join(found)
    assert len(found) == len(planted) + 1, "\n".join(found)
    assert told(findings, "green"), "the address that answers"
    holder.abort_transaction(DEADLINE_S)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"sasl_password": "wrong"}, "authentication failed"),
        ({"ssl_ca_file": "other"}, "its certificate is not trusted"),
    ],
)
def test_what_keeps_us_out_is_named(
    secure_broker: SecureBroker, names: Names, tmp_path: Path, change: dict[str, str], what: str
) -> None:
    stage = Stage(secure_broker.broker.bootstrap, names, tmp_path, make=False)
    if "ssl_ca_file" in change:
        change = {"ssl_ca_file": str(secure_broker.other_authority)}
    kafka = {
        "bootstrap_servers": secure_broker.broker.bootstrap_sasl_ssl,
        "security_protocol": "SASL_SSL",
        "ssl_ca_file": str(secure_broker.authority),
        "sasl_mechanism": "SCRAM-SHA-512",
        "sasl_username": USER,
        "sasl_password": PASSWORD,
    }
    code, findings = doctor(stage, {"kafka": kafka | change})
    assert code == 1
    (line,) = told(findings, "red")
    assert what in line
