"""Rules between keys: combinations of settings that cannot work."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from pydantic import SecretStr

from processor.config.mistakes import Mistake, shown, unreadable
from processor.config.settings import Kafka, Origin, Settings


class _Contradiction(NamedTuple):
    """Keys that contradict each other. The message names the first key and where one of them was set."""

    keys: tuple[str, ...]
    what: str
    got: str
    hint: str


def mistake_of(wrong: _Contradiction, origins: Mapping[str, Origin]) -> Mistake:
    set_by = [origins[key] for key in wrong.keys if key in origins]
    where = str(set_by[0]) if set_by else "default"
    return Mistake(where, wrong.keys[0], wrong.what, wrong.got, wrong.hint)


_TOPIC_NAME: Final = re.compile(r"(?!\.{1,2}\Z)[a-zA-Z0-9._-]{1,249}")
_SERVER: Final = re.compile(r"(\[[0-9a-fA-F:.]+\]|[^\s:,\[\]/@]+):([0-9]{1,5})")
_FILE_KEYS: Final = ("ssl_ca_file", "ssl_cert_file", "ssl_key_file")


def missing_files(s: Settings) -> Iterator[_Contradiction]:
    for key in _FILE_KEYS:
        given = getattr(s.kafka, key)
        if given:
            try:
                Path(given).open("rb").close()
            except (OSError, ValueError) as exc:
                why = exc.strerror if isinstance(exc, OSError) else unreadable(exc)
                hint = "give the path of a readable PEM file"
                yield _Contradiction((f"kafka.{key}",), f"cannot be read: {why}", shown(given), hint)


def contradictions(s: Settings) -> Iterator[_Contradiction]:
    yield from _security(s.kafka)
    yield from _topics(s)
    yield from _timing(s)
    yield from _tracing(s)
    if s.http.control and not s.http.enabled:
        keys, hint = ("http.control", "http.enabled"), "set http.enabled = true, or take it out"
        yield _Contradiction(keys, "does nothing with http.enabled = false", "true", hint)


def _security(k: Kafka) -> Iterator[_Contradiction]:
    for server in k.bootstrap_servers.split(","):
        match = _SERVER.fullmatch(server.strip())
        if not match or not 1 <= int(match[2]) <= 65_535 or not _is_host(match[1]):
            what, hint = (
                "expected host:port",
                "for example broker-1.example.com:9092,broker-2.example.com:9092",
            )
            yield _Contradiction(("kafka.bootstrap_servers",), what, shown(server.strip()), hint)
    protocol, mechanism = ("kafka.security_protocol",), ("kafka.sasl_mechanism",)
    sasl, tls = k.security_protocol.startswith("SASL"), k.security_protocol.endswith("SSL")
    if sasl and not k.sasl_mechanism:
        hint = "set it to PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or OAUTHBEARER"
        yield _Contradiction(
            mechanism + protocol, f"needed with security_protocol {k.security_protocol}", "nothing", hint
        )
    if k.sasl_mechanism and not sasl:
        hint = "set kafka.security_protocol to SASL_SSL (or SASL_PLAINTEXT), or leave sasl_mechanism empty"
        what = f"does nothing with security_protocol {k.security_protocol}"
        yield _Contradiction(mechanism + protocol, what, k.sasl_mechanism, hint)

    by_password = k.sasl_mechanism == "PLAIN" or k.sasl_mechanism.startswith("SCRAM")
    for key, given in (
        ("sasl_username", k.sasl_username),
        ("sasl_password", k.sasl_password.get_secret_value()),
    ):
        name = (f"kafka.{key}",)
        if by_password and not given:
            hint = f"set {key}" if key == "sasl_username" else "set sasl_password_file to a file that is not empty"
            files = ("kafka.sasl_password_file",) if key == "sasl_password" else ()
            yield _Contradiction(name + mechanism + files, f"needed with {k.sasl_mechanism}", "nothing", hint)
        if given and not by_password:
            hint = "set kafka.sasl_mechanism to PLAIN or SCRAM-SHA-512, or take it out"
            yield _Contradiction(name + mechanism, "used with PLAIN and SCRAM only", "a value that is not shown", hint)

    provider = ("kafka.token_provider",)
    if k.sasl_mechanism == "OAUTHBEARER" and not k.token_provider:
        hint = 'set it to "aws_msk_iam", "azure" or "module:attribute"'
        yield _Contradiction(provider + mechanism, "needed with OAUTHBEARER", "nothing", hint)
    if k.token_provider and k.sasl_mechanism != "OAUTHBEARER":
        hint = "set kafka.sasl_mechanism to OAUTHBEARER, or take it out"
        yield _Contradiction(provider + mechanism, "used with OAUTHBEARER only", shown(k.token_provider), hint)
    known = k.token_provider in ("", "aws_msk_iam", "azure")
    if not known and not re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", k.token_provider):
        what = 'expected "aws_msk_iam", "azure" or "module:attribute"'
        hint = "for example my_company.kafka:TokenProvider"
        yield _Contradiction(provider, what, shown(k.token_provider), hint)
    for key, wanted_by in (("aws_region", "aws_msk_iam"), ("azure_scope", "azure")):
        given = getattr(k, key)
        if k.token_provider == wanted_by and not given:
            what = f'needed with token_provider "{wanted_by}"'
            yield _Contradiction((f"kafka.{key}", *provider), what, "nothing", f"set kafka.{key}")
        if given and k.token_provider != wanted_by:
            what, hint = f'used with token_provider "{wanted_by}" only', "set kafka.token_provider, or take it out"
            yield _Contradiction((f"kafka.{key}", *provider), what, shown(given), hint)

    for key in (*_FILE_KEYS, "ssl_key_password"):
        given = getattr(k, key)
        if (given.get_secret_value() if isinstance(given, SecretStr) else given) and not tls:
            hint = "set kafka.security_protocol to SSL or SASL_SSL, or take it out"
            what = f"does nothing with security_protocol {k.security_protocol}"
            yield _Contradiction((f"kafka.{key}", *protocol), what, "", hint)
    if bool(k.ssl_cert_file) != bool(k.ssl_key_file):
        missing, other = ("ssl_key_file", "ssl_cert_file") if k.ssl_cert_file else ("ssl_cert_file", "ssl_key_file")
        yield _Contradiction(
            (f"kafka.{missing}", f"kafka.{other}"), f"needed with {other}", "nothing", f"set {missing}"
        )
    if tls and k.ssl_key_password.get_secret_value() and not k.ssl_key_file:
        keys, hint = ("kafka.ssl_key_password", "kafka.ssl_key_file"), "set ssl_key_file, or take it out"
        yield _Contradiction(keys, "does nothing without ssl_key_file", "", hint)


def _is_host(name: str) -> bool:
    """Whether the resolver can be asked for it: no label of a name is empty or longer than 63 characters."""
    try:
        name.encode("idna")
    except UnicodeError:
        return False
    return True


def _topics(s: Settings) -> Iterator[_Contradiction]:
    checkpoints = s.checkpoint_topic
    named = [
        ("source.topic", s.source.topic),
        *((f"output.{status}", topic) for status, topic in s.outcome_topics.items()),
        ("output.dead_letter", s.output.dead_letter),
        ("checkpoints.topic", s.checkpoints.topic),
    ]
    hint = "1 to 249 of the characters a-z A-Z 0-9 . _ -"
    for key, topic in named:
        if topic and not _TOPIC_NAME.fullmatch(topic):
            yield _Contradiction((key,), "not a topic name", shown(topic), hint)
    if _TOPIC_NAME.fullmatch(s.source.topic) and not s.checkpoints.topic and not _TOPIC_NAME.fullmatch(checkpoints):
        what = "makes no topic name with .checkpoints behind it"
        yield _Contradiction(("source.topic",), what, shown(s.source.topic), "set checkpoints.topic")
    # Two outcomes may share a topic: the status is in the record. Everything else on a shared topic would be
    # read as what it is not.
    owners = {s.source.topic: "source.topic"}
    owners.setdefault(checkpoints, "checkpoints.topic")
    if checkpoints == s.source.topic:
        hint = "give checkpoints a compacted topic of their own"
        yield _Contradiction(("checkpoints.topic", "source.topic"), "is source.topic too", repr(checkpoints), hint)
    for key, topic in {**s.outcome_topics, "dead_letter": s.output.dead_letter}.items():
        if topic and topic in owners:
            other = owners[topic]
            what, hint = f"is {other} too", "give every output a topic of its own"
            yield _Contradiction((f"output.{key}", other), what, repr(topic), hint)
    for key, topic in s.outcome_topics.items():
        if topic == s.output.dead_letter:
            hint = "give the dead letters a topic of their own"
            yield _Contradiction(("output.dead_letter", f"output.{key}"), f"is output.{key} too", repr(topic), hint)


def _timing(s: Settings) -> Iterator[_Contradiction]:
    source, delivery = s.source, s.delivery
    if source.heartbeat_interval_ms * 3 > source.session_timeout_ms:
        yield _Contradiction(
            ("source.heartbeat_interval_ms", "source.session_timeout_ms"),
            f"must be at most a third of source.session_timeout_ms ({source.session_timeout_ms})",
            str(source.heartbeat_interval_ms),
            "one lost heartbeat must not cost the partitions; 3000 with 30000 is usual",
        )
    if source.rebalance_timeout_ms <= delivery.drain_timeout_s * 1000:
        yield _Contradiction(
            ("source.rebalance_timeout_ms", "delivery.drain_timeout_s"),
            f"must be more than delivery.drain_timeout_s ({delivery.drain_timeout_s:g} s)",
            str(source.rebalance_timeout_ms),
            "a worker that still drains when the rebalance is over is thrown out of the group",
        )
    # Where it is not set, it is at most `fetch_max_bytes`.
    if "partition_fetch_bytes" in source.model_fields_set and source.partition_fetch_bytes > source.fetch_max_bytes:
        yield _Contradiction(
            ("source.partition_fetch_bytes", "source.fetch_max_bytes"),
            f"must be at most source.fetch_max_bytes ({source.fetch_max_bytes})",
            str(source.partition_fetch_bytes),
            "raise fetch_max_bytes with it",
        )
    if delivery.mode == "exactly_once":
        if delivery.commit_interval_ms < 50:
            yield _Contradiction(
                ("delivery.commit_interval_ms", "delivery.mode"),
                "must be at least 50 with mode exactly_once",
                str(delivery.commit_interval_ms),
                "a transaction costs the broker 5 to 11 ms of processor time; 100 is a good value",
            )
        needed_ms = max(delivery.commit_timeout_s * 1000, delivery.commit_interval_ms)
        if delivery.transaction_timeout_ms < needed_ms:
            yield _Contradiction(
                (
                    "delivery.transaction_timeout_ms",
                    "delivery.commit_timeout_s",
                    "delivery.commit_interval_ms",
                ),
                f"must be at least commit_timeout_s and commit_interval_ms ({needed_ms:g} ms)",
                str(delivery.transaction_timeout_ms),
                "or the broker aborts what is still being written; raise it or lower commit_timeout_s",
            )
    if s.output.max_record_bytes > delivery.max_unit_bytes:
        yield _Contradiction(
            ("output.max_record_bytes", "delivery.max_unit_bytes"),
            f"must be at most delivery.max_unit_bytes ({delivery.max_unit_bytes})",
            str(s.output.max_record_bytes),
            "raise max_unit_bytes with it",
        )
    if s.supervisor.backoff_initial_s > s.supervisor.backoff_max_s:
        yield _Contradiction(
            ("supervisor.backoff_initial_s", "supervisor.backoff_max_s"),
            f"must be at most supervisor.backoff_max_s ({s.supervisor.backoff_max_s:g})",
            f"{s.supervisor.backoff_initial_s:g}",
            "raise backoff_max_s with it",
        )


def _tracing(s: Settings) -> Iterator[_Contradiction]:
    endpoint, keys = s.tracing.endpoint, ("tracing.endpoint", "tracing.enabled")
    if not endpoint:
        return
    try:
        told = urlsplit(endpoint)
        is_address = told.scheme in ("http", "https") and bool(told.hostname) and told.port != 0
        has_user = told.username is not None
    except ValueError:  # a port that is none, an address in brackets that is none
        is_address = has_user = False
    if not is_address:
        hint = "for example http://127.0.0.1:4318/v1/traces, with the path"
        yield _Contradiction(keys, "expected an http or https address", shown(endpoint), hint)
    elif has_user:
        hint = "give credentials as a header, in the environment: OTEL_EXPORTER_OTLP_HEADERS"
        yield _Contradiction(keys, "must hold no user and no password", "a value that is not shown", hint)
