"""Options and helpers that several commands share."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from processor.cli.terminal import printable

if TYPE_CHECKING:
    from processor.config.settings import Settings
    from processor.kafka.client_config import Connection

ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", "-c", envvar="RUN_STEPS_CONFIG", help="TOML file with the settings.", show_default=False),
]


def load_settings(path: Path | None) -> Settings:
    from processor.config.loading import load

    return load(path, os.environ)


def end_with(code: int) -> NoReturn:
    raise typer.Exit(code)


def connection_of(settings: Settings) -> Connection:
    # What the client would print beside our own error says the same in its own words.
    logging.getLogger("aiokafka").addHandler(logging.NullHandler())
    from processor.kafka.client_config import Connection

    return Connection.build(**settings.kafka.connection())


def warn(line: str) -> None:
    print(printable(line), file=sys.stderr)
