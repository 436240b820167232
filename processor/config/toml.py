"""Write config/processor.toml from the models."""

from __future__ import annotations

from typing import get_args

from pydantic.fields import FieldInfo

from processor.config.settings import PREFIX, default_of, sections


def render() -> str:
    """The text of `config/processor.toml`: every key with its default, meaning, bounds or choices."""
    lines = [
        "# Every setting of run-steps with its default. Generated from processor/config/settings.py by `make config`.",
        "# Keep what you change and drop the rest: what is not in the file has its default.",
        f"# Every key can also come as {PREFIX}<SECTION>__<KEY> from the environment, which wins.",
        "# Names carry their units (_ms, _s, _bytes, _records). An empty text means: not set.",
        "# `run-steps check-config --config FILE` says what is wrong, and what is in force.",
    ]
    for section, model in sections().items():
        lines += ["", f"# {(model.__doc__ or '').strip()}", f"[{section}]"]
        for key, info in model.model_fields.items():
            bounds = bounds_of(info)
            lines.append(f"# {info.description}{f' {bounds}.' if bounds else ''}")
            lines.append(f"{key} = {toml_value(default_of(info))}")
    return "\n".join(lines) + "\n"


def bounds_of(info: FieldInfo) -> str:
    """Its choices or its limits, as a text; "" where it has none."""
    choices = [repr(choice) for choice in get_args(info.annotation)]
    if choices:
        return "One of " + ", ".join(c.replace("'", '"') for c in choices)
    limits = {name: getattr(rule, name) for rule in info.metadata for name in ("ge", "gt", "le") if hasattr(rule, name)}
    if not limits:
        return ""
    low = f"{limits['ge']:g} to" if "ge" in limits and limits["ge"] < 10**5 else f"{limits.get('ge', '')} to"
    if "gt" in limits:
        low = f"More than {limits['gt']} to"
    return f"{low} {limits['le']}"


def toml_value(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else str(value)
