"""`run-steps publish`."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from processor.cli.options import ConfigOption, connection_of, end_with, load_settings
from processor.errors import UsageError
from processor.printable import print_line, warn

if TYPE_CHECKING:
    from processor.kafka.producer import Compression


def publish(
    files: Annotated[
        list[Path] | None,
        typer.Argument(help="SSE text, JSON lines, a response object; - or nothing: standard input."),
    ] = None,
    config: ConfigOption = None,
    topic: Annotated[str, typer.Option(help="Topic to publish to. Default: source.topic.", show_default=False)] = "",
    format: Annotated[str, typer.Option(help="auto, sse or jsonl.")] = "auto",
    response: Annotated[
        str, typer.Option(help="Response id of a Responses stream that names none (resumed).", show_default=False)
    ] = "",
    compression: Annotated[str, typer.Option(help="none, gzip, snappy, lz4 or zstd.")] = "none",
    idempotent: Annotated[bool, typer.Option(help="Off for brokers without idempotent producers.")] = True,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the records instead.")] = False,
) -> None:
    """Publish a service's event stream to the source topic, keyed by run and with event ids."""
    settings = load_settings(config)
    from processor.kafka.producer import COMPRESSIONS
    from processor.publish.command import run as publish_files
    from processor.publish.sse import Format

    _check("--format", format, list(Format))
    _check("--compression", compression, COMPRESSIONS)
    run = publish_files(
        files or [],
        topic=topic or settings.source.topic,
        connection=None if dry_run else connection_of(settings),
        format=format,
        response_id=response or None,
        compression=cast("Compression", compression),
        dry_run=dry_run,
        idempotent=idempotent,
        echo=print_line,
        warn=warn,
    )
    end_with(asyncio.run(run))


def _check(option: str, given: str, known: Sequence[str]) -> None:
    if given not in known:
        raise UsageError(f"publish: {option}: unknown (got {given!r})", hint=f"one of {', '.join(known)}")
