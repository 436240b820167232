"""`run-steps pause` and `run-steps resume`."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from processor.cli.top import DEFAULT_ADDRESS, url_of
from processor.errors import BrokerRefused, BrokerUnavailable, UsageError
from processor.printable import print_line

_TIMEOUT_S = 10.0

Partition = Annotated[int, typer.Argument(min=0, help="Partition of the source topic.")]
Address = Annotated[
    str, typer.Argument(metavar="[ADDRESS]", help="The worker that owns it, or the one port of several.")
]


def pause(
    partition: Partition,
    address: Address = DEFAULT_ADDRESS,
    reason: Annotated[str, typer.Option(help="Shown by metrics, /healthz and top.")] = "",
) -> None:
    """Let one partition stand still while the others go on, until `run-steps resume`.

    The worker needs [http] control = true and takes this from its own machine alone.
    """
    if not reason:
        raise UsageError("pause: --reason: is needed", hint="it is shown wherever somebody asks why nothing moves")
    print_line(_ask(address, partition, "pause", {"reason": reason}))


def resume(partition: Partition, address: Address = DEFAULT_ADDRESS) -> None:
    """Let a paused partition go on where it was."""
    print_line(_ask(address, partition, "resume", {}))


def _ask(address: str, partition: int, what: str, said: dict[str, str]) -> str:
    from urllib.error import HTTPError
    from urllib.request import Request, urlopen

    from processor.serve.http import CONTROL_HEADER

    url = url_of(address)
    request = Request(  # noqa: S310  # the scheme was checked
        f"{url}/partitions/{partition}/{what}",
        json.dumps(said).encode(),
        {CONTROL_HEADER: "1", "Content-Type": "application/json"},
        method="POST",
    )
    try:
        with urlopen(request, timeout=_TIMEOUT_S) as answer:  # noqa: S310
            return str(json.loads(answer.read())["told"])
    except HTTPError as error:
        told = _error_of(error.read()) or error.reason
        if error.code in (400, 404, 409):
            raise UsageError(f"{url}: {told}") from None
        if error.code == 403:
            raise BrokerRefused(f"{url}: {told}") from None
        raise BrokerUnavailable(f"{url}: {told}") from None
    except (OSError, ValueError, LookupError) as error:
        raise BrokerUnavailable(f"{url}: no answer ({getattr(error, 'reason', error)})") from None


def _error_of(body: bytes) -> str:
    try:
        said = json.loads(body)
    except ValueError:
        return ""
    return str(said.get("error", "")) if isinstance(said, dict) else ""
