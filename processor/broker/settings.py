"""server.properties of the node, from a few options."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from processor.errors import UsageError

HOST: Final = "127.0.0.1"
"""The node is for this machine alone; nothing makes it listen elsewhere."""

_ALWAYS: Final[Mapping[str, str]] = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "auto.create.topics.enable": "false",
    "offsets.topic.replication.factor": "1",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "1000",
    # One node is its own quorum and its own controller: there is no other timing to wait for.
    "controller.quorum.election.timeout.ms": "200",
    "controller.quorum.election.backoff.max.ms": "200",
    "broker.heartbeat.interval.ms": "500",
    # A killed node may register again only when its last session has run out (default: 9 s).
    "broker.session.timeout.ms": "3000",
    "initial.broker.registration.timeout.ms": "10000",
}

_LIGHT: Final[Mapping[str, str]] = {
    "offsets.topic.num.partitions": "1",
    "transaction.state.log.num.partitions": "1",
    "share.coordinator.state.topic.num.partitions": "1",
    "offsets.topic.segment.bytes": "1048576",
    "transaction.state.log.segment.bytes": "1048576",
    "log.cleaner.dedupe.buffer.size": "2097152",
    "log.cleaner.threads": "1",
    "log.index.size.max.bytes": "1048576",
    "num.network.threads": "1",
    "num.io.threads": "2",
    "num.recovery.threads.per.data.dir": "1",
    "num.replica.fetchers": "1",
    "background.threads": "2",
    "group.coordinator.append.linger.ms": "0",
}

_FIXED: Final = frozenset({"process.roles", "node.id", "log.dirs", "listeners", "controller.quorum.voters"})
"""Settings on which the rest of this package relies."""


@dataclass(frozen=True, slots=True)
class Security:
    """Two more listeners for the node: TLS, and SASL over TLS; and ACLs.

    Everyone on the plain loopback listener is a super user: through it, tests set up topics and ACLs. This guards
    nothing of worth: it is there to try clients against, and the passwords pass over a command line.

    Args:
        certificate: PEM file of the broker: its private key (PKCS 8, unencrypted), then its chain.
        authority: PEM file of the certificate authority that clients are checked against.
        client_certificate: whether the TLS listener demands one. The client's name is its CN.
        users: name -> password, good for SCRAM-SHA-512 and for PLAIN.
        super_users: names that no ACL restrains.
    """

    certificate: Path
    authority: Path
    client_certificate: Literal["none", "requested", "required"] = "required"
    users: Mapping[str, str] = field(default_factory=dict)
    super_users: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Ports:
    plain: int
    controller: int
    ssl: int
    sasl_ssl: int


@dataclass(frozen=True, slots=True)
class Options:
    ports: Ports
    settings: Mapping[str, str]
    heap_mb: int
    is_light: bool
    security: Security | None
    is_temporary: bool


def properties(options: Options, data: Path) -> dict[str, str]:
    """The node's whole server.properties; what the caller set comes last and wins.

    Raises:
        UsageError: the caller set what is not his to set.
    """
    if taken := sorted(_FIXED & options.settings.keys()):
        raise UsageError(f"broker: settings: {', '.join(taken)}: the embedded broker chooses this itself")
    ports = options.ports
    listeners = {"PLAINTEXT": ports.plain}
    if options.security is not None:
        listeners |= {"SSL": ports.ssl, "SASL_SSL": ports.sasl_ssl}
    addresses = [f"{name}://{HOST}:{port}" for name, port in listeners.items()]
    return {
        **_ALWAYS,
        **(_LIGHT if options.is_light else {}),
        "log.dirs": data.as_posix(),
        "controller.quorum.voters": f"1@{HOST}:{ports.controller}",
        "listeners": ",".join([*addresses, f"CONTROLLER://{HOST}:{ports.controller}"]),
        "advertised.listeners": ",".join(addresses),
        "inter.broker.listener.name": "PLAINTEXT",
        "listener.security.protocol.map": ",".join([*(f"{name}:{name}" for name in listeners), "CONTROLLER:PLAINTEXT"]),
        **(_security_properties(options.security) if options.security else {}),
        **options.settings,
    }


def _security_properties(security: Security) -> dict[str, str]:
    plain_users = " ".join(f'user_{name}="{password}"' for name, password in security.users.items())
    login = "org.apache.kafka.common.security"
    return {
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": security.certificate.absolute().as_posix(),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": security.authority.absolute().as_posix(),
        "listener.name.ssl.ssl.client.auth": security.client_certificate,
        "ssl.principal.mapping.rules": "RULE:^.*CN=([^,]+).*$/$1/,DEFAULT",
        "sasl.enabled.mechanisms": "SCRAM-SHA-512,PLAIN",
        "listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config": f"{login}.scram.ScramLoginModule required;",
        "listener.name.sasl_ssl.plain.sasl.jaas.config": f"{login}.plain.PlainLoginModule required {plain_users};",
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "allow.everyone.if.no.acl.found": "false",
        "super.users": ";".join(f"User:{name}" for name in ("ANONYMOUS", *security.super_users)),
    }
