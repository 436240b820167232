"""`run-steps demo` and `run-steps broker`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from processor.cli.options import end_with
from processor.printable import print_line


def broker(
    port: Annotated[
        int | None, typer.Option(min=1, max=65_535, help="Port on 127.0.0.1. Default: any free port.")
    ] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Data directory. Default: a temporary one.")] = None,
) -> None:
    """Run a real single-node Apache Kafka on 127.0.0.1 until SIGINT, for trials."""
    from processor.broker import serve as run

    end_with(run(port, data_dir, partial(print_line, flush=True)))


def demo(
    recordings: Annotated[
        Path | None, typer.Option(exists=True, file_okay=False, help="Play the SSE files of this directory.")
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Keep broker and worker running at the end.")] = False,
    runs: Annotated[int, typer.Option(min=1, max=1_000_000, help="Simulated agent runs.")] = 2000,
    seed: Annotated[int, typer.Option(help="The same seed plays the same runs.")] = 1,
) -> None:
    """Run the whole program once: broker, recordings, two workers, one of them killed, comparison and audit."""
    from processor.demo import run

    end_with(run(recordings, keep, runs, seed))
