"""`run-steps publish`."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from processor.cli.options import ConfigOption, connection_of, end_with, load_settings, warn
from processor.errors import UsageError


def publish(
    files: Annotated[
        list[Path] | None, typer.Argument(help="SSE text or JSON lines; - or nothing: standard input.")
    ] = None,
    config: ConfigOption = None,
    topic: Annotated[str, typer.Option(help="Topic to publish to. Default: source.topic.", show_default=False)] = "",
    format: Annotated[str, typer.Option(help="auto, sse or jsonl.")] = "auto",
    idempotent: Annotated[bool, typer.Option(help="Off for brokers without idempotent producers.")] = True,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the records instead.")] = False,
) -> None:
    """Publish a service's event stream to the source topic, keyed by run and with event ids."""
    settings = load_settings(config)
    from processor.publish.command import run as publish_files
    from processor.publish.sse import Format

    if format not in list(Format):
        choices = ", ".join(Format)
        raise UsageError(f"publish: --format: unknown (got {format!r})", hint=f"one of {choices}")
    run = publish_files(
        files or [],
        topic=topic or settings.source.topic,
        connection=None if dry_run else connection_of(settings),
        format=format,
        dry_run=dry_run,
        idempotent=idempotent,
        echo=print,
        warn=warn,
    )
    end_with(asyncio.run(run))
