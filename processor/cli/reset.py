"""`run-steps reset`."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from processor.cli.options import ConfigOption, connection_of, end_with, load_settings
from processor.printable import print_line


def reset(
    to: Annotated[
        str,
        typer.Option(
            metavar="POSITION",
            help="earliest: publish all again; latest; an offset; current: keep the offset, rebuild the state.",
        ),
    ],
    config: ConfigOption = None,
    partition: Annotated[
        list[int] | None, typer.Option(min=0, help="Only this partition; may be given again. Not given: all.")
    ] = None,
    forget_checkpoints: Annotated[
        bool, typer.Option("--forget-checkpoints", help="Forget all checkpoints, also those that still fit.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Apply the plan. Without it the plan is only printed.")] = False,
) -> None:
    """Set the group's offsets while all workers are stopped; the state is rebuilt from the log."""
    settings = load_settings(config)
    from processor.serve.positions import parse_where
    from processor.serve.reset import reset as run

    where = parse_where(to, "reset: --to", current=True)
    resetting = run(
        settings,
        connection_of(settings),
        where,
        partitions=partition or (),
        forget=forget_checkpoints,
        yes=yes,
        echo=print_line,
    )
    end_with(asyncio.run(resetting))
