"""docs/compatibility.md, made of the results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

PAGE: Final = Path(__file__).parents[2] / "docs" / "compatibility.md"


def write(results: Sequence[Mapping[str, Any]]) -> None:
    """Write the page."""
    from tests.compat.rounds import ODDITIES

    brokers = [_broker(one) for one in results if one["kind"] == "broker"]
    lacking = [row for one in results if one["kind"] == "lacking" for row in _lacking(one)]
    clients = [_client(one) for one in results if one["kind"] == "client"]
    failed = [f"- {one['name']}: {'; '.join(one['problems'])}\n" for one in results if one["kind"] == "failed"]
    told = {
        "brokers": "".join(brokers),
        "lacking": "".join(lacking),
        "clients": "".join(clients),
        "oddities": ", ".join(ODDITIES),
        "failed": "\n## Could not be run\n" + "".join(failed) if failed else "",
    }
    PAGE.write_text(Path(__file__).with_name("page.md").read_text().format(**told))


def _broker(one: Mapping[str, Any]) -> str:
    counts = " | ".join(str(one[key]) for key in ("faults", "records", "lost", "doubled", "wrong"))
    return f"| {one['name']} | {one['version']} | {counts} | {_rest(one)} | {one['date']} |\n"


def _lacking(one: Mapping[str, Any]) -> list[str]:
    return [
        f"| {one['name']} | {one['version']} | `{command}` | {'none' if code is None else code} | {_cell(line)} "
        f"| {one['date']} |\n"
        for command, (code, line) in one["said"].items()
    ]


def _client(one: Mapping[str, Any]) -> str:
    counts = " | ".join(str(one[key]) for key in ("records", "lost", "doubled", "wrong"))
    refused = "; ".join(f"{name}: {_cell(why)}" for name, why in one["refused"].items()) or "nothing"
    transactions = "yes" if one["transactions"] else "the library has none"
    codecs = ", ".join(one["codecs"])
    return (
        f"| {one['name']} | {one['version']} | {one['settings']} | {codecs} | {transactions} | {counts} | {_rest(one)} "
        f"| {refused} | {one['date']} |\n"
    )


def _rest(one: Mapping[str, Any]) -> str:
    return _cell("; ".join(one["problems"])) or "right"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")[:200]
