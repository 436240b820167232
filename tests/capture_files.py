"""Files of Event Hubs Capture, as the service writes them."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import fastavro

from processor.archives import ArchivedRecord, Gap, read

_VALUES: Final = ["long", "double", "string", "bytes"]
CAPTURED: Final[dict[str, Any]] = {
    "type": "record",
    "name": "EventData",
    "namespace": "Microsoft.ServiceBus.Messaging",
    "fields": [
        {"name": "SequenceNumber", "type": "long"},
        {"name": "Offset", "type": "string"},
        {"name": "EnqueuedTimeUtc", "type": "string"},
        {"name": "SystemProperties", "type": {"type": "map", "values": _VALUES}},
        {"name": "Properties", "type": {"type": "map", "values": [*_VALUES, "null"]}},
        {"name": "Body", "type": ["null", "bytes"]},
    ],
}


def captured(record: ArchivedRecord, *, with_milliseconds: bool = True) -> dict[str, Any]:
    """The event that the service makes of a record; its time in words has whole seconds."""
    second = datetime.fromtimestamp(record.timestamp // 1000, UTC)
    system: dict[str, Any] = {}
    if record.key is not None:
        system["x-opt-kafka-key"] = record.key
    if with_milliseconds:
        system["x-opt-enqueued-time"] = record.timestamp
    return {
        "SequenceNumber": record.offset,
        "Offset": str(record.offset * 100),
        "EnqueuedTimeUtc": f"{second.month}/{second.day}/{second.year} {second:%I:%M:%S %p}",
        "SystemProperties": system,
        "Properties": dict(record.headers),
        "Body": record.value,
    }


def write_capture(folder: Path, topic: str, partition: int, events: Sequence[dict[str, Any]], codec: str) -> Path:
    """A file of these events under the path that the service gives it."""
    file = folder / "space" / topic / str(partition) / "2024/07/24/22/15/30.avro"
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("wb") as out:
        fastavro.writer(out, CAPTURED, events, codec=codec, sync_marker=b"0123456789abcdef")
    return file


def read_back(topic: str, partition: int, events: Sequence[dict[str, Any]], codec: str) -> list[ArchivedRecord | Gap]:
    """The records that an audit reads from a capture of these events."""
    with tempfile.TemporaryDirectory() as folder:
        return list(read(write_capture(Path(folder), topic, partition, events, codec)))
