"""The log pipeline: one JSON object per line, repeats held back, no payload text.

Of an exception only what is known to be free of payload is logged (`described`); a library's record by its first line.
"""

from __future__ import annotations

import json
import logging
import math
import os
import re
import threading
import traceback
from collections.abc import Callable, Mapping
from pathlib import PurePath
from typing import Any, Final, TextIO

import structlog
from structlog.typing import EventDict, FilteringBoundLogger

from processor.errors import ConfigError, RunStepsError

Log = FilteringBoundLogger


REPEAT_S: Final = 10.0
"""A kind of warning or error is written once in this time; the next line has the number held back."""

_KINDS_KEPT: Final = 256  # of lines whose repeats are watched; beyond it the rest of a level share one limit
_TEXT_MAX: Final = 500  # characters of one value in a log line
_LIST_MAX: Final = 100  # entries of one value in a log line
_FRAMES_MAX: Final = 8

_Kind = tuple[str, ...]


class Repeats:
    """Lets one line of a kind through per `REPEAT_S` and counts the rest. Thread-safe."""

    def __init__(self, monotonic: Callable[[], float], held_back: Callable[[], None]) -> None:
        self._monotonic = monotonic
        self._on_held_back = held_back
        self._lock = threading.Lock()
        self._kinds: dict[_Kind, tuple[float, int]] = {}
        self._ended = False

    def admit(self, kind: _Kind) -> int | None:
        """Number of lines of this kind that were held back before this one; None: hold this one back too."""
        now = self._monotonic()
        with self._lock:
            if kind not in self._kinds and len(self._kinds) >= _KINDS_KEPT:
                kind = (kind[0],)
            since, held = self._kinds.get(kind, (-math.inf, 0))
            if now - since >= REPEAT_S:
                self._kinds[kind] = now, 0
                return held
            self._kinds[kind] = since, held + 1
        self._on_held_back()
        return None

    def over(self) -> list[tuple[str, str, int]]:
        """(level, kind, lines held back) of the kinds whose time is over; they are forgotten here."""
        now = self._monotonic()
        with self._lock:
            due = {k: held for k, (since, held) in self._kinds.items() if self._ended or now - since >= REPEAT_S}
            for kind in due:
                del self._kinds[kind]
        return [(kind[0], " ".join(kind[1:]) or "various", held) for kind, held in due.items() if held]

    def end(self) -> None:
        """Let every kind pass again from now on."""
        self._ended = True

    def processor(self, _: Any, method: str, line: EventDict) -> EventDict:
        """The structlog stage: holds repeats back, from `warning` up; `critical` always passes."""
        told_apart = line.pop("_kind", line.get("reason"))
        if line.pop("_never_held", False) or method not in ("warning", "error"):
            return line
        kind = method, str(line["event"]), *([str(told_apart)] if told_apart else [])
        held = self.admit(kind)
        if held is None:
            raise structlog.DropEvent
        if held:
            line["held_back"] = held
        return line


def described(error: BaseException) -> dict[str, object]:
    """An exception as log fields, without payload text.

    Errors of this program, of the operating system and of the Kafka client have no payload in their messages and keep
    them. Of any other error (a `KeyError` prints the key) only class and place are logged.
    """
    if isinstance(error, BaseExceptionGroup) and error.exceptions:
        return described(error.exceptions[0]) | {"errors": len(error.exceptions)}
    told: dict[str, object] = {"error": type(error).__name__}
    if isinstance(error, RunStepsError):
        told["message"] = error.message
        if error.hint:
            told["hint"] = error.hint
        if error.__cause__ is not None:
            told["cause"] = described(error.__cause__)
        return told
    if isinstance(error, OSError) or type(error).__module__.partition(".")[0] == "aiokafka":
        told["message"] = str(error)
    frames = traceback.extract_tb(error.__traceback__)[-_FRAMES_MAX:]
    if frames:
        told["at"] = [f"{'/'.join(PurePath(f.filename).parts[-2:])}:{f.lineno} {f.name}" for f in frames]
    return told


