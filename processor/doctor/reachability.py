"""Reachability of every broker: bootstrap addresses, and the listeners that the cluster advertises."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import replace
from typing import TYPE_CHECKING

from processor.doctor.findings import Finding, Light
from processor.errors import RunStepsError
from processor.kafka.diagnosis import refusal
from processor.kafka.inspection import Broker

if TYPE_CHECKING:
    from processor.kafka.client_config import Connection

AREA = "reachability"


async def check_addresses(connection: Connection, addresses: Collection[str], what: str) -> list[Finding]:
    """Connect to each address with these settings: TCP, TLS, SASL. One that fails says which of them it was."""
    ordered = sorted(set(addresses))
    answers = await asyncio.gather(*(refusal(replace(connection, bootstrap_servers=one)) for one in ordered))
    return [_finding(one, answer, what) for one, answer in zip(ordered, answers, strict=True)]


async def check_advertised(connection: Connection, brokers: Collection[Broker]) -> list[Finding]:
    """The addresses that the brokers tell their clients to use, where the bootstrap does not name them already."""
    known = set(bootstrap_addresses(connection))
    addresses = {f"{broker.host}:{broker.port}" for broker in brokers} - known
    return await check_addresses(connection, addresses, "advertised listener")


def bootstrap_addresses(connection: Connection) -> list[str]:
    return [address.strip() for address in connection.bootstrap_servers.split(",")]


def _finding(address: str, error: RunStepsError | None, what: str) -> Finding:
    if error is None:
        return Finding(AREA, Light.GREEN, address, f"{what} answers")
    return Finding(AREA, Light.RED, address, f"{what}: {error.message}", error.hint)
