"""Output of generated records: to a sink of the caller's, or as JSON lines to a file or stdout.

A line is `{"partition", "timestamp", "key", "value", "headers": [[name, content], ...]}`. Bytes are text where they are
UTF-8, else `{"base64": "..."}`; a tombstone's value is null.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from base64 import b64decode, b64encode
from collections.abc import Awaitable, Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Final, TextIO

from processor.errors import UsageError
from processor.simulate import Produced, Simulation
from processor.simulate.expected import Expected, write_expected
from processor.simulate.parameters import Parameters

Send = Callable[[Produced], Awaitable[object]]
"""Writes one record, or puts it into a batch: backpressure is its business, and so is flushing at the end."""

STDOUT: Final = Path("-")
_PACE_S: Final = 0.02
"""A rate is held over intervals of this length."""
_YIELD_RECORDS: Final = 256
"""An interrupt is heeded after so many records, also where the sink never waits."""

_text = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


async def main(
    parameters: Parameters,
    *,
    send: Send | None = None,
    out: Path | None = None,
    expected: Path | None = None,
    rate: float | None = None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> Expected:
    """Generate records into `send`, or write them to `out` (`-`: stdout); then write the expected result.

    Args:
        rate: records per second; None or 0: as fast as the sink takes them.
        expected: where `write_expected` writes; nothing is written when the sink raises.

    Raises:
        UsageError: there is not exactly one of `send` and `out`, or `rate` is negative.
    """
    if (send is None) == (out is None):
        raise UsageError("simulate: output: exactly one of a topic and a file is needed", hint="give one of the two")
    if rate is not None and rate < 0:
        raise UsageError(f"simulate: rate: records per second cannot be negative (got {rate})", hint="0 is no limit")
    simulation = Simulation(parameters)
    if send is not None:
        await _paced(simulation, send, rate, clock, sleep)
    elif out == STDOUT:
        await _paced(simulation, _line_writer(sys.stdout), rate, clock, sleep)
    else:
        assert out is not None
        lines = _open(out)
        try:
            await _paced(simulation, _line_writer(lines), rate, clock, sleep)
        finally:
            lines.close()
    if expected is not None:
        write_expected(simulation.expected, expected)
    return simulation.expected


async def _paced(
    records: Iterable[Produced],
    send: Send,
    rate: float | None,
    clock: Callable[[], float],
    sleep: Callable[[float], Awaitable[None]],
) -> None:
    """Yield records at most `rate` a second on average since the start; time lost to a slow sink is not made up."""
    if not rate:
        for number, record in enumerate(records):
            if number % _YIELD_RECORDS == 0:
                await asyncio.sleep(0)
            await send(record)
        return
    per_interval = max(1, int(rate * _PACE_S))
    next_at = clock()
    for number, record in enumerate(records):
        if number % per_interval == 0:
            now = clock()
            if now < next_at:
                await sleep(next_at - now)
            next_at = max(next_at, now) + per_interval / rate
        await send(record)


def _open(path: Path) -> TextIO:
    return path.open("w", encoding="utf-8", newline="\n")


def _line_writer(lines: TextIO) -> Send:
    async def write(record: Produced) -> None:
        lines.write(to_line(record) + "\n")

    return write


def to_line(record: Produced) -> str:
    """One record as a line of JSON, without its line end."""
    return _text(
        {
            "partition": record.partition,
            "timestamp": record.timestamp,
            "key": _to_json(record.key),
            "value": None if record.value is None else _to_json(record.value),
            "headers": [[name, _to_json(content)] for name, content in record.headers],
        }
    )


def read_lines(lines: Iterable[str]) -> Iterator[Produced]:
    """The records of lines that `to_line` made."""
    for line in lines:
        row = json.loads(line)
        yield Produced(
            row["partition"],
            _from_json(row["key"]),
            None if row["value"] is None else _from_json(row["value"]),
            [(name, _from_json(content)) for name, content in row["headers"]],
            row["timestamp"],
        )


def _to_json(content: bytes) -> str | dict[str, str]:
    try:
        return content.decode()
    except UnicodeDecodeError:
        return {"base64": b64encode(content).decode()}


def _from_json(content: Any) -> bytes:
    return content.encode() if isinstance(content, str) else b64decode(content["base64"])
