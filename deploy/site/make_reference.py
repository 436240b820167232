"""The reference pages of the site: the commands and the settings, written from the program itself."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

import typer

from processor.cli.main import app
from processor.config.settings import default_of, sections, variable
from processor.config.toml import bounds_of, toml_value


def cells(*texts: str) -> str:
    """A row of a table."""
    return "| " + " | ".join(text.replace("|", "\\|").replace("\n", " ") for text in texts) + " |"


def commands() -> str:
    """The page of the commands."""
    group: Any = typer.main.get_command(app)
    lines = [
        "# Commands",
        "",
        "Written from the program. `run-steps COMMAND --help` says the same.",
    ]
    for name, command in group.commands.items():
        lines += ["", f"## run-steps {name}", *_command(f"run-steps {name}", command)]
        for part, own in getattr(command, "commands", {}).items():
            lines += ["", f"### run-steps {name} {part}", *_command(f"run-steps {name} {part}", own)]
    return "\n".join(lines) + "\n"


def _command(name: str, command: Any) -> Iterator[str]:
    yield ""
    yield re.sub(r"\s*\n\s*(?!\n)", " ", (command.help or "").strip().split("\n\n")[0])
    for rest in (command.help or "").strip().split("\n\n")[1:]:
        yield ""
        yield re.sub(r"\s+", " ", rest)
    rows = [_row(parameter) for parameter in command.params if parameter.name not in ("help",)]
    if rows:
        yield ""
        yield cells("option", "meaning", "default")
        yield "|---|---|---|"
        yield from rows


def _row(parameter: Any) -> str:
    """One option or argument; typer has classes of its own for them."""
    told = parameter.help or ""
    if parameter.param_type_name != "option":
        name = parameter.metavar or str(parameter.name).upper()
        return cells(f"`{name}`", told, "" if parameter.required else "optional")
    names = ", ".join(f"`{name}`" for name in (*parameter.opts, *parameter.secondary_opts))
    value = f" {parameter.metavar}" if parameter.metavar and not parameter.is_flag else ""
    default = parameter.default
    shown = "" if parameter.is_flag or default is None or callable(default) else f"`{default}`"
    if parameter.envvar:
        shown = f"{shown} `{parameter.envvar}`".strip()
    return cells(f"{names}{value}", told, "required" if parameter.required else shown)


def settings() -> str:
    """The page of the settings."""
    lines = [
        "# Settings",
        "",
        "Written from the program. One TOML file, a table for each section; every key also from",
        "the environment, which wins. [config/processor.toml](../../config/processor.toml) is the same as a file.",
        "`run-steps check-config` says what is in force.",
    ]
    for section, model in sections().items():
        lines += ["", f"## [{section}]", "", (model.__doc__ or "").strip(), ""]
        lines += [cells("key", "default", "meaning", "environment"), "|---|---|---|---|"]
        for key, info in model.model_fields.items():
            bounds = bounds_of(info)
            told = f"{info.description}{f' {bounds}.' if bounds else ''}"
            lines.append(cells(f"`{key}`", f"`{toml_value(default_of(info))}`", told, f"`{variable(section, key)}`"))
    return "\n".join(lines) + "\n"


PAGES: Final = {"commands.md": commands, "settings.md": settings}
