"""`run-steps serve`."""

from __future__ import annotations

from typing import Annotated

import typer

from processor.cli.options import ConfigOption, end_with, load_settings


def serve(
    config: ConfigOption = None,
    create_topics: Annotated[bool, typer.Option("--create-topics", help="Create missing topics.")] = False,
    workers: Annotated[int, typer.Option(min=1, max=256, help="Processes, each a member of the group.")] = 1,
    begin_at: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[PARTITION=]POSITION",
            help="For this start only: where partitions without a committed offset begin: earliest, latest, an offset.",
        ),
    ] = None,
) -> None:
    """Run the worker until SIGTERM or SIGINT."""
    settings = load_settings(config)
    if begin_at:
        from processor.serve.positions import parse_begin_at

        settings = settings.beginning_at(parse_begin_at(begin_at))
    from processor.serve.command import serve as run

    end_with(run(settings, create_topics=create_topics, workers=workers))
