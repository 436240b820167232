"""Find out why a connection failed: address, TLS, SASL or permission."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

from aiokafka import errors
from aiokafka.conn import collect_hosts

from processor.errors import BrokerRefused, BrokerUnavailable, RunStepsError
from processor.kafka import client
from processor.kafka.client_config import Connection, tls_reason
from processor.kafka.errors import translate
from processor.kafka.framing import ForeignProtocol

_ASK_BROKERS: Final = 3
_ASK_AGAIN: Final = 3
_ASK_AGAIN_S: Final = 0.5


@asynccontextmanager
async def explained(connection: Connection, where: str) -> AsyncIterator[None]:
    """Context of a client's start: when no broker accepts the client, connect once more and raise the cause.

    The library tells a wrong password, a missing certificate, an untrusted authority and a dead host with one and
    the same "Unable to bootstrap"; the cause is only in its log.
    """
    try:
        yield
    except errors.KafkaConnectionError as error:
        raise await diagnose(connection) from error
    except (errors.KafkaError, errors.IllegalOperation, NotImplementedError, OSError, TimeoutError) as error:
        raise translate(error, where) from error


async def refusal(connection: Connection) -> RunStepsError | None:
    """Connect to the bootstrap brokers; None if one accepts the client, else the most specific refusal."""
    reason = await diagnose(connection)
    return None if isinstance(reason, _Answers) else reason


async def diagnose(connection: Connection) -> RunStepsError:
    """Connect to the first few brokers at once and return the most specific refusal.

    A connection that is closed at the first request may be to a listener of another protocol, to a broker that has
    died, or to a load balancer without a broker. Where these settings have worked before it is an outage; else the
    address is tried again.
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
            found = found or _Answers(f"broker {host}:{port}: answers only now", hint="a restart tries again")
    return found or BrokerUnavailable("kafka.bootstrap_servers: no broker to ask")


async def _attempt(address: tuple[str, int], connection: Connection, arguments: Mapping[str, Any]) -> Any:
    known = client.SILENT
    if known.is_silent(address) and known.has_served(address, connection.security_protocol):
        # An attempt has just timed out there, and these settings have worked before: waiting only delays the error.
        raise TimeoutError
    return await client.connect_patiently(*address, **arguments)


_NOT_PER_CONNECTION: Final = frozenset({"bootstrap_servers", "connections_max_idle_ms", "metadata_max_age_ms"})


_HAS_SERVED: Final = "it has answered before: check the broker, and what lies between"


class _Answers(BrokerUnavailable):
    """The broker accepted the client."""


class _Closed(BrokerRefused):
    """The connection was closed at the first request, at an address that has never answered."""


def _blame(error: BaseException, address: tuple[str, int], connection: Connection) -> RunStepsError:
    """Cause of a failed connection (address, TLS or SASL), and the remedy."""
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
                    f"{where}: TLS: it refused us ({tls_reason(cause)})",
                    hint="it wants a client certificate that it trusts: kafka.ssl_cert_file and kafka.ssl_key_file",
                )
            return BrokerRefused(
                f"{where}: TLS: no handshake ({tls_reason(cause)})",
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
