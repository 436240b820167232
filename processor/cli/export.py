"""`run-steps export`: otlp."""

from __future__ import annotations

import asyncio
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from processor.cli.options import ConfigOption, connection_of, load_settings
from processor.cli.replay_options import CapturePattern, capture_of, warn_of_hidden_files
from processor.errors import UsageError
from processor.printable import print_line

if TYPE_CHECKING:
    from processor.otlp.command import Exported

export = typer.Typer(no_args_is_help=True, help="Send published steps to other systems.")


@export.callback()
def _group() -> None:
    """Send published steps to other systems."""


@export.command("otlp")
def otlp(
    config: ConfigOption = None,
    endpoint: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Where the collector takes OTLP over HTTP, with its path /v1/traces. Not given: as the variables "
            "OTEL_EXPORTER_OTLP_* say.",
        ),
    ] = None,
    published: Annotated[
        list[Path] | None, typer.Option(help="Read from this archive of the outcome topics, not from the topics.")
    ] = None,
    capture_pattern: CapturePattern = "",
    since: Annotated[
        str | None,
        typer.Option(
            metavar="TIME", help="Steps from this time on (ISO 8601); the positions of exports stay as they are."
        ),
    ] = None,
    contents: Annotated[
        bool,
        typer.Option("--contents", help="With arguments, results, messages and error texts: they may be private."),
    ] = False,
    provider: Annotated[str, typer.Option(help="gen_ai.provider.name of the spans.")] = "openai",
    service: Annotated[str, typer.Option(envvar="OTEL_SERVICE_NAME", help="service.name of the spans.")] = "run-steps",
    run_idle: Annotated[
        float,
        typer.Option(
            min=0, max=3_153_600_000, metavar="SECONDS", help="A run without a new step for so long is complete."
        ),
    ] = 600.0,
    timeout: Annotated[
        float, typer.Option(min=1, max=86_400, metavar="SECONDS", help="For one batch of spans, repeats included.")
    ] = 60.0,
) -> None:
    """Send published steps as OpenTelemetry GenAI spans, at least once.

    The topics are read from where the last export ended. A step that is sent again has the same trace and span id.
    """
    absent = [name for name in ("opentelemetry", "requests") if find_spec(name) is None]
    if absent:
        raise UsageError(
            f"export otlp: needs the extra `otlp` (not installed: {', '.join(absent)})",
            hint="pip install 'run-steps[otlp]'",
        )
    settings = load_settings(config)
    from processor.dead_letters.selection import time_ms
    from processor.otlp.collector import Collector
    from processor.otlp.command import Options, export_archives, export_topics
    from processor.otlp.spans import SpanOptions

    since_ms = None if since is None else time_ms(since, "export otlp: --since")
    options = Options(SpanOptions(provider, contents), run_idle, since_ms)
    with Collector(endpoint, service=service, timeout_s=timeout) as collector:
        if published:
            warn_of_hidden_files(published)
            done = export_archives(settings, published, collector, options, capture_of(capture_pattern))
        else:
            done = asyncio.run(export_topics(settings, lambda: connection_of(settings), collector, options))
    _print(done)


def _print(done: Exported) -> None:
    print_line(f"{done.steps:,} steps of {done.runs:,} runs: {done.spans:,} spans")
    if done.refused:
        print_line(f"{done.refused:,} spans were refused by the collector for good")
    if done.unreadable:
        print_line(f"{done.unreadable:,} records are no published steps")
    if done.read_again:
        print_line(f"runs that may go on: the next export begins {done.read_again:,} offsets before the end, with them")
