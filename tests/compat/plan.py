"""A plan: the records that a producer's program is to write, one a line, in a form that needs no JSON reader.

    key TAB value TAB timestamp in ms TAB name:value,name:value...

Bytes are `+` and base64, null is `-`.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple


class Planned(NamedTuple):
    """One record. `timestamp` None: the client's own choice."""

    key: bytes | None
    value: bytes | None
    timestamp: int | None = None
    headers: Sequence[tuple[bytes, bytes | None]] = ()


def _field(content: bytes | None) -> str:
    return "-" if content is None else f"+{base64.b64encode(content).decode()}"


def write(path: Path, records: Iterable[Planned]) -> None:
    """Write a plan."""
    with path.open("w") as file:
        for one in records:
            headers = ",".join(f"{_field(name)}:{_field(content)}" for name, content in one.headers)
            time = "-" if one.timestamp is None else str(one.timestamp)
            file.write(f"{_field(one.key)}\t{_field(one.value)}\t{time}\t{headers}\n")
