# mypy: allow-subclassing-any
"""How a broker is reached: addresses, TLS, SASL, tokens; and, when it is not, which of them is to blame."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import socket
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, cast

from aiokafka import errors
from aiokafka.abc import AbstractTokenProvider
from aiokafka.conn import collect_hosts

from processor.errors import BrokerRefused, BrokerUnavailable, ConfigError, RunStepsError
from processor.kafka import client
from processor.kafka.frames import ForeignProtocol
from processor.kafka.trouble import translate

Token = str | tuple[str, float]
"""An OAuth token, alone or with the Unix time in seconds at which it expires."""

_RENEW_BEFORE_S: Final = 60.0
_ASK_BROKERS: Final = 3
_ASK_AGAIN: Final = 3
_ASK_AGAIN_S: Final = 0.5
_TLS: Final = frozenset({"SSL", "SASL_SSL"})
_SASL: Final = frozenset({"SASL_PLAINTEXT", "SASL_SSL"})
_MECHANISMS: Final = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER")


@dataclass(frozen=True, slots=True)
class Connection:
    """All that a client needs to reach the brokers. Made by `Connection.build`; secrets stay out of its repr."""

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
                provider = _provider(token_provider, aws_region=aws_region, azure_scope=azure_scope)
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


# --- TLS ------------------------------------------------------------------------------------------------------------


def _check_addresses(servers: str) -> None:
    for server in servers.split(","):
        host, colon, port = server.strip().rpartition(":")
        if not (host and colon and port.isdigit() and 0 < int(port) < 65536):
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
            f"kafka.ssl_ca_file: {ca_file}: not a certificate ({_reason(error)})", hint="it must hold PEM certificates"
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
        f"kafka.ssl_cert_file: {cert_file}, key {key_file}: cannot be loaded ({_reason(error)})",
        hint="both must be whole PEM files",
    )


def _reason(error: ssl.SSLError) -> str:
    return (error.reason or str(error)).replace("_", " ").lower()


# --- OAUTHBEARER ----------------------------------------------------------------------------------------------------


class TokenSource(AbstractTokenProvider):
    """Gives a token to every new connection, the same one until it is about to expire.

    Args:
        get: returns a `Token` or an awaitable of one; a sync one runs in a thread, it may do network calls.
    """

    def __init__(self, get: Callable[[], Token | Awaitable[Token]], name: str) -> None:
        self._get = get
        self._name = name
        self._lock = asyncio.Lock()
        self._token = ""
        self._good_until = 0.0

    async def token(self) -> str:
        async with self._lock:
            if time.time() >= self._good_until:
                await self._renew()
            return self._token

    async def _renew(self) -> None:
        try:
            got = await asyncio.to_thread(self._get) if not inspect.iscoroutinefunction(self._get) else self._get()
            given = await cast(Awaitable[Token], got) if inspect.isawaitable(got) else got
            token, expiry = (given, 0.0) if isinstance(given, str) else given
        except Exception as error:
            # As the library's own error, so that it takes the way of every failed login.
            raise errors.AuthenticationFailedError(f"token provider {self._name}: {error!r}"[:300]) from error
        self._token, self._good_until = token, expiry - _RENEW_BEFORE_S


def _provider(name: str, *, aws_region: str, azure_scope: str) -> TokenSource:
    if name == "aws_msk_iam":
        return TokenSource(_aws_msk_iam(aws_region), name)
    if name == "azure":
        return TokenSource(_azure(azure_scope), name)
    module, colon, attribute = name.partition(":")
    if not (module and colon and attribute):
        raise ConfigError(
            f"kafka.token_provider: not a provider (got {name!r})", hint='"aws_msk_iam", "azure" or "module:attribute"'
        )
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"kafka.token_provider: {name}: cannot be imported ({error})", hint="check the path"
        ) from error
    if inspect.isclass(found):
        found = found()
        found = getattr(found, "token", found)
    if not callable(found):
        raise ConfigError(f"kafka.token_provider: {name}: not callable", hint="a class with token(), or a function")
    return TokenSource(found, name)


def _aws_msk_iam(region: str) -> Callable[[], Token]:
    if not region:
        raise ConfigError("kafka.aws_region: missing", hint="the region of the MSK cluster")
    signer = _extra("aws_msk_iam_sasl_signer", "aws").MSKAuthTokenProvider

    def get() -> Token:
        token, expires_ms = signer.generate_auth_token(region)
        return token, expires_ms / 1000

    return get


def _azure(scope: str) -> Callable[[], Token]:
    if not scope:
        raise ConfigError("kafka.azure_scope: missing", hint="https://<namespace>.servicebus.windows.net/.default")
    credential = _extra("azure.identity", "azure").DefaultAzureCredential()

    def get() -> Token:
        token = credential.get_token(scope)
        return token.token, float(token.expires_on)

    return get


def _extra(module: str, extra: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ConfigError(
            f"kafka.token_provider: {module} is not installed", hint=f"pip install run-steps[{extra}]"
        ) from error


# --- what went wrong ------------------------------------------------------------------------------------------------


@asynccontextmanager
async def explained(connection: Connection, where: str) -> AsyncIterator[None]:
    """Around the start of a client: when no broker lets us in, ask once more and say why.

    The library tells a wrong password, a missing certificate, an untrusted authority and a dead host with one and
    the same "Unable to bootstrap"; the cause is only in its log.
    """
    try:
        yield
    except errors.KafkaConnectionError as error:
        raise await diagnose(connection) from error
    except (errors.KafkaError, errors.IllegalOperation, NotImplementedError, OSError, TimeoutError) as error:
        raise translate(error, where) from error


async def diagnose(connection: Connection) -> RunStepsError:
    """Connect to the first few brokers at once and return the most telling refusal.

    A connection that is closed at our first words may be that of another protocol, or one whose broker has died, or a
    load balancer's that has no broker: where these settings have worked it is an outage, else it is asked again.
    """
    for _ in range(_ASK_AGAIN):
        reason = await _diagnosed(connection)
        if not isinstance(reason, _Closed):
            return reason
        await asyncio.sleep(_ASK_AGAIN_S)
    return reason


async def _diagnosed(connection: Connection) -> RunStepsError:
    hosts = collect_hosts(connection.bootstrap_servers, randomize=False)[:_ASK_BROKERS]
    arguments = {key: value for key, value in connection.kwargs().items() if key not in _NOT_PER_CONNECTION}
    found: RunStepsError | None = None
    attempts = (_attempt((host, port), connection, arguments) for host, port, _ in hosts)
    outcomes = await asyncio.gather(*attempts, return_exceptions=True)
    for (host, port, _), outcome in zip(hosts, outcomes, strict=True):
        if isinstance(outcome, Exception):  # the library lets through whatever TLS, DNS and SASL raise
            reason = _blame(outcome, (host, port), connection)
            found = reason if found is None or isinstance(reason, BrokerRefused) else found
        elif isinstance(outcome, BaseException):
            raise outcome
        else:
            outcome.close()
            found = found or BrokerUnavailable(f"broker {host}:{port}: answers only now", hint="a restart tries again")
    return found or BrokerUnavailable("kafka.bootstrap_servers: no broker to ask")


async def _attempt(address: tuple[str, int], connection: Connection, arguments: Mapping[str, Any]) -> Any:
    known = client.SILENT
    if known.is_silent(address) and known.has_served(address, connection.security_protocol):
        # It has just let an attempt time out, and these settings are right for it: patience would only delay the word.
        raise TimeoutError
    return await client.connect_patiently(*address, **arguments)


_NOT_PER_CONNECTION: Final = frozenset({"bootstrap_servers", "connections_max_idle_ms", "metadata_max_age_ms"})


_HAS_SERVED: Final = "it has answered before: check the broker, and what lies between"


class _Closed(BrokerRefused):
    """The connection was closed at our first words, at an address that has never answered."""


def _blame(error: BaseException, address: tuple[str, int], connection: Connection) -> RunStepsError:
    """Which of address, TLS and SASL kept us out of this broker, and the remedy."""
    where = f"broker {address[0]}:{address[1]}"
    causes = list(_chain(error))
    for cause in causes:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return BrokerRefused(
                f"{where}: TLS: its certificate is not trusted ({cause.verify_message})",
                hint="kafka.ssl_ca_file must hold the authority that signed it, and the name must be the one dialled",
            )
        if isinstance(cause, ssl.SSLError) and not isinstance(cause, ssl.SSLEOFError):
            if "ALERT" in (cause.reason or ""):
                return BrokerRefused(
                    f"{where}: TLS: it refused us ({_reason(cause)})",
                    hint="it wants a client certificate that it trusts: kafka.ssl_cert_file and kafka.ssl_key_file",
                )
            return BrokerRefused(
                f"{where}: TLS: no handshake ({_reason(cause)})",
                hint="is this port a TLS listener? check kafka.security_protocol",
            )
        if isinstance(cause, errors.SaslAuthenticationFailed):
            return BrokerRefused(
                f"{where}: SASL {connection.sasl_mechanism}: authentication failed"
                f" for {connection.sasl_username or 'the token'}",
                hint="check kafka.sasl_username and kafka.sasl_password_file (or the token provider)",
            )
        if isinstance(
            cause,
            (errors.UnsupportedSaslMechanismError, errors.IllegalSaslStateError, errors.AuthenticationFailedError),
        ):
            return translate(cause, where)
    if isinstance(error, socket.gaierror):
        return BrokerUnavailable(f"{where}: the name does not resolve", hint="check kafka.bootstrap_servers and DNS")
    has_served = client.SILENT.has_served(address, connection.security_protocol)
    if isinstance(error, TimeoutError):
        return BrokerUnavailable(
            f"{where}: {str(error) or 'no answer in time'}",
            hint=_HAS_SERVED
            if has_served
            else "a firewall may drop the packets, or the port speaks another protocol (kafka.security_protocol)",
        )
    if isinstance(error, ConnectionRefusedError):
        return BrokerUnavailable(f"{where}: nothing listens there", hint="start the broker, or check the port")
    listener = f"is this a {connection.security_protocol} listener? check kafka.security_protocol and the port"
    for cause in causes:
        if isinstance(cause, ForeignProtocol):
            return BrokerRefused(f"{where}: {cause}", hint=listener)
    if any(isinstance(cause, (EOFError, ConnectionResetError, ssl.SSLEOFError)) for cause in causes):
        told = f"{where}: it closed the connection at our first words"
        if has_served:
            return BrokerUnavailable(told, hint=_HAS_SERVED)
        return _Closed(told, hint=f"{listener}; a load balancer without a broker does the same")
    return BrokerUnavailable(
        f"{where}: {str(error) or type(error).__name__}"[:300], hint="check kafka.bootstrap_servers"
    )


def _chain(error: BaseException | None) -> list[BaseException]:
    chain: list[BaseException] = []
    while error is not None and error not in chain:
        chain.append(error)
        error = error.__cause__ or error.__context__
    return chain
