"""Archives that other programs wrote: read as they are, or refused once with all that is in the way."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from processor.archives import LIMITS, ArchivedRecord, ArchiveError, left_alone, reach, read
from processor.archives.foreign import CONVERSION, kcat_record

_SPARK_HEADERS = pa.list_(pa.struct([("key", pa.string()), ("value", pa.binary())]))
_TIMES = [1_720_000_000_123, 0, -5, 253_402_300_799_999]
WANTED = [
    ArchivedRecord("in", 3, n, time, b"k", b'{"n":%d}' % n, (("a", b"1"), ("a", None)) if n else ())
    for n, time in enumerate(_TIMES)
]


def columns(**changes: Any) -> dict[str, pa.Array]:
    headers = [[{"key": name, "value": value} for name, value in one.headers] for one in WANTED]
    return {
        "key": pa.array([one.key for one in WANTED], pa.binary()),
        "value": pa.array([one.value for one in WANTED], pa.binary()),
        "topic": pa.array(["in"] * 4),
        "partition": pa.array([3] * 4, pa.int32()),
        "offset": pa.array(range(4), pa.int64()),
        "timestamp": pa.array(_TIMES, pa.timestamp("ms", "UTC")),
        "timestampType": pa.array([0] * 4, pa.int32()),
        "headers": pa.array(headers, _SPARK_HEADERS),
    } | changes


def written(file: Path, there: dict[str, pa.Array], **how: Any) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(there), file, **how)
    return file


@pytest.mark.parametrize("how", [{"use_deprecated_int96_timestamps": True}, {}], ids=["INT96", "TIMESTAMP"])
def test_sparks_kafka_schema_is_read_as_it_is(tmp_path: Path, how: dict[str, Any]) -> None:
    """kafka.writeStream.format("parquet"): INT96, timestampType, headers of key and value."""
    there = columns()
    wanted = WANTED
    if how:  # pyarrow writes INT96 by way of nanoseconds, which end in 2262
        there = {name: column.slice(0, 3) for name, column in there.items()}
        wanted = WANTED[:3]
    file = written(tmp_path / "a.parquet", there, **how)
    assert list(read(file)) == wanted
    assert reach(tmp_path) == {("in", 3): (0, len(wanted))}


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "UTC", "Asia/Tokyo"])
def test_any_timestamp_column_is_read_as_milliseconds_since_1970(tmp_path: Path, unit: str, zone: str | None) -> None:
    per_s = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}[unit]
    numbers = [1_720_000_000 * per_s + per_s // 8, -1]
    there = {name: column.slice(0, 2) for name, column in columns(timestampType=pa.nulls(4)).items()}
    there["timestamp"] = pa.array(numbers, pa.timestamp(unit, zone))
    file = written(tmp_path / "a.parquet", there, coerce_timestamps=None)
    with_s = pq.read_schema(file).field("timestamp").type.unit  # Parquet has no seconds
    assert with_s in ("ms", unit)
    assert [item.timestamp for item in read(file) if isinstance(item, ArchivedRecord)] == [
        1_720_000_000_000 + 1000 // 8 * (unit != "s"),
        -1000 if unit == "s" else -1,
    ]


def test_folders_that_name_topic_and_partition_are_read(tmp_path: Path) -> None:
    there = {name: column for name, column in columns().items() if name not in ("topic", "partition")}
    written(tmp_path / "topic=in" / "partition=3" / "part-0.parquet", there)
    assert list(read(tmp_path)) == WANTED
    own = written(tmp_path / "topic=other" / "partition=9" / "part-0.parquet", columns())
    assert list(read(own)) == WANTED, "columns say more than folders"
    with pytest.raises(ArchiveError, match="no column topic, partition"):
        list(read(written(tmp_path / "x" / "part-0.parquet", there)))


def test_all_that_is_in_the_way_is_told_at_once_and_the_statement_that_converts(tmp_path: Path) -> None:
    there = columns(weather=pa.nulls(4), offset=pa.array([1.0] * 4), timestamp=pa.array(["now"] * 4))
    del there["value"]
    with pytest.raises(ArchiveError) as caught:
        list(read(written(tmp_path / "a.parquet", there)))
    for what in ("no column value", "got weather", "column offset is double", "column timestamp is string"):
        assert what in caught.value.message
    assert caught.value.hint == CONVERSION


def test_the_statement_converts(tmp_path: Path) -> None:
    written(tmp_path / "in" / "a.parquet", columns(weather=pa.nulls(4)))
    statement = (
        CONVERSION.partition(": ")[2].replace("in/*", f"{tmp_path}/in/*").replace("archive.", f"{tmp_path}/out.")
    )
    duckdb.sql(statement)
    assert list(read(tmp_path / "out.parquet")) == WANTED


def kcat(**changes: Any) -> bytes:
    line = {"topic": "in", "partition": 3, "offset": 7, "tstype": "create", "ts": 5, "broker": 1, "key": "k"}
    line |= {"headers": ["a", "1", "a", None], "payload": "{}"}
    return json.dumps(line | changes).encode()


def test_the_output_of_kcat_is_read_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "dump.jsonl"
    lines = [kcat(), kcat(offset=8, key=None, payload=None, headers=[]), kcat(offset=9, tstype="unknown", ts=0)]
    file.write_bytes(b"\n".join(lines) + b"\n")
    assert list(read(file)) == [
        ArchivedRecord("in", 3, 7, 5, b"k", b"{}", (("a", b"1"), ("a", None))),
        ArchivedRecord("in", 3, 8, 5, None, None),
        ArchivedRecord("in", 3, 9, -1, b"k", b"{}", (("a", b"1"), ("a", None))),
    ]


def test_what_kcat_cannot_say_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "dump.jsonl"
    for line, what in (
        (kcat().replace(b'"k"', b'"\xff"'), "not UTF-8"),
        (kcat(headers=["a"]), "not pairs"),
        (kcat(headers=[None, "a"]), "not pairs"),
        (kcat(more=1), "line 1"),
    ):
        file.write_bytes(line + b"\n")
        with pytest.raises(ArchiveError, match=what):
            list(read(file))
    assert kcat_record(b'{"topic":"in"}', LIMITS) is None


def test_what_connect_has_not_finished_is_left_alone(tmp_path: Path) -> None:
    """Kafka Connect's HDFS sink writes to `+tmp` and renames."""
    written(tmp_path / "topic=in" / "a.parquet", columns())
    written(tmp_path / "+tmp" / "topic=in" / "b_tmp.parquet", columns(offset=pa.array(range(4, 8), pa.int64())))
    assert list(read(tmp_path)) == WANTED
    assert left_alone(tmp_path) == 1


@pytest.mark.parametrize("log", ["_delta_log/00000.json", "metadata/v1.metadata.json", ".hoodie/hoodie.properties"])
def test_the_folder_of_a_table_is_refused(tmp_path: Path, log: str) -> None:
    """Its log says which files count: one that was replaced, or never committed, lies beside them."""
    written(tmp_path / "table" / "a.parquet", columns())
    (tmp_path / "table" / log).parent.mkdir()
    (tmp_path / "table" / log).write_text("{}")
    with pytest.raises(ArchiveError, match="the folder of a table"):
        list(read(tmp_path))
    assert list(read(tmp_path / "table" / "a.parquet")) == WANTED, "who names a file means it"
