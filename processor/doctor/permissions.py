"""Permissions that a worker needs, each compared with what the broker says that this principal may do."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

from processor.doctor.findings import Finding, Light
from processor.doctor.subject import Subject, outcomes_of

if TYPE_CHECKING:
    from processor.config.settings import Settings

AREA = "permissions"


class Need(NamedTuple):
    """One operation that a worker needs. `pattern`: `literal` or `prefixed`, as in an ACL."""

    resource: str
    name: str
    pattern: str
    operation: str


def needed(settings: Settings) -> list[Need]:
    """The least permissions of a worker with these settings: the table of docs/operations.md."""
    source, checkpoints = settings.source.topic, settings.checkpoint_topic
    writes = sorted({*outcomes_of(settings), settings.output.dead_letter})
    needs = [
        *(Need("topic", source, "literal", operation) for operation in ("READ", "DESCRIBE_CONFIGS")),
        *(Need("topic", name, "literal", operation) for name in writes for operation in ("WRITE", "DESCRIBE_CONFIGS")),
        *(Need("topic", checkpoints, "literal", operation) for operation in ("READ", "WRITE", "DESCRIBE_CONFIGS")),
        Need("group", settings.source.group_id, "literal", "READ"),
    ]
    if settings.delivery.mode == "exactly_once":
        needs.append(Need("transactional_id", f"{settings.transactional_id_prefix}.", "prefixed", "WRITE"))
    if settings.self_audit.enabled:
        needs += [Need("topic", name, "literal", "READ") for name in sorted(outcomes_of(settings))]
    return needs


class _Credentials(Protocol):
    """Fields that `[kafka]` and a `Connection` both have."""

    @property
    def security_protocol(self) -> str: ...
    @property
    def sasl_username(self) -> str | None: ...


def principal_of(connection: _Credentials) -> str:
    """The principal as ACLs name it, as far as a client can know: the broker may map the name to another."""
    if connection.security_protocol == "PLAINTEXT":
        return "User:ANONYMOUS"
    if connection.sasl_username and connection.security_protocol.startswith("SASL"):
        return f"User:{connection.sasl_username}"
    kind = "token" if connection.security_protocol.startswith("SASL") else "client certificate"
    return f"User:<subject of the {kind}>"


async def check_permissions(subject: Subject) -> list[Finding]:
    """Every operation that is missing, each with the command that grants it."""
    settings, inspector = subject.settings, subject.inspector
    group = await inspector.group(settings.source.group_id)
    probe = f"{settings.transactional_id_prefix}.doctor"
    findings: list[Finding] = []
    unknown: set[str] = set()
    for need in needed(settings):
        if need.resource == "topic":
            view = subject.cluster.topics[need.name]
            if not view.exists and not view.is_forbidden:
                continue  # missing: the check of the topics says so
            allowed = frozenset[str]() if view.is_forbidden else view.operations
        elif need.resource == "group":
            allowed = group.operations
        else:
            allowed = frozenset({"WRITE"} if await inspector.may_write_transactional_id(probe) else ())
        if allowed is None:
            unknown.add(f"{need.resource} {need.name}")
        elif need.operation not in allowed:
            findings.append(_missing(need, subject))
    findings += [
        Finding(
            AREA,
            Light.YELLOW,
            name,
            "the broker does not say what this principal may do",
            "compare with the table of docs/operations.md",
        )
        for name in sorted(unknown)
    ]
    if not findings:
        findings.append(
            Finding(
                AREA,
                Light.GREEN,
                principal_of(subject.connection),
                f"has all {len(needed(settings))} operations that a worker needs",
            )
        )
    return findings


def _missing(need: Need, subject: Subject) -> Finding:
    principal = principal_of(subject.connection)
    resource = need.resource.replace("_", "-")
    pattern = " --resource-pattern-type prefixed" if need.pattern == "prefixed" else ""
    kind = need.resource.replace("_", " ")
    operation = "".join(word.capitalize() for word in need.operation.split("_"))
    return Finding(
        AREA,
        Light.RED,
        f"{kind} {need.name}",
        f"{principal} may not {need.operation} it",
        f"kafka-acls.sh --bootstrap-server {subject.bootstrap} --add --allow-principal '{principal}' "
        f"--operation {operation} --{resource} '{need.name}'{pattern} (table: docs/operations.md, Permissions)",
    )
