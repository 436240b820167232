"""Client configuration: addresses, TLS, SASL, tokens."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from aiokafka.abc import AbstractTokenProvider

from processor.errors import ConfigError
from processor.kafka.tokens import token_source

_TLS: Final = frozenset({"SSL", "SASL_SSL"})
_SASL: Final = frozenset({"SASL_PLAINTEXT", "SASL_SSL"})
_MECHANISMS: Final = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER")


@dataclass(frozen=True, slots=True)
class Connection:
    """Settings that a client needs to reach the brokers. Made by `Connection.build`; its repr has no secrets."""

    bootstrap_servers: str
    client_id: str = "run-steps"
    security_protocol: str = "PLAINTEXT"
    ssl_context: ssl.SSLContext | None = field(default=None, repr=False)
    sasl_mechanism: str = "PLAIN"
    sasl_username: str | None = None
    sasl_password: str | None = field(default=None, repr=False)
    token_provider: AbstractTokenProvider | None = field(default=None, repr=False)
    request_timeout_ms: int = 30_000
    connections_max_idle_ms: int = 180_000
    metadata_max_age_ms: int = 60_000

    @classmethod
    def build(
        cls,
        bootstrap_servers: str,
        *,
        client_id: str = "run-steps",
        security_protocol: str = "PLAINTEXT",
        ssl_ca_file: str = "",
        ssl_cert_file: str = "",
        ssl_key_file: str = "",
        ssl_key_password: str = "",
        sasl_mechanism: str = "",
        sasl_username: str = "",
        sasl_password: str = "",
        token_provider: str = "",
        aws_region: str = "",
        azure_scope: str = "",
        request_timeout_ms: int = 30_000,
        connections_max_idle_ms: int = 180_000,
        metadata_max_age_ms: int = 60_000,
    ) -> Connection:
        """Check the settings of `[kafka]` and read the files that they name. Opens no connection.

        Args:
            token_provider: "aws_msk_iam", "azure", or "module:attribute" naming a class or a callable without
                arguments, sync or async, that returns a `Token`.

        Raises:
            ConfigError: a setting is missing or unknown, a file is missing, unreadable or not what it should be, or
                an extra is not installed.
        """
        if security_protocol not in {"PLAINTEXT", *_TLS, *_SASL}:
            raise ConfigError(
                f"kafka.security_protocol: unknown (got {security_protocol!r})",
                hint="one of PLAINTEXT, SSL, SASL_PLAINTEXT, SASL_SSL",
            )
        _check_addresses(bootstrap_servers)
        provider = None
        if security_protocol in _SASL:
            if sasl_mechanism not in _MECHANISMS:
                raise ConfigError(
                    f"kafka.sasl_mechanism: unknown (got {sasl_mechanism!r})", hint=f"one of {', '.join(_MECHANISMS)}"
                )
            if sasl_mechanism == "OAUTHBEARER":
                provider = token_source(token_provider, aws_region=aws_region, azure_scope=azure_scope)
            else:
                for name, value in (("sasl_username", sasl_username), ("sasl_password", sasl_password)):
                    if not value:
                        raise ConfigError(f"kafka.{name}: missing", hint=f"{sasl_mechanism} needs one")
        context = None
        if security_protocol in _TLS:
            context = _tls(ssl_ca_file, ssl_cert_file, ssl_key_file, ssl_key_password)
        return cls(
            bootstrap_servers=bootstrap_servers,
            client_id=client_id,
            security_protocol=security_protocol,
            ssl_context=context,
            sasl_mechanism=sasl_mechanism or "PLAIN",
            sasl_username=sasl_username or None,
            sasl_password=sasl_password or None,
            token_provider=provider,
            request_timeout_ms=request_timeout_ms,
            connections_max_idle_ms=connections_max_idle_ms,
            metadata_max_age_ms=metadata_max_age_ms,
        )

    def kwargs(self) -> dict[str, Any]:
        """Arguments for any of aiokafka's clients."""
        return {
            "bootstrap_servers": self.bootstrap_servers,
            "client_id": self.client_id,
            "security_protocol": self.security_protocol,
            "ssl_context": self.ssl_context,
            "sasl_mechanism": self.sasl_mechanism,
            "sasl_plain_username": self.sasl_username,
            "sasl_plain_password": self.sasl_password,
            "sasl_oauth_token_provider": self.token_provider,
            "request_timeout_ms": self.request_timeout_ms,
            "connections_max_idle_ms": self.connections_max_idle_ms,
            "metadata_max_age_ms": self.metadata_max_age_ms,
        }


def _check_addresses(servers: str) -> None:
    for server in servers.split(","):
        host, colon, port = server.strip().rpartition(":")
        is_number = port.isascii() and port.isdigit() and len(port) <= 5
        if not (host and colon and is_number and 0 < int(port) < 65536):
            raise ConfigError(
                f"kafka.bootstrap_servers: not an address (got {server.strip()!r})",
                hint="host:port, several separated by commas",
            )


def _tls(ca_file: str, cert_file: str, key_file: str, key_password: str) -> ssl.SSLContext:
    """A context that verifies the broker's name and chain. Without a CA file: the operating system's authorities."""
    if ca_file:
        _read_pem("ssl_ca_file", ca_file, marker="CERTIFICATE")
    try:
        context = ssl.create_default_context(cafile=ca_file or None)
    except ssl.SSLError as error:
        raise ConfigError(
            f"kafka.ssl_ca_file: {ca_file}: not a certificate ({tls_reason(error)})",
            hint="it must hold PEM certificates",
        ) from error
    if key_file and not cert_file:
        raise ConfigError("kafka.ssl_cert_file: missing", hint="a key needs its certificate")
    if cert_file:
        _read_pem("ssl_cert_file", cert_file, marker="CERTIFICATE")
        _read_pem("ssl_key_file", key_file or cert_file, marker="PRIVATE KEY")
        try:
            context.load_cert_chain(cert_file, key_file or None, password=lambda: key_password)
        except ssl.SSLError as error:
            raise _key_trouble(error, cert_file, key_file or cert_file, has_password=bool(key_password)) from error
    return context


def _read_pem(key: str, path: str, *, marker: str) -> None:
    try:
        text = Path(path).read_text(encoding="ascii")
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"kafka.{key}: {path}: not a PEM file", hint="convert it: openssl x509 -inform der"
        ) from error
    except OSError as error:
        raise ConfigError(
            f"kafka.{key}: {path}: cannot be read ({error.strerror})", hint="check the path and its permissions"
        ) from error
    if f"{marker}-----" not in text:
        raise ConfigError(f"kafka.{key}: {path}: holds no PEM {marker.lower()}", hint=f"it must have a {marker} block")


def _key_trouble(error: ssl.SSLError, cert_file: str, key_file: str, *, has_password: bool) -> ConfigError:
    if error.reason == "KEY_VALUES_MISMATCH":
        return ConfigError(
            f"kafka.ssl_key_file: {key_file}: not the key of {cert_file}", hint="take both from the same request"
        )
    if "ENCRYPTED" in Path(key_file).read_text(encoding="ascii"):
        wrong = "the password does not open it" if has_password else "it is encrypted and there is no password"
        return ConfigError(f"kafka.ssl_key_file: {key_file}: {wrong}", hint="set kafka.ssl_key_password_file")
    return ConfigError(
        f"kafka.ssl_cert_file: {cert_file}, key {key_file}: cannot be loaded ({tls_reason(error)})",
        hint="both must be whole PEM files",
    )


def tls_reason(error: ssl.SSLError) -> str:
    return (error.reason or str(error)).replace("_", " ").lower()
