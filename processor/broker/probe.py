"""Ports, and whether a broker serves on one: Kafka's protocol as far as that question needs it."""

from __future__ import annotations

import os
import random
import socket
import struct
from collections.abc import Iterator
from typing import Final

from processor.broker.settings import HOST, Ports
from processor.errors import BrokerUnavailable, UsageError

# Below every platform's range for outgoing connections (Linux 32768+, others 49152+): while the broker is down,
# a client that keeps reconnecting could otherwise be given the broker's own port as its source port.
_PORTS: Final = range(20_000, 32_000)


def choose_ports(plain: int | None) -> Ports:
    if plain is not None and not _is_free(plain):
        raise UsageError(f"broker: {HOST}:{plain}: the port is taken", hint="name another, or none to get a free one")
    free = free_ports()
    return Ports(next(free) if plain is None else plain, next(free), next(free), next(free))


def free_ports() -> Iterator[int]:
    """Different free ports, in no order. Another process may still take one before we do: callers retry."""
    for port in random.sample(_PORTS, len(_PORTS)):
        if _is_free(port):
            yield port
    raise BrokerUnavailable(f"broker: {HOST}: no free port from {_PORTS.start} to {_PORTS.stop - 1}")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        if os.name == "posix":  # as Java does; elsewhere the option means "steal the port"
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


_API_VERSIONS: Final = 18
_METADATA: Final = 3


def serving_cluster(port: int) -> str | None:
    """The id of the cluster whose broker answers there, once that is registered and has a controller."""
    try:
        with socket.create_connection((HOST, port), timeout=5) as link:
            error: int = struct.unpack_from(">h", _ask(link, _API_VERSIONS, 0, b""))[0]
            # Metadata v2 about no topic.
            return None if error else _cluster_with_controller(_ask(link, _METADATA, 2, struct.pack(">i", 0)))
    except (OSError, EOFError):
        return None


def _ask(link: socket.socket, api: int, version: int, body: bytes) -> bytes:
    """One request, and the body of its answer (the protocol's framing: length, then correlation id)."""
    client = b"run-steps"
    request = struct.pack(">hhih", api, version, 1, len(client)) + client + body
    link.sendall(struct.pack(">i", len(request)) + request)
    (length,) = struct.unpack(">i", _read(link, 4))
    return _read(link, length)[4:]


def _read(link: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        more = link.recv(count - len(data))
        if not more:
            raise EOFError
        data += more
    return data


def _cluster_with_controller(metadata: bytes) -> str | None:
    """Read a Metadata v2 answer: brokers (id, host, port, rack), cluster id, controller id, then topics."""
    brokers: int
    (brokers,) = struct.unpack_from(">i", metadata)
    at = 4
    for _ in range(brokers):
        _, at = _read_string(metadata, at + 4)
        _, at = _read_string(metadata, at + 4)
    cluster, at = _read_string(metadata, at)
    controller: int
    (controller,) = struct.unpack_from(">i", metadata, at)
    return cluster if brokers > 0 and controller >= 0 else None


def _read_string(data: bytes, at: int) -> tuple[str | None, int]:
    """A nullable string of the protocol, and the position after it."""
    length: int
    (length,) = struct.unpack_from(">h", data, at)
    if length < 0:
        return None, at + 2
    return data[at + 2 : at + 2 + length].decode(), at + 2 + length
