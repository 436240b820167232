"""`run-steps pause` and `run-steps resume`."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from processor.cli.worker_http import DEFAULT_ADDRESS, ask, url_of
from processor.errors import BrokerRefused, BrokerUnavailable, UsageError
from processor.printable import print_line

_TIMEOUT_S = 10.0

Partition = Annotated[int, typer.Argument(min=0, help="Partition of the source topic.")]
Address = Annotated[str, typer.Argument(metavar="ADDRESS", help="The worker that owns it, or the one port of several.")]


def pause(
    partition: Partition,
    address: Address = DEFAULT_ADDRESS,
    reason: Annotated[str, typer.Option(help="Shown by metrics, /healthz and top.")] = "",
) -> None:
    """Let one partition stand still while the others go on, until `run-steps resume`.

    The worker needs `http.control = true` and takes this from its own machine alone.
    """
    if not reason:
        raise UsageError("pause: --reason: is needed", hint="it is shown wherever somebody asks why nothing moves")
    print_line(_ask(address, partition, "pause", {"reason": reason}))


def resume(partition: Partition, address: Address = DEFAULT_ADDRESS) -> None:
    """Let a paused partition go on where it was."""
    print_line(_ask(address, partition, "resume", {}))


def _ask(address: str, partition: int, what: str, said: dict[str, str]) -> str:
    url = url_of(address)
    try:
        status, body = ask(f"{url}/partitions/{partition}/{what}", _TIMEOUT_S, said)
    except OSError as error:
        raise BrokerUnavailable(f"{url}: no answer ({getattr(error, 'reason', error)})") from None
    told = _told(body)
    if status == 200 and told:
        return told
    told = told or f"status {status}, and no answer of a worker"
    if status in (400, 404, 409):
        raise UsageError(f"{url}: {told}")
    if status == 403:
        raise BrokerRefused(f"{url}: {told}")
    raise BrokerUnavailable(f"{url}: {told}")


def _told(body: bytes) -> str:
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        return ""
    return str(said.get("told") or said.get("error") or "") if isinstance(said, dict) else ""
