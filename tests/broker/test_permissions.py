"""The permissions that docs/operations.md asks for: enough all together, and not one too many."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from confluent_kafka.admin._acl import AclBinding, AclOperation, AclPermissionType
from confluent_kafka.admin._resource import ResourcePatternType, ResourceType

from processor.core.effects import LogRecord, Reason
from processor.core.headers import dead_letter_headers
from processor.publish.command import sample_files
from processor.publish.event_stream import EventStream
from tests.broker.conftest import PASSWORD, USER, SecureBroker
from tests.faults.worker_fleet import eventually
from tests.kafka_tools import Sent, admin, create_topics, produce, read_topic, revoke_all

DEADLINE_S = 180.0
PAGE = Path(__file__).parents[2] / "docs" / "operations.md"
SAMPLES = ("message", "run_cancelled", "run_expired", "run_failed")
"""One for each outcome."""
SOURCE, CHECKPOINTS = "run-step-events", "run-step-events.checkpoints"
STATUSES = ("completed", "failed", "cancelled", "expired")
PREFIX = "permissions"


class Grant(NamedTuple):
    resource: str
    name: str
    pattern: str
    operation: str


def grants() -> list[Grant]:
    """The table of the page, one operation each."""
    rows = re.findall(
        r"^\| (topic|group|transactional_id) \| `(\S+)` \| (\w+) \| ([A-Z_, ]+) \|$", PAGE.read_text(), re.M
    )
    return [Grant(kind, name, pattern, op) for kind, name, pattern, ops in rows for op in ops.split(", ")]


def named(name: str) -> str:
    return f"{PREFIX}.{name}"


@pytest.fixture(scope="module")
def guarded(secure_broker: SecureBroker) -> SecureBroker:
    """Topics as the defaults name them, under a prefix, with something in the source for each of them."""
    bootstrap = secure_broker.broker.bootstrap
    topics = {grant.name for grant in grants() if grant.resource == "topic"} - {SOURCE, CHECKPOINTS}
    create_topics(bootstrap, named(SOURCE))
    create_topics(bootstrap, *map(named, topics), config={"max.message.bytes": "2000000"})
    texts = [path.read_bytes() for path in sample_files() if path.name.partition(".")[0] in SAMPLES]
    left_open = next(text for text in texts if b"run.step.failed" in text).partition(b"event: thread.run.step.failed")[
        0
    ]
    texts.append(re.sub(rb"\b(run|step)_(\w)", rb"\1_open\2", left_open))
    records = [Sent(b"garbage", b"k")]
    for text in texts:
        stream = EventStream()
        records += [Sent(out.value, out.key, list(out.headers)) for out in (*stream.feed(text), *stream.finish())]
    produce(bootstrap, named(SOURCE), records)
    return secure_broker


@pytest.fixture
def serve(guarded: SecureBroker, tmp_path: Path) -> Iterator[Serve]:
    serving = Serve(guarded, tmp_path)
    yield serving
    serving.end()


class Serve:
    """`run-steps serve`, or another command, as a user that may do nothing but what is granted here."""

    def __init__(self, secure: SecureBroker, home: Path) -> None:
        self._secure, self._log = secure, home / "log"
        self._client = admin(secure.broker.bootstrap)
        self._group = f"{PREFIX}-{home.name}"
        self._process: subprocess.Popen[bytes] | None = None
        large = {"max.message.bytes": "100000000", "cleanup.policy": "compact"}
        create_topics(secure.broker.bootstrap, self.topic(CHECKPOINTS), config=large)
        produce(
            secure.broker.bootstrap, self.topic(CHECKPOINTS), [Sent(None, b"forgotten")]
        )  # an empty one is not read

    def topic(self, name: str) -> str:
        """The topic that stands for the one of the page. Checkpoints are each group's own."""
        return f"{self._group}.checkpoints" if name == CHECKPOINTS else named(name)

    def allow(self, granted: list[Grant]) -> None:
        bindings = [
            AclBinding(
                ResourceType[grant.resource.upper()],
                grant.name.replace("run-steps", self._group) if grant.resource != "topic" else self.topic(grant.name),
                ResourcePatternType[grant.pattern.upper()],
                f"User:{USER}",
                "*",
                AclOperation[grant.operation],
                AclPermissionType.ALLOW,
            )
            for grant in granted
        ]
        for future in self._client.create_acls(bindings).values():
            future.result(DEADLINE_S)

    def begin(self, command: str = "serve", **more: str) -> None:
        settings = more | {
            "KAFKA__BOOTSTRAP_SERVERS": self._secure.broker.bootstrap_sasl_ssl,
            "KAFKA__SECURITY_PROTOCOL": "SASL_SSL",
            "KAFKA__SSL_CA_FILE": str(self._secure.authority),
            "KAFKA__SASL_MECHANISM": "SCRAM-SHA-512",
            "KAFKA__SASL_USERNAME": USER,
            "KAFKA__SASL_PASSWORD": PASSWORD,
            "KAFKA__REQUEST_TIMEOUT_MS": "5000",
            "SOURCE__TOPIC": named(SOURCE),
            "SOURCE__GROUP_ID": self._group,
            **{f"OUTPUT__{status.upper()}": named(f"run-steps.{status}") for status in STATUSES},
            "OUTPUT__DEAD_LETTER": named("run-steps.dead-letter"),
            "CHECKPOINTS__TOPIC": self.topic(CHECKPOINTS),
            "CHECKPOINTS__INTERVAL_S": "0.1",
            "HTTP__ENABLED": "false",
            "LOG__FORMAT": "json",
        }
        env = {name: value for name, value in os.environ.items() if not name.startswith("RUN_STEPS_")}
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                # Each test is a group of its own on outcome topics that others have written to.
                [
                    sys.executable,
                    "-m",
                    "processor",
                    *command.split(),
                    *(["--begin-at=earliest"] if command == "serve" else []),
                ],
                env=env | {f"RUN_STEPS_{name}": value for name, value in settings.items()},
                stdout=log,
                stderr=log,
            )

    def code(self, signal_number: int | None = None) -> int:
        assert self._process is not None
        if signal_number is not None:
            self._process.send_signal(signal_number)
        try:
            return self._process.wait(DEADLINE_S)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running:\n{self.said()}") from None

    def said(self) -> str:
        return self._log.read_text()

    def refused(self, granted: list[Grant], command: str = "serve") -> str:
        """What it says when that is all it may: it must end with 77."""
        self.allow(granted)
        self.begin(command)
        assert self.code() == 77, self.said()
        return self.said()

    def end(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        revoke_all(self._client, f"User:{USER}")


def test_the_page_has_its_table() -> None:
    assert len(grants()) == 17
    assert {grant.resource for grant in grants()} == {"topic", "group", "transactional_id"}


def test_they_are_enough(serve: Serve, guarded: SecureBroker) -> None:
    bootstrap = guarded.broker.bootstrap
    serve.allow(grants())
    serve.begin()
    for grant in grants():
        if grant.operation == "WRITE" and grant.resource == "topic":
            there = 1 if grant.name == CHECKPOINTS else 0
            read_topic(bootstrap, serve.topic(grant.name), expect=there + 1, deadline_s=DEADLINE_S)
    assert serve.code(signal.SIGTERM) == 0, serve.said()


@pytest.mark.parametrize("missing", grants(), ids=lambda grant: f"{grant.operation} {grant.name}")
def test_none_is_too_many(serve: Serve, missing: Grant) -> None:
    """Without it the worker ends with 77 and names what it may not touch, who it is, and what it needs there."""
    said = serve.refused([grant for grant in grants() if grant != missing])
    last = said.rpartition("run-steps: ")[2]
    assert (serve.topic(missing.name) if missing.resource == "topic" else PREFIX) in last, said
    assert f"principal: User:{USER}" in last, said
    assert re.search(rf"a worker needs [A-Z_, ]*\b{missing.operation}\b", last), said
    assert "docs/operations.md, Permissions" in last, said


# --- who audits


AUDIT = [
    *(Grant("topic", name, "literal", "READ") for name in (SOURCE, *(f"run-steps.{status}" for status in STATUSES))),
    Grant("topic", "run-steps.dead-letter", "literal", "READ"),
    Grant("group", "run-steps", "literal", "DESCRIBE"),
]
"""What the page says of `replay` without `--to`."""


def test_to_audit_reading_is_enough(serve: Serve) -> None:
    """Whatever the verdict is (other tests publish to these topics, too): there is one."""
    serve.allow(AUDIT)
    serve.begin("replay")
    assert serve.code() in (0, 3, 4), serve.said()
    assert "  offsets: " in serve.said()


@pytest.mark.parametrize("missing", AUDIT, ids=lambda grant: f"{grant.operation} {grant.name}")
def test_to_audit_no_reading_is_too_many(serve: Serve, missing: Grant) -> None:
    said = serve.refused([grant for grant in AUDIT if grant != missing], "replay")
    last = said.rpartition("run-steps: ")[2]
    assert (serve.topic(missing.name) if missing.resource == "topic" else PREFIX) in last, said


# --- who looks, and who redrives


def test_the_doctor_needs_no_more_than_the_worker(serve: Serve) -> None:
    serve.allow(grants())
    serve.begin("doctor --all")
    code, said = serve.code(), serve.said()
    wrong = [line for line in said.splitlines() if line.lstrip().startswith("red")]
    # The group is new, and other tests may have written to its outcome topics: what `--begin-at` is for.
    assert [line for line in wrong if "has no committed offset, and is not new" not in line] == [], said
    assert code == len(wrong), said
    assert f"User:{USER}: has all 17 operations" in said


LETTERS = "run-steps.dead-letter"
REDRIVE = [
    *(Grant("topic", SOURCE, "literal", operation) for operation in ("WRITE", "DESCRIBE_CONFIGS")),
    *(Grant("topic", LETTERS, "literal", operation) for operation in ("READ", "DESCRIBE_CONFIGS")),
    Grant("group", "run-steps.dead-letters", "literal", "READ"),
    Grant("transactional_id", "run-steps.dead-letters.redrive", "literal", "WRITE"),
]
"""What the page says of `dead-letters redrive`."""
AGAIN = "dead-letters redrive --first --max 1"


def test_to_redrive_they_are_enough(serve: Serve, guarded: SecureBroker) -> None:
    letter = dead_letter_headers(named(SOURCE).encode(), b"0", LogRecord(0, 1, None, b"x"), Reason.NOT_JSON, "detail")
    produce(guarded.broker.bootstrap, named(LETTERS), [Sent(b"x", None, letter)])
    serve.allow(REDRIVE)
    serve.begin(AGAIN)
    assert serve.code() == 0, serve.said()
    assert "1 dead letters redriven" in serve.said()


@pytest.mark.parametrize("missing", REDRIVE, ids=lambda grant: f"{grant.operation} {grant.name}")
def test_to_redrive_none_is_too_many(serve: Serve, missing: Grant, guarded: SecureBroker) -> None:
    letter = dead_letter_headers(named(SOURCE).encode(), b"0", LogRecord(0, 1, None, b"x"), Reason.NOT_JSON, "detail")
    produce(guarded.broker.bootstrap, named(LETTERS), [Sent(b"x", None, letter)])
    said = serve.refused([grant for grant in REDRIVE if grant != missing], AGAIN)
    last = said.rpartition("run-steps: ")[2]
    assert (serve.topic(missing.name) if missing.resource == "topic" else PREFIX) in last, said


# --- who audits itself


OUTCOMES = [Grant("topic", f"run-steps.{status}", "literal", "READ") for status in STATUSES]
"""What the page says of `serve` with `self_audit.enabled`, beside its table."""
SELF_AUDIT = {"SELF_AUDIT__ENABLED": "true", "SELF_AUDIT__STEPS_PER_MINUTE": "6000", "LOG__LEVEL": "debug"}


def test_to_audit_itself_reading_the_outcomes_is_enough(serve: Serve) -> None:
    serve.allow([*grants(), *OUTCOMES])
    serve.begin(**SELF_AUDIT)
    eventually("a step is verified", lambda: "step_verified" in serve.said(), DEADLINE_S)
    assert serve.code(signal.SIGTERM) == 0, serve.said()
    assert "self_audit_troubled" not in serve.said()


def test_without_it_the_worker_says_so_and_goes_on(serve: Serve, guarded: SecureBroker) -> None:
    serve.allow(grants())
    serve.begin(**SELF_AUDIT)
    eventually("it is told", lambda: "self_audit_troubled" in serve.said(), DEADLINE_S)
    read_topic(guarded.broker.bootstrap, serve.topic(CHECKPOINTS), expect=2, deadline_s=DEADLINE_S)
    assert serve.code(signal.SIGTERM) == 0, serve.said()
    told = next(line for line in serve.said().splitlines() if "self_audit_troubled" in line)
    assert "grant this principal Read" in told
    assert PREFIX in told
    assert "step_verified" not in serve.said()
