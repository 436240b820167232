"""`run-steps simulate`."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from processor.cli.options import ConfigOption, connection_of, load_settings
from processor.errors import UsageError
from processor.printable import print_line

if TYPE_CHECKING:
    from processor.config.settings import Settings
    from processor.simulate import Produced
    from processor.simulate.parameters import Parameters


def simulate(
    config: ConfigOption = None,
    out: Annotated[
        Path | None, typer.Option(help="Write JSON lines here (- is standard output), not to the topic.")
    ] = None,
    topic: Annotated[str, typer.Option(help="Topic to publish to. Default: source.topic.", show_default=False)] = "",
    expected: Annotated[Path | None, typer.Option(help="Write the expected result here.")] = None,
    rate: Annotated[float, typer.Option(min=0, max=1e9, help="Records per second; 0: unlimited.")] = 0,
    runs: Annotated[int, typer.Option(min=0, help="Agent runs.")] = 1000,
    seed: Annotated[int, typer.Option(help="The same seed gives the same records.")] = 1,
    partitions: Annotated[
        int, typer.Option(min=1, max=100_000, help="Partitions of the topic, for the expected result.")
    ] = 4,
    param: Annotated[list[str] | None, typer.Option(metavar="NAME=VALUE", help="Any other parameter.")] = None,
    list_params: Annotated[
        bool, typer.Option("--list-params", help="List the parameters with their defaults and exit.")
    ] = False,
) -> None:
    """Generate agent runs as services emit them, faults included, and the expected result."""
    from processor.simulate.parameters import Parameters

    if list_params:
        for name, default in msgspec.to_builtins(Parameters()).items():
            print_line(f"{name}={json.dumps(default)}")
        return
    wanted = {"runs": runs, "seed": seed, "partitions": partitions} | dict(map(_parameter, param or []))
    try:
        chosen = msgspec.convert(wanted, Parameters, strict=False)
    except msgspec.ValidationError as exc:
        hint = "`run-steps simulate --list-params` lists them"
        raise UsageError(f"simulate: --param: {exc}", hint=hint) from exc
    settings = None if out else load_settings(config)
    asyncio.run(_simulate(chosen, out, expected, rate, settings, topic))


def _parameter(text: str) -> tuple[str, object]:
    name, _, value = text.partition("=")
    try:
        return name, json.loads(value)
    except ValueError:
        raise UsageError(f"simulate: --param: expected NAME=VALUE (got {text!r:.80})", hint="disorder=0.5") from None


async def _simulate(
    parameters: Parameters, out: Path | None, expected: Path | None, rate: float, settings: Settings | None, topic: str
) -> None:
    from processor.simulate.output import main as play

    if settings is None:
        await play(parameters, out=out, expected=expected, rate=rate)
        return
    from processor.kafka.producer import EventProducer

    async with EventProducer(connection_of(settings)) as producer:
        to = topic or settings.source.topic

        async def send(record: Produced) -> None:
            # An empty value is as much a tombstone as none at all (docs/semantics.md).
            value = record.value or b""
            await producer.send(to, value, key=record.key, headers=record.headers, timestamp_ms=record.timestamp)

        await play(parameters, send=send, expected=expected, rate=rate)
        await producer.flush()
        print_line(f"published {producer.acknowledged} records to {to}")