_USUAL: Final = re.compile(
    r"Group Coordinator Request failed: \[Error (14|15|16)\]|Marking the coordinator dead \(node"
    r"|Heartbeat failed for group .* because it is rebalancing$"
)
"""Warnings of the client about what is normal.

A new cluster has no coordinator until it has created the offsets topic: the client retries and looks for another. One
that stays away shows in the worker's own health and in `broker_lost`. A member learns of a rebalance by a heartbeat:
what the rebalance did is in `partitions_revoked` and `partitions_assigned`.
"""


class LibraryLogHandler(logging.Handler):
    """Handler that writes stdlib log records, of `warning` and above, into this log."""

    def __init__(self, log: Log) -> None:
        super().__init__(logging.WARNING)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        told = described(record.exc_info[1]) if record.exc_info and record.exc_info[1] else {}
        pattern = _first_line(str(record.msg))
        try:
            message = _first_line(record.getMessage())
        except Exception:  # the library's arguments do not fit its format
            message = pattern
        if "message" in told:
            told["cause"] = told.pop("message")
        level = "critical" if record.levelno >= 50 else "error" if record.levelno >= 40 else "warning"
        if _USUAL.match(message):
            level = "info"
        # The format identifies the kind; the message would not, because its arguments change.
        getattr(self._log, level)(
            "library_log", _kind=f"{record.name}: {pattern}", library=record.name, message=message, **told
        )


def _first_line(text: str) -> str:
    # What follows the first line in asyncio's records is the repr of tasks, and with it of their exceptions.
    return text.split("\n", 1)[0]


class _Lines:
    """Output of the log. Lines that cannot be written are counted and never stop the worker."""

    def __init__(self, stream: TextIO, unwritable: Callable[[], None]) -> None:
        self._stream = stream
        self._unwritable = unwritable
        self._lock = threading.Lock()

    def msg(self, line: str) -> None:
        try:
            with self._lock:
                self._stream.write(line + "\n")
                self._stream.flush()
        except UnicodeEncodeError:
            self.msg(line.encode("ascii", "backslashreplace").decode())
        except (OSError, ValueError):  # full, gone or closed
            self._unwritable()

    debug = info = warning = error = critical = msg


def make_log(
    stream: TextIO, level: str, format: str, repeats: Repeats, unwritable: Callable[[], None]
) -> FilteringBoundLogger:
    if level not in ("debug", "info", "warning", "error"):
        raise ConfigError(f"log.level: unknown level (got {level!r})", hint="debug, info, warning or error")
    if format not in ("auto", "json", "console"):
        raise ConfigError(f"log.format: unknown format (got {format!r})", hint="auto, json or console")
    terminal = stream.isatty()
    render: structlog.typing.Processor
    if format == "console" or (format == "auto" and terminal):
        # https://no-color.org: the renderer itself does not ask.
        render = structlog.dev.ConsoleRenderer(colors=terminal and not os.environ.get("NO_COLOR"), pad_event_to=24)
    else:
        render = structlog.processors.JSONRenderer(serializer=json.dumps)
    logger: FilteringBoundLogger = structlog.wrap_logger(
        _Lines(stream, unwritable),
        processors=[
            repeats.processor,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="timestamp"),
            _plain,
            render,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        context_class=dict,
        cache_logger_on_first_use=False,
    ).bind()
    return logger


def _plain(_: Any, __: str, line: EventDict) -> EventDict:
    """Convert every value to plain JSON of bounded size, the most wanted fields first."""
    first = {key: line.pop(key) for key in ("timestamp", "level", "event")}
    return {key: _plain_value(value) for key, value in {**first, **line}.items()}


def _plain_value(value: object) -> object:
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, str):
        return _cut(value)
    if isinstance(value, Mapping):
        return {_cut(str(k)): _plain_value(v) for k, v in list(value.items())[:_LIST_MAX]}
    if isinstance(value, list | tuple | set | frozenset):
        more = [f"and {len(value) - _LIST_MAX} more"] if len(value) > _LIST_MAX else []
        return [_plain_value(v) for v in list(value)[:_LIST_MAX]] + more
    # Bytes may be payload, and an object's repr may hold some.
    return f"<{type(value).__name__}>"


def _cut(text: str) -> str:
    return text if len(text) <= _TEXT_MAX else text[: _TEXT_MAX - 1] + "…"
