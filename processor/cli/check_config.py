"""`run-steps check-config`."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from processor.cli.options import ConfigOption, load_settings
from processor.cli.terminal import plain, table_of
from processor.printable import print_json, print_line
from processor.printable_console import Console

if TYPE_CHECKING:
    from rich.table import Table

    from processor.config.settings import Effective


def check_config(
    config: ConfigOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show the settings in force and where each comes from; exit 78 and all mistakes if they are wrong."""
    effective = list(load_settings(config).effective())
    if as_json:
        print_json(_as_json(effective))
    elif sys.stdout.isatty():
        Console().print(_as_table(effective))
    else:
        for entry in effective:
            print_line(f"{entry.section}.{entry.key} = {json.dumps(entry.value)}  # {entry.origin}")


def _as_json(effective: list[Effective]) -> dict[str, dict[str, dict[str, object]]]:
    tables: dict[str, dict[str, dict[str, object]]] = {}
    for section, key, value, origin in effective:
        entry: dict[str, object] = {"value": value, "origin": origin.kind}
        if origin.name:
            entry["from"] = origin.name
        tables.setdefault(section, {})[key] = entry
    return tables


def _as_table(effective: list[Effective]) -> Table:
    table = table_of("key", "value", "from", pad_edge=True)
    before = ""
    for section, key, value, origin in effective:
        if before and section != before:
            table.add_section()
        before = section
        style = "dim" if origin.kind == "default" else "cyan"
        # Text from outside is data, not markup: square brackets in it must not vanish.
        table.add_row(f"{section}.{key}", plain(json.dumps(value)), plain(str(origin)), style=style)
    return table
