"""Archives: what goes in comes out, and what cannot be right is refused with its place, in bounded memory."""

from __future__ import annotations

import base64
import contextlib
import gzip
import json
import os
import struct
import sys
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import cramjam
import fastavro
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processor.archives import (
    ArchivedRecord,
    ArchiveError,
    Capture,
    Extent,
    Gap,
    GapKind,
    Limits,
    Recorder,
    empty_files,
    left_alone,
    reach,
    read,
    read_batches,
    read_pieces,
    survey,
)
from processor.archives.jsonl import decode_line, encode_line
from processor.archives.pages import pages, row_groups
from processor.archives.parquet import SCHEMA
from processor.archives.records import LIMITS
from processor.core.header_names import name_text
from processor.errors import RunStepsError, UsageError
from tests.capture_files import CAPTURED
from tests.examples import examples

Item = ArchivedRecord | Gap
KINDS = (".jsonl", ".jsonl.gz", ".parquet")

contents = st.none() | st.binary(max_size=12) | st.text(max_size=12).map(str.encode)
names = st.text(max_size=6) | st.binary(max_size=6).map(name_text)
offsets = st.integers(0, 5) | st.integers(0, (1 << 63) - 200)


@st.composite
def logs(draw: st.DrawFn) -> list[Item]:
    """Items of one partition; offsets rise, from anywhere."""
    at, found = draw(offsets), list[Item]()
    for _ in range(draw(st.integers(0, 8))):
        at += draw(st.integers(0, 3))
        if draw(st.booleans()):
            headers = tuple(draw(st.lists(st.tuples(names, contents), max_size=3)))
            timestamp = draw(st.integers(-(1 << 63), (1 << 63) - 1))
            found.append(ArchivedRecord("a-topic", 7, at, timestamp, draw(contents), draw(contents), headers))
        else:
            last = at + draw(st.integers(0, 3))
            found.append(Gap("a-topic", 7, at, last, draw(st.sampled_from(GapKind))))
            at = last
        at += 1
    return found


def a_record(offset: int = 0, *, partition: int = 0, value: bytes | None = b"{}") -> ArchivedRecord:
    return ArchivedRecord("events", partition, offset, 1_720_000_000_000 + offset, b"run_1", value, (("h", b"\xff"),))


def shortly(value: object) -> str | None:
    """Names for parametrized cases: what is expected, not the bytes."""
    return value[:40].replace("\\", "") if isinstance(value, str) else ""


def record_all(folder: Path, items: list[Item], **how: Any) -> Path:
    with Recorder(folder, **how) as recorder:
        for item in items:
            recorder.write(item)
    return folder


def in_files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


# ---------------------------------------------------------------- JSON lines


@given(logs())
def test_a_line_gives_back_its_item(log: list[Item]) -> None:
    for item in log:
        line = encode_line(item)
        assert decode_line(line[:-1], LIMITS) == item
        assert line == encode_line(item)
        assert line.count(b"\n") == 1
        json.loads(line)


def test_names_that_begin_with_an_underscore_or_a_dot_are_left_alone(tmp_path: Path) -> None:
    """An unfinished attempt that went on where the whole file ended was read as if it were part of the log."""
    whole = tmp_path / "part-0.jsonl"
    whole.write_bytes(encode_line(a_record(3)))
    for unfinished in ("_temporary/0/part-1.jsonl", ".staging/part-1.jsonl", "_part-1.jsonl", ".part-1.jsonl.zst"):
        file = tmp_path / unfinished
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(encode_line(a_record(4)))
    assert list(read(tmp_path)) == [a_record(3)]
    for copied in ("part-1.jsonl.part", "part-1.jsonl.gz.tmp", "part-1.parquet.inprogress", "part-1.avro.filepart"):
        (tmp_path / copied).write_bytes(encode_line(a_record(4)))
    for other in ("_SUCCESS", ".part-0.jsonl.crc", "notes.txt", "part-0.tmp"):
        (tmp_path / other).write_bytes(b"no archive")
    assert list(read(tmp_path)) == [a_record(3)]
    assert left_alone(tmp_path) == 8
    assert not empty_files(tmp_path)
    (tmp_path / "part-2.jsonl").touch()
    assert list(read(tmp_path)) == [a_record(3)]
    assert [file.name for file in empty_files(tmp_path)] == ["part-2.jsonl"]
    (tmp_path / "part-2.jsonl").unlink()
    (tmp_path / "part-0.jsonl").unlink()
    with pytest.raises(UsageError, match="no archive in this folder"):
        list(read(tmp_path))


def test_a_byte_order_mark_before_the_first_line_is_no_fault(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_bytes(b"\xef\xbb\xbf" + encode_line(a_record(3)) + encode_line(a_record(4)))
    assert list(read(file)) == [a_record(3), a_record(4)]


@pytest.mark.parametrize("timestamp", [-(1 << 63), -5, -2, 0, (1 << 63) - 1])
@pytest.mark.parametrize("kind", KINDS)
def test_a_timestamp_that_a_broker_takes_is_recorded_and_read(tmp_path: Path, kind: str, timestamp: int) -> None:
    """-5 was recorded, and then refused by the next to read it."""
    record = ArchivedRecord("t", 0, 1, timestamp, b"k", b"v")
    folder = record_all(tmp_path / "a", [record], files=kind)
    assert list(read(folder)) == [record]
    assert survey(folder)["t", 0].last_ms == timestamp


def test_a_line_looks_as_documented() -> None:
    """Typed by hand from docs/archive-format.md."""
    record = ArchivedRecord(
        "t", 3, 41, 1720000000123, None, b"\xc3\xa9", (("n", b"\xff\x00"), ("n", None), ("n\udcff", b""))
    )
    assert encode_line(record).decode() == (
        '{"topic":"t","partition":3,"offset":41,"timestamp":1720000000123,"key":null,"value":"é",'
        '"headers":[["n",{"base64":"/wA="}],["n",null],[{"base64":"bv8="},""]]}\n'
    )
    assert (
        encode_line(Gap("t", 3, 42, 44, GapKind.MARKER))
        == b'{"topic":"t","partition":3,"gap":[42,44],"kind":"marker"}\n'
    )


GOOD = b'{"topic":"t","partition":0,"offset":1,"timestamp":0,"key":null,"value":"x","headers":[]}'


@pytest.mark.parametrize(
    ("line", "what"),
    [
        (b"{", "not JSON"),
        (b"[]", "Expected `object`, got `array`"),
        (b"\xef\xbb\xbf" + GOOD, "not JSON"),
        (b"\xff", "not JSON"),
        (GOOD.replace(b'"x"', b'"\xff"'), "not JSON"),
        (GOOD.replace(b'"x"', b'"\\ud800"'), "not JSON"),
        (GOOD.replace(b'"x"', b"[" * 100_000), "got `array` - at `$.value`"),
        (GOOD.replace(b'"x"', b"NaN"), "not JSON"),
        (GOOD.replace(b'"x"', b"5"), "got `int` - at `$.value`"),
        (GOOD.replace(b'"x"', b'{"base64":"?"}'), "Invalid base64"),
        (GOOD.replace(b'"x"', b'{"base64":"AA==","x":1}'), "unknown field `x`"),
        (GOOD.replace(b'"offset":1', b'"offset":1.5'), "got `float` - at `$.offset`"),
        (GOOD.replace(b'"offset":1', b'"offset":1e3'), "got `float` - at `$.offset`"),
        (GOOD.replace(b'"offset":1', b'"offset":NaN'), "not JSON"),
        (GOOD.replace(b'"offset":1', b'"offset":true'), "got `bool` - at `$.offset`"),
        (GOOD.replace(b'"offset":1', b'"offset":-1'), "not an offset (got -1)"),
        (GOOD.replace(b'"offset":1', b'"offset":9223372036854775808'), "not an offset (got 9223372036854775808)"),
        (GOOD.replace(b'"timestamp":0', b'"timestamp":9223372036854775808'), "not a timestamp"),
        (GOOD.replace(b'"timestamp":0', b'"timestamp":-9223372036854775809'), "not a timestamp"),
        (GOOD.replace(b'"partition":0', b'"partition":-1'), "not a partition (got -1)"),
        (GOOD.replace(b'"partition":0', b'"partition":2147483648'), "not a partition"),
        (GOOD.replace(b'"t"', b'"../t"'), "not the name of a topic (got '../t')"),
        (GOOD.replace(b'"t"', b'".."'), "not the name of a topic"),
        (GOOD.replace(b'"t"', b'"' + b"t" * 5_000 + b'"'), "not the name of a topic"),
        (GOOD.replace(b'"t"', b'"\\u001b[2J"'), "not the name of a topic"),
        (GOOD.replace(b'"headers":[]', b'"heads":[]'), "unknown field `heads`"),
        (GOOD.replace(b'"headers":[]', b'"headers":{}'), "got `object` - at `$.headers`"),
        (GOOD.replace(b"[]", b'[["a"]]'), "length 2 - at `$.headers["),
        (GOOD.replace(b"[]", b"[[null,null]]"), "got `null` - at `$.headers["),
        (GOOD.replace(b"[]", b'[["a",1]]'), "got `int` - at `$.headers["),
        (GOOD.replace(b"[]", b"[" + b",".join([b'["a",null]'] * 10_001) + b"]"), "more than 10000 headers"),
        (GOOD.replace(b',"value":"x"', b""), "a record needs"),
        (GOOD.replace(b"[]", b'[],"gap":[1,2],"kind":"marker"'), "both a gap and a record"),
        (GOOD.replace(b"[]", b'[],"kind":"marker"'), "a record needs"),
        (b'{"topic":"t","partition":0,"gap":[2,1],"kind":"marker"}', "a gap ends before it begins (got 2 to 1)"),
        (b'{"topic":"t","partition":0,"gap":[1,2]}', "a gap without `kind`"),
        (b'{"topic":"t","partition":0,"gap":[1],"kind":"marker"}', "length 2"),
        (b'{"topic":"t","partition":0,"gap":[1,2],"kind":"odd"}', "Invalid enum value 'odd'"),
        (b'{"topic":"t","partition":0,"gap":[1,2],"kind":"' + b"\x7f" * 5_000 + b'"}', "Invalid enum value"),
    ],
    ids=shortly,
)
def test_a_line_that_is_no_item_is_refused_with_its_number(tmp_path: Path, line: bytes, what: str) -> None:
    file = tmp_path / "a.jsonl"
    file.write_bytes(GOOD.replace(b":1", b":0") + b"\n\n" + line + b"\n")
    reading = read(file)
    next(reading)
    with pytest.raises(ArchiveError) as raised:
        next(reading)
    message = raised.value.message
    assert message.startswith(f"archive {file} line 3: ")
    assert what in message
    assert len(message) < len(str(file)) + 300
    assert message.isprintable()
    assert raised.value.exit_code == 65


def test_the_last_line_may_lack_its_end_and_lines_may_end_as_on_windows(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_bytes(GOOD + b"\r\n" + GOOD.replace(b":1", b":2"))
    assert [item.offset for item in read(file) if isinstance(item, ArchivedRecord)] == [1, 2]


def test_lines_longer_than_a_chunk_come_whole(tmp_path: Path) -> None:
    items: list[Item] = [a_record(i, value=bytes([65 + i]) * (700_000 * i)) for i in range(5)]
    file = tmp_path / "a.jsonl"
    file.write_bytes(b"".join(map(encode_line, items)))
    assert list(read(file)) == items


def packed(kind: str, data: bytes) -> bytes:
    return gzip.compress(data, mtime=0) if kind == ".jsonl.gz" else bytes(cramjam.zstd.compress(data))


@pytest.mark.parametrize("kind", [".jsonl.gz", ".jsonl.zst"])
def test_a_compressed_file_may_hold_several_streams(tmp_path: Path, kind: str) -> None:
    file = tmp_path / f"a{kind}"
    file.write_bytes(packed(kind, GOOD) + packed(kind, b"\n" + GOOD.replace(b":1", b":2")))
    assert len(list(read(file))) == 2


@pytest.mark.parametrize("kind", [".jsonl.gz", ".jsonl.zst"])
def test_a_torn_or_foreign_compressed_file_is_refused(tmp_path: Path, kind: str) -> None:
    file = tmp_path / f"a{kind}"
    whole = packed(kind, GOOD + b"\n")
    for data in [b"", whole[:-1], whole[: len(whole) // 2], b"garbage" * 9, whole + b"garbage", GOOD]:
        file.write_bytes(data)
        with pytest.raises(ArchiveError, match=r"cannot be unpacked|ends too early|empty"):
            list(read(file))


@pytest.mark.parametrize("kind", [".jsonl.gz", ".jsonl.zst"])
def test_a_bomb_is_refused_without_being_unpacked(tmp_path: Path, kind: str) -> None:
    """16 MB of line ends, and 16 MB that never end a line, from a few KB."""
    file = tmp_path / f"a{kind}"
    few = Limits(ratio=25, ratio_from_bytes=1 << 20, line_bytes=1 << 19)
    for data, what in [
        (b"\n" * (64 << 20), "more than 25 times its size"),
        (b" " * (16 << 20), "longer than 524288"),
    ]:
        file.write_bytes(packed(kind, data))
        del data
        tracemalloc.start()
        with pytest.raises(ArchiveError, match=what):
            list(read(file, limits=few))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 8 << 20


def test_a_long_line_inside_a_chunk_is_refused_too(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_bytes(encode_line(a_record(0)) + encode_line(a_record(1, value=b"x" * 999)) + encode_line(a_record(2)))
    with pytest.raises(ArchiveError, match=r"line 2: longer than 500 bytes"):
        list(read(file, limits=Limits(line_bytes=500)))


def each_flip(data: bytes, step: int = 1) -> Iterator[bytes]:
    for at in range(0, len(data), step):
        yield data[:at] + bytes([data[at] ^ 0x41]) + data[at + 1 :]


@pytest.mark.parametrize("kind", [".jsonl.gz", ".parquet"])
def test_no_flipped_byte_of_a_recording_goes_unseen(tmp_path: Path, kind: str) -> None:
    """It is refused, or it was a byte that says nothing about the records."""
    items: list[Item] = [a_record(i, value=os.urandom(50)) for i in range(4)]
    folder = record_all(tmp_path / "a", items, files=kind)
    (name,) = (folder / "events/0").iterdir()
    refused = 0
    whole = name.read_bytes()
    for data in each_flip(whole, 1 if kind == ".jsonl.gz" else 7):
        name.write_bytes(data)
        try:
            got = list(read(folder))
        except ArchiveError:
            refused += 1
        else:
            assert got == items
    assert refused > 10


# ---------------------------------------------------------------- order, folders, ranges


def test_offsets_that_do_not_rise_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    for second in (a_record(5), a_record(4), Gap("events", 0, 5, 9, GapKind.MARKER)):
        file.write_bytes(encode_line(a_record(5)) + encode_line(a_record(1, partition=1)) + encode_line(second))
        with pytest.raises(ArchiveError, match=r"line 3: offsets of events-0 do not rise \(got [45] after 5\)"):
            list(read(file))
    file.write_bytes(encode_line(Gap("events", 0, 5, 9, GapKind.MARKER)) + encode_line(a_record(9)))
    with pytest.raises(ArchiveError, match="after 9"):
        list(read(file))


def test_a_folder_is_read_in_the_order_of_names_with_numbers_as_numbers(tmp_path: Path) -> None:
    for at, name in enumerate(
        ["p2.jsonl", "p10.jsonl", "q/1/a.jsonl.gz", "q/02/a.jsonl.zst", "q/11.jsonl", "²/a.jsonl"]
    ):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        line = encode_line(a_record(at))
        file.write_bytes(line if name.endswith("l") else packed(name[name.index(".") :], line))
    (tmp_path / "README.md").write_text("not one of them")
    assert list(read(tmp_path)) == [a_record(i) for i in range(6)]
    (tmp_path / "p1.jsonl").write_bytes(encode_line(a_record(3)))
    with pytest.raises(ArchiveError, match=r"p2\.jsonl line 1: offsets of events-0 do not rise \(got 0 after 3\)"):
        list(read(tmp_path))


def test_what_is_no_archive_is_said_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        list(read(tmp_path / "none"))
    with pytest.raises(UsageError, match="no archive in this folder"):
        list(read(tmp_path))
    (tmp_path / "a.csv").write_text("a")
    with pytest.raises(UsageError, match="not a known kind"):
        list(read(tmp_path / "a.csv"))
    with pytest.raises(UsageError, match="needs a partition"):
        list(read(tmp_path, begin=3))


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
@settings(max_examples=examples(25))
def test_a_range_is_the_items_in_it(tmp_path_factory: pytest.TempPathFactory, kind: str, data: st.DataObject) -> None:
    """Whatever the sizes of the files; gaps are cut."""
    log = data.draw(logs())
    folder = record_all(tmp_path_factory.mktemp("a") / "a", [a_record(3), *log], files=kind, file_bytes=120)
    first = data.draw(offsets)
    last = first + data.draw(st.integers(0, 20))
    wanted: list[Item] = []
    for item in log:
        if isinstance(item, ArchivedRecord):
            wanted += [item] * (first <= item.offset < last)
        elif max(item.first, first) < min(item.last + 1, last):  # an empty range has no part of a gap, either
            wanted.append(Gap(item.topic, 7, max(item.first, first), min(item.last, last - 1), item.kind))
    assert list(read(folder, only=("a-topic", 7), begin=first, end=last)) == wanted
    assert list(read(folder, only=("a-topic", 7))) == log
    assert list(read(folder, only=("a-topic", 8))) == []


def test_files_outside_the_range_are_not_opened(tmp_path: Path) -> None:
    folder = record_all(tmp_path / "a", [a_record(i) for i in range(10)], file_bytes=1)
    home = folder / "events/0"
    for offset in (0, 1, 8, 9):
        (home / f"{offset:020d}.jsonl.gz").write_bytes(b"spoilt")
    assert list(read(folder, only=("events", 0), begin=2, end=8)) == [a_record(i) for i in range(2, 8)]
    with pytest.raises(ArchiveError):
        list(read(folder, only=("events", 0), begin=1, end=8))
    file = tmp_path / "a.jsonl"
    file.write_bytes(b"".join(encode_line(a_record(i)) for i in range(3)) + b"spoilt")
    assert list(read(file, only=("events", 0), end=2)) == [a_record(0), a_record(1)]


def test_a_recorded_file_under_a_wrong_name_is_refused(tmp_path: Path) -> None:
    """The name decides what is opened, so it must not lie."""
    folder = record_all(tmp_path / "a", [a_record(i) for i in range(3)], file_bytes=1)
    home = folder / "events/0"
    (home / f"{2:020d}.jsonl.gz").rename(home / f"{7:020d}.jsonl.gz")
    with pytest.raises(ArchiveError, match="begins elsewhere"):
        list(read(folder))
    home.rename(folder / "events/1")
    with pytest.raises(ArchiveError, match="begins elsewhere"):
        list(read(folder))
    (folder / f"events/1/{0:020d}.jsonl.gz").write_bytes(gzip.compress(b""))
    with pytest.raises(ArchiveError, match="holds nothing"):
        list(read(folder))


def test_a_survey_says_what_there_is(tmp_path: Path) -> None:
    items: list[Item] = [
        Gap("events", 0, 2, 3, GapKind.MISSING),
        a_record(4),
        a_record(6),
        Gap("events", 0, 7, 9, GapKind.MARKER),
        Gap("events", 1, 0, 0, GapKind.ABORTED),
    ]
    folder = record_all(tmp_path / "a", items)
    assert survey(folder) == {
        ("events", 0): Extent(2, 10, 2, 1_720_000_000_004, 1_720_000_000_006),
        ("events", 1): Extent(0, 1, 0, -1, -1),
    }
    reached = {("events", 0): (2, 10), ("events", 1): (0, 1)}
    assert reach(folder) == reached
    (file,) = folder.rglob("events/0/*.jsonl.gz")
    assert reach(file) == {("events", 0): reached["events", 0]}, "without a label all is read"


@pytest.mark.parametrize("kind", [".jsonl", ".jsonl.gz"])
def test_how_far_a_recording_reaches_is_read_off_its_end_and_borne_out_by_reading(tmp_path: Path, kind: str) -> None:
    """The last line claims less than the file holds: nobody may take the claim for the whole."""
    folder = record_all(tmp_path / "a", [a_record(i) for i in range(9)], files=kind)
    (file,) = folder.rglob("events/0/*")
    lines = b"".join(encode_line(item) for item in [*(a_record(i) for i in range(9)), a_record(4)])
    file.write_bytes(gzip.compress(lines) if kind.endswith(".gz") else lines)
    assert reach(folder) == {("events", 0): (0, 5)}
    with pytest.raises(ArchiveError, match="offsets of events-0 do not rise"):
        list(read(folder, only=("events", 0), begin=0, end=5))
    foreign = encode_line(a_record(50, partition=3))
    lines = b"".join(encode_line(a_record(i)) for i in range(9)) + foreign
    file.write_bytes(gzip.compress(lines) if kind.endswith(".gz") else lines)
    assert reach(folder) == {("events", 0): (0, 9)}, "what is of another partition says nothing of this one"
    file.write_bytes(gzip.compress(lines + b"{") if kind.endswith(".gz") else lines + b"{")
    with pytest.raises(ArchiveError, match="line 11"):
        reach(folder)


@pytest.mark.parametrize("kind", KINDS)
def test_the_end_of_a_recording_is_found_behind_long_lines_and_empty_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr("processor.archives.jsonl.CHUNK_BYTES", 64)
    ends: list[Item] = [a_record(8, value=b"x" * 900), Gap("events", 0, 8, 20, GapKind.MARKER)]
    for number, last in enumerate(ends):
        folder = record_all(tmp_path / str(number), [*(a_record(i) for i in range(8)), last], files=kind)
        if kind == ".jsonl":
            (file,) = folder.rglob("events/0/*")
            file.write_bytes(file.read_bytes() + b"\n \n" * 100)
        assert reach(folder) == {key: (one.begin, one.end) for key, one in survey(folder).items()}


@pytest.mark.parametrize("kind", KINDS)
def test_lists_of_items_are_the_items_and_what_is_refused_comes_last(tmp_path: Path, kind: str) -> None:
    plain = [ArchivedRecord("events", 0, i, i, b"k%d" % i, b"v" * (i % 7)) for i in range(5_000)]
    mixed: list[Item] = [
        a_record(5_000),
        ArchivedRecord("events", 0, 5_001, -1, None, b""),
        a_record(5_002, partition=1),
    ]
    mixed += [Gap("events", 0, 5_002, 5_004, GapKind.ABORTED), ArchivedRecord("events", 0, 5_005, 0, b"", None)]
    folder = record_all(tmp_path / "a", [*plain, *mixed], files=kind)
    parts = list(read_batches(folder))
    assert all(parts)
    assert [item for part in parts for item in part] == [*plain, *(i for i in mixed if i.partition == 0), mixed[2]]
    for begin, end in ((0, 1), (17, 4_711), (4_999, 5_004), (5_003, 5_004), (6_000, 7_000)):
        found = [item for part in read_batches(folder, only=("events", 0), begin=begin, end=end) for item in part]
        assert found == list(read(folder, only=("events", 0), begin=begin, end=end))
        offsets = [o for i in found for o in (range(i.first, i.last + 1) if isinstance(i, Gap) else [i.offset])]
        assert offsets == list(range(begin, min(end, 5_006)))


# ---------------------------------------------------------------- recording


@pytest.mark.parametrize("kind", KINDS)
@given(log=logs(), file_bytes=st.sampled_from([1, 200, 1 << 20]))
@settings(max_examples=examples(25))
def test_a_recording_gives_back_what_was_written_and_the_same_bytes_each_time(
    tmp_path_factory: pytest.TempPathFactory, kind: str, log: list[Item], file_bytes: int
) -> None:
    base = tmp_path_factory.mktemp("a")
    if log:
        one = record_all(base / "one", log, files=kind, file_bytes=file_bytes)
        two = record_all(base / "two", log, files=kind, file_bytes=file_bytes)
        assert list(read(one)) == log
        assert reach(one) == {key: (extent.begin, extent.end) for key, extent in survey(one).items()}
        assert in_files(one) == in_files(two)


@pytest.mark.parametrize("kind", KINDS)
def test_after_a_crash_anywhere_the_recording_goes_on_and_ends_the_same(tmp_path: Path, kind: str) -> None:
    items: list[Item] = []
    for i in range(0, 40, 2):
        items += [a_record(i), a_record(i, partition=1), Gap("events", 0, i + 1, i + 1, GapKind.MARKER)]
    whole = in_files(record_all(tmp_path / "whole", items, files=kind, file_bytes=500))
    assert len(whole) > 6
    for crash in range(0, len(items), 3):
        folder = tmp_path / f"crash{crash}"
        with contextlib.suppress(KeyboardInterrupt), Recorder(folder, files=kind, file_bytes=500) as recorder:
            for item in items[:crash]:
                recorder.write(item)
            raise KeyboardInterrupt
        with Recorder(folder, files=kind, file_bytes=500) as recorder:
            going_on = {p: recorder.next_offset("events", p) or 0 for p in (0, 1)}
            for item in items:
                if (item.offset if isinstance(item, ArchivedRecord) else item.first) >= going_on[item.partition]:
                    recorder.write(item)
        assert in_files(folder) == whole


def test_what_still_grows_is_no_part_of_the_archive(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "a", file_bytes=300)
    for i in range(10):
        recorder.write(a_record(i))
    there = list(read(tmp_path / "a"))
    assert there == [a_record(i) for i in range(len(there))]
    assert 0 < len(there) < 10
    recorder.abandon()
    assert [p.name for p in (tmp_path / "a/events/0").glob("*.part")] == ["recording.part"]
    with Recorder(tmp_path / "a") as again:
        assert again.next_offset("events", 0) == len(there)
        assert again.next_offset("events", 1) is None
        again.write(a_record(len(there)))
    assert not list(tmp_path.rglob("*.part"))


def test_what_is_recorded_is_not_recorded_again(tmp_path: Path) -> None:
    record_all(tmp_path / "a", [a_record(4)])
    with Recorder(tmp_path / "a") as recorder:
        for offset in (0, 4):
            with pytest.raises(UsageError, match=rf"events-0 is recorded up to offset 5 \(got {offset}\)"):
                recorder.write(a_record(offset))
        recorder.write(a_record(5))
        with pytest.raises(UsageError, match="up to offset 6"):
            recorder.write(a_record(5))
    assert list(read(tmp_path / "a")) == [a_record(4), a_record(5)]


@pytest.mark.skipif(sys.platform == "win32", reason="no such lock")
def test_two_recorders_cannot_have_one_partition(tmp_path: Path) -> None:
    with Recorder(tmp_path / "a") as one, Recorder(tmp_path / "a") as two:
        one.write(a_record(0))
        two.write(a_record(0, partition=1))
        with pytest.raises(UsageError, match="another recording is under way"):
            two.write(a_record(0))
    assert len(list(read(tmp_path / "a"))) == 2
    with Recorder(tmp_path / "a") as three:
        three.write(a_record(1))


def test_a_recording_does_not_go_into_a_folder_of_something_else(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match="in use"):
        Recorder(tmp_path)
    record_all(tmp_path / "a", [a_record(0)])
    with pytest.raises(UsageError, match=r"holds \.jsonl\.gz files"):
        Recorder(tmp_path / "a", files=".parquet")
    with pytest.raises(UsageError, match="cannot record"):
        Recorder(tmp_path / "b", files=".csv")
    for label in (
        "{",
        "[]",
        '{"run-steps archive": 2, "files": ".jsonl"}',
        '{"run-steps archive": 1, "files": []}',
        "[" * 4000,
    ):
        (tmp_path / "a/archive.json").write_text(label)
        with pytest.raises(ArchiveError, match=r"archive\.json"):
            list(read(tmp_path / "a"))


@pytest.mark.parametrize("topic", ["../up", "..", ".", "", "a/b", "a" * 250, "ä"])
def test_a_topic_name_cannot_lead_out_of_the_folder(tmp_path: Path, topic: str) -> None:
    with Recorder(tmp_path / "a") as recorder, pytest.raises(ArchiveError, match="not the name of a topic"):
        recorder.write(ArchivedRecord(topic, 0, 0, 0, None, None))
    assert [p.name for p in tmp_path.rglob("*")] == ["a", "archive.json"]


@pytest.mark.parametrize("kind", KINDS)
def test_what_no_reader_takes_is_refused_while_recording(tmp_path: Path, kind: str) -> None:
    few = Limits(line_bytes=1_000, headers=2)
    with Recorder(tmp_path / "a", files=kind, limits=few) as recorder:
        recorder.write(a_record(0))
        with pytest.raises(ArchiveError, match="at offset 1"):
            recorder.write(a_record(1, value=b"x" * 1_000))
        with pytest.raises(ArchiveError, match="headers at offset 1"):
            recorder.write(ArchivedRecord("events", 0, 1, 0, None, None, (("a", None),) * 3))
        recorder.write(a_record(1))
    assert list(read(tmp_path / "a", limits=few)) == [a_record(0), a_record(1)]


# ---------------------------------------------------------------- Parquet


def parquet(path: Path, rows: list[dict[str, Any]] | None = None, schema: pa.Schema = SCHEMA, **how: Any) -> Path:
    row = {"topic": "t", "partition": 0, "offset": 1, "timestamp": 2, "key": None, "value": b"v", "headers": []}
    rows = [{name: row.get(name) for name in schema.names}] if rows is None else rows
    pq.write_table(pa.Table.from_pylist(rows, schema), path, **how)
    return path


def with_column(name: str, kind: pa.DataType) -> pa.Schema:
    return SCHEMA.set(SCHEMA.get_field_index(name), pa.field(name, kind))


def test_parquet_of_other_hands_is_read(tmp_path: Path) -> None:
    """Large types, dictionaries that overflow, other pages and codecs, no optional columns, other integer widths."""
    rows = [
        {"topic": "t", "partition": 0, "offset": i, "timestamp": i, "key": b"k%d" % (i % 3), "value": b"%d" % i * 40}
        for i in range(3_000)
    ]
    wanted = [ArchivedRecord("t", 0, i, i, b"k%d" % (i % 3), b"%d" % i * 40) for i in range(3_000)]
    fields = [
        ("topic", pa.large_string()),
        ("partition", pa.int64()),
        ("offset", pa.uint32()),
        ("timestamp", pa.int64()),
        ("key", pa.large_binary()),
        ("value", pa.binary()),
    ]
    for at, how in enumerate(
        [
            {},
            {"compression": "gzip", "data_page_version": "2.0", "row_group_size": 700},
            {"compression": "none", "dictionary_pagesize_limit": 2_000, "data_page_size": 1_000},
            {"use_dictionary": False, "compression": "zstd"},
        ]
    ):
        file = parquet(tmp_path / f"{at}.parquet", rows, pa.schema(fields), **how)
        assert list(read(file)) == wanted


def test_a_column_of_text_is_taken_as_its_utf8(tmp_path: Path) -> None:
    file = parquet(tmp_path / "a.parquet", schema=with_column("value", pa.string()))
    assert list(read(file)) == [ArchivedRecord("t", 0, 1, 2, None, b"v")]


@pytest.mark.parametrize(
    ("schema", "what"),
    [
        (SCHEMA.remove(5).remove(2), "no column offset, value"),
        (SCHEMA.append(pa.field("weather", pa.int32())), r"got weather"),
        (with_column("offset", pa.float64()), "column offset is double, not int64"),
        (with_column("timestamp", pa.date32()), "column timestamp is date32"),
        (with_column("topic", pa.binary()), "column topic is binary"),
        (with_column("value", pa.list_(pa.int8())), "column value is list"),
        (with_column("headers", pa.map_(pa.string(), pa.binary())), "column headers is map"),
        (with_column("headers", pa.list_(pa.struct([("name", pa.string())]))), "column headers is list"),
        (with_column("headers", pa.string()), "column headers is string"),
    ],
)
def test_other_columns_are_refused(tmp_path: Path, schema: pa.Schema, what: str) -> None:
    file = parquet(tmp_path / "a.parquet", [], schema)
    with pytest.raises(ArchiveError, match=f"a.parquet the schema: .*{what}"):
        list(read(file))


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"offset": None}, "topic, partition or offset is null"),
        ({"topic": None}, "topic, partition or offset is null"),
        ({"timestamp": None}, "timestamp is null"),
        ({"timestamp": None, "value": None, "gap_last": 5}, "not a gap"),
        ({"timestamp": None, "value": None, "kind": "marker"}, "not a gap"),
        ({"timestamp": None, "value": None, "kind": "odd", "gap_last": 5}, "not a gap"),
        ({"kind": "marker", "gap_last": 5}, "both a gap and a record"),
        ({"kind": "marker"}, "not a gap"),
        ({"gap_last": 5}, "not a gap"),
        ({"headers": [{"name": None, "value": b""}]}, "without a name"),
        ({"headers": [{"name": "a", "value": b""}] * 10_001}, "more than 10000 headers"),
        ({"offset": -5}, "not an offset"),
        ({"offset": 0}, "do not rise"),
    ],
)
def test_a_row_that_is_no_item_is_refused_with_its_number(tmp_path: Path, change: dict[str, Any], what: str) -> None:
    loose = pa.schema([field.with_nullable(True) for field in SCHEMA])
    pair = pa.struct([("name", pa.string()), ("value", pa.binary())])
    loose = loose.set(6, pa.field("headers", pa.list_(pair)))
    row: dict[str, Any] = {"topic": "t", "partition": 0, "timestamp": 2, "value": b"v", "headers": []}
    rows = [{**row, "offset": 0}, {**row, "offset": 1, **change}]
    file = parquet(tmp_path / "a.parquet", rows, loose, use_dictionary=["topic", "kind"])  # as we write it
    for reading in (read(file), read_pieces(file, ("t", 0), begin=0, end=9)):
        with pytest.raises(ArchiveError, match=f"a.parquet row group 0 row 2: .*{what}"):
            list(reading)


def test_a_torn_or_foreign_parquet_file_is_refused(tmp_path: Path) -> None:
    file = parquet(tmp_path / "a.parquet")
    whole = file.read_bytes()
    footer = int.from_bytes(whole[-8:-4], "little")
    for data, what in [
        (b"", "not a Parquet file"),
        (b"PAR1", "not a Parquet file"),
        (whole[:-1], "not a Parquet file"),
        (whole[: len(whole) // 2], "not a Parquet file"),
        (whole[:-8] + b"\xff\xff\xff\x7fPAR1", "claims 2147483647 bytes"),
        (whole[:-8] + len(whole).to_bytes(4, "little") + b"PAR1", "claims"),
        (whole[: -8 - footer] + b"\x00" * footer + whole[-8:], "cannot be read"),
        (b"\x00" * (len(whole) - 8 - footer) + whole[-8 - footer :], "row group 0 column topic"),
    ]:
        file.write_bytes(data)
        with pytest.raises(ArchiveError, match=what):
            list(read(file))


def test_no_flipped_byte_of_a_footer_ends_the_process(tmp_path: Path) -> None:
    """pyarrow aborts on some of them when it is asked for the metadata of a column."""
    row = {"topic": "t", "partition": 0, "offset": 0, "timestamp": 0, "key": b"k", "value": b"v"}
    file = parquet(tmp_path / "a.parquet", [row], pa.schema(list(SCHEMA)[:6]), store_schema=False)
    whole = file.read_bytes()
    begin = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
    refused = 0
    for data in each_flip(whole[begin:-8]):
        file.write_bytes(whole[:begin] + data + whole[-8:])
        try:
            list(read(file))
        except ArchiveError:
            refused += 1
    assert refused > 100


def test_a_footer_of_too_many_values_is_refused() -> None:
    """Two lists of nothing: each value takes a byte, and as an object a hundred."""
    empty = b"\x19\xfc" + b"\x80\x80\x80\x04" + b"\x00" * (8 << 20) + b"\x00"
    with pytest.raises(ValueError, match="too many values"):
        row_groups(empty)
    for data in (b"", b"\x49\x1c\x00\x00", b"\x45\x02\x00", b"\x49\x15\x02\x00", b"\x15"):
        with pytest.raises(ValueError, match="footer"):
            row_groups(data)


def test_a_million_rows_that_name_one_large_value_do_not_fill_memory(tmp_path: Path) -> None:
    """A dictionary bomb: 8 MB once, named 20,000 times (160 GB if it were copied out)."""
    count = 20_000
    big = pa.DictionaryArray.from_arrays(pa.array([0] * count, pa.int32()), pa.array([b"x" * (8 << 20)], pa.binary()))
    names = pa.DictionaryArray.from_arrays(pa.array([0] * count, pa.int32()), pa.array(["n" * (1 << 20)]))
    headers = pa.ListArray.from_arrays(
        pa.array(range(count + 1), pa.int32()), pa.StructArray.from_arrays([names, big], ["name", "value"])
    )
    table = pa.table(
        {
            "topic": ["t"] * count,
            "partition": pa.array([0] * count, pa.int32()),
            "offset": range(count),
            "timestamp": [0] * count,
            "key": pa.array([None] * count, pa.binary()),
            "value": big,
            "headers": headers,
        }
    )
    file = tmp_path / "a.parquet"
    pq.write_table(
        table, file, compression="zstd", dictionary_pagesize_limit=64 << 20, row_group_size=count, store_schema=False
    )
    del table, headers, names, big
    assert file.stat().st_size < 1 << 20
    before = pa.default_memory_pool().max_memory()
    seen = 0
    for item in read(file):
        assert isinstance(item, ArchivedRecord)
        assert item.value is not None
        seen += len(item.value) >> 20
    assert seen == 8 * count
    assert pa.default_memory_pool().max_memory() <= max(before, 400 << 20)
    with pytest.raises(ArchiveError, match=r"row group 0: unpacks to more than 2 times its size"):
        list(read(file, limits=Limits(ratio=2, ratio_from_bytes=1 << 20)))


def test_a_page_that_claims_too_much_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    file = parquet(tmp_path / "a.parquet", compression="zstd", use_dictionary=False)
    with pytest.raises(ArchiveError, match=r"column topic: claims a page of \d+ bytes and 1 values"):
        list(read(file, limits=Limits(block_bytes=4)))
    with pytest.raises(ArchiveError, match="row group 0: unpacks to more than"):
        list(read(file, limits=Limits(group_bytes=16)))
    rows = [{"topic": "t", "partition": 0, "offset": i, "timestamp": 0} for i in range(100)]
    with pytest.raises(ArchiveError, match=r"column topic: claims a page of \d+ bytes and 100 values"):
        list(read(parquet(file, rows, use_dictionary=False), limits=Limits(rows=99)))


@given(st.binary(max_size=200))
@settings(max_examples=examples(200))
def test_page_headers_of_any_bytes_end_in_an_answer(data: bytes) -> None:
    try:
        found = pages(BytesIO(data), 0, len(data))
    except ValueError:
        return
    assert all(page.packed <= len(data) for page in found)


def test_page_headers_that_never_end_are_refused() -> None:
    for data in (
        b"\x1c" * 100,
        b"\x15\x80" + b"\x80" * 20,
        b"\x19\xf5" + b"\xff" * 5,
        b"\x18\xff\xff\xff\xff\x0f",
        b"\x1b",
    ):
        with pytest.raises(ValueError, match="page"):
            pages(BytesIO(data), 0, len(data))


# ---------------------------------------------------------------- Event Hubs Capture

HOME = "space/hub.one/3/2024/07/24/22/15/30.avro"
AT_2024 = 1_721_859_330_000
"""24 July 2024, 22:15:30 UTC."""


def captured(offset: int = 0, **change: Any) -> dict[str, Any]:
    event = {
        "SequenceNumber": offset,
        "Offset": str(offset * 100),
        "EnqueuedTimeUtc": "7/24/2024 10:15:30 PM",
        "SystemProperties": {},
        "Properties": {},
        "Body": b"{}",
    }
    return {**event, **change}


def capture_file(root: Path, events: list[dict[str, Any]], schema: dict[str, Any] = CAPTURED, **how: Any) -> Path:
    file = root / HOME
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("wb") as out:
        fastavro.writer(out, schema, events, sync_marker=b"0123456789abcdef", **how)
    return file


@pytest.mark.parametrize("codec", ["null", "deflate", "snappy"])
def test_captured_events_become_records(tmp_path: Path, codec: str) -> None:
    properties = {"b": b"\xff\x00", "s": "é", "n": -7, "d": 0.5, "z": None}
    capture_file(
        tmp_path,
        [
            captured(7, SystemProperties={"x-opt-partition-key": "run_1"}, Properties=properties),
            captured(8, SystemProperties={"x-opt-kafka-key": b"run_2", "x-opt-partition-key": "no"}, Body=None),
            captured(9, SystemProperties={"x-opt-enqueued-time": AT_2024 + 123}),
        ],
        codec=codec,
    )
    headers = (("b", b"\xff\x00"), ("s", "é".encode()), ("n", b"-7"), ("d", b"0.5"), ("z", None))
    assert list(read(tmp_path)) == [
        ArchivedRecord("hub.one", 3, 7, AT_2024, b"run_1", b"{}", headers),
        ArchivedRecord("hub.one", 3, 8, AT_2024, b"run_2", None),
        ArchivedRecord("hub.one", 3, 9, AT_2024 + 123, None, b"{}"),
    ]


def test_text_of_a_capture_keeps_its_bytes(tmp_path: Path) -> None:
    """A Kafka client may have sent a header whose name is not UTF-8."""
    file = capture_file(tmp_path, [captured(7, Properties={"nameX": "textY"})])
    file.write_bytes(file.read_bytes().replace(b"nameX", b"name\xff").replace(b"textY", b"text\xfe"))
    (item,) = read(tmp_path)
    assert isinstance(item, ArchivedRecord)
    assert item.headers == ((name_text(b"name\xff"), b"text\xfe"),)


def test_many_blocks_and_none(tmp_path: Path) -> None:
    file = capture_file(tmp_path, [captured(i) for i in range(500)], sync_interval=200)
    assert [item.offset for item in read(file) if isinstance(item, ArchivedRecord)] == list(range(500))
    assert list(read(capture_file(tmp_path, []))) == []


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [
        ("7/24/2024 10:15:30 PM", AT_2024),
        ("7/24/2024 12:15:30 AM", AT_2024 - 22 * 3_600_000),
        ("7/24/2024 12:15:30 PM", AT_2024 - 10 * 3_600_000),
        ("07/24/2024 01:15:30 AM", AT_2024 - 21 * 3_600_000),
        ("2024-07-24T22:15:30Z", AT_2024),
        ("2024-07-24T22:15:30.0450000Z", AT_2024 + 45),
        ("2024-07-24T22:15:30.9999999+00:00", AT_2024 + 999),
        ("24/7/2024 10:15:30 PM", None),
        ("7/24/2024 13:15:30 PM", None),
        ("2024-07-24T22:15:30+02:00", None),
        ("2024-07-24T25:15:30Z", None),
        ("", None),
        ("yesterday\x1b[2J" * 50, None),
    ],
)
def test_the_time_of_an_event(tmp_path: Path, text: str, milliseconds: int | None) -> None:
    file = capture_file(tmp_path, [captured(0, EnqueuedTimeUtc=text)])
    if milliseconds is not None:
        (item,) = read(file)
        assert isinstance(item, ArchivedRecord)
        assert item.timestamp == milliseconds
        return
    with pytest.raises(ArchiveError, match="block 1 event 1: EnqueuedTimeUtc cannot be read") as raised:
        list(read(file))
    assert raised.value.message.isprintable()
    assert len(raised.value.message) < len(str(file)) + 300


def test_the_path_or_the_caller_says_which_partition_it_is(tmp_path: Path) -> None:
    file = capture_file(tmp_path, [captured(0)])
    for capture, wanted in [
        (Capture(topic="other"), ("other", 3)),
        (Capture(partition=5), ("hub.one", 5)),
        (Capture(pattern="{EventHub}/{PartitionId}/{Year}/{Month}/{Day}/{Hour}/{Minute}/{Second}"), ("hub.one", 3)),
        (Capture(pattern="x", topic="t", partition=0), ("t", 0)),
    ]:
        (item,) = read(file, capture=capture)
        assert (item.topic, item.partition) == wanted
    moved = tmp_path / "a.avro"
    file.rename(moved)
    with pytest.raises(UsageError, match="does not say which topic"):
        list(read(moved))
    with pytest.raises(UsageError, match="does not say which partition"):
        list(read(moved, capture=Capture(topic="t")))
    (item,) = read(moved, capture=Capture(pattern="{EventHub}", partition=1))
    assert (item.topic, item.partition) == ("a", 1)


def changed(name: str, kind: object) -> dict[str, Any]:
    fields = [{"name": f["name"], "type": kind} if f["name"] == name else f for f in CAPTURED["fields"]]
    return {**CAPTURED, "fields": fields}


def avro(schema: bytes, blocks: bytes = b"", codec: bytes = b"null") -> bytes:
    """A container file by hand, whatever it says."""
    out = BytesIO(b"Obj\x01")
    out.seek(4)
    out.write(zigzag(2))
    for part in (b"avro.schema", schema, b"avro.codec", codec):
        out.write(zigzag(len(part)) + part)
    out.write(zigzag(0) + b"0123456789abcdef" + blocks)
    return out.getvalue()


def zigzag(number: int) -> bytes:
    number = (number << 1) ^ (number >> 63)
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes(out) + bytes([number])


SYNC = b"0123456789abcdef"


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"", "the header: the file ends too early"),
        (b"PAR1" * 9, "not an Avro container file"),
        (b"Obj\x01" + zigzag(1 << 40), "more than 64 entries"),
        (b"Obj\x01" + zigzag(1) + zigzag(1 << 40), "claims an entry of 1099511627776 bytes"),
        (b"Obj\x01" + b"\xff" * 20, "a length has no end"),
        (avro(b"{"), "the schema: not JSON"),
        (avro(b"[" * 100_000), "the schema: not JSON"),
        (avro(b'"string"'), "not that of a record"),
        (avro(b'{"type":"record","name":"X","fields":[]}'), "no field Body, EnqueuedTimeUtc"),
        (avro(json.dumps(changed("Body", "string")).encode()), "field Body cannot be string"),
        (
            avro(json.dumps(changed("Body", {"type": "array", "items": "null"})).encode()),
            "field Body cannot be of that",
        ),
        (avro(json.dumps(changed("SequenceNumber", "string")).encode()), "field SequenceNumber cannot be string"),
        (avro(json.dumps(changed("Properties", {"type": "map", "values": CAPTURED})).encode()), "map of other things"),
        (avro(json.dumps({**CAPTURED, "fields": [{"name": "x\x1b", "type": "int"}]}).encode()), "got field 'x"),
        (avro(json.dumps({**CAPTURED, "fields": CAPTURED["fields"] * 2}).encode()), "got field 'SequenceNumber'"),
        (avro(json.dumps(CAPTURED).encode(), codec=b"bzip2"), "codec 'bzip2'"),
        (avro(json.dumps(CAPTURED).encode(), zigzag(1 << 50) + zigzag(0)), "claims 1125899906842624 events in 0 bytes"),
        (avro(json.dumps(CAPTURED).encode(), zigzag(1) + zigzag(1 << 50)), "claims 1 events in 1125899906842624 bytes"),
        (avro(json.dumps(CAPTURED).encode(), zigzag(-1) + zigzag(0)), "claims -1 events"),
        (avro(json.dumps(CAPTURED).encode(), zigzag(1) + zigzag(1000)), "block 1: the file ends too early"),
        (avro(json.dumps(CAPTURED).encode(), zigzag(1) + zigzag(3) + b"\xff" * 3 + SYNC), "event 1: cannot be decoded"),
        (
            avro(json.dumps(CAPTURED).encode(), zigzag(0) + zigzag(1) + b"x" + SYNC),
            "block 1: holds more than its events",
        ),
        (avro(json.dumps(CAPTURED).encode(), zigzag(0) + zigzag(0) + SYNC[::-1]), "does not end with the mark"),
        (avro(json.dumps(CAPTURED).encode(), zigzag(1) + zigzag(2) + b"xx" + SYNC, b"deflate"), "cannot be unpacked"),
        (avro(json.dumps(CAPTURED).encode(), zigzag(1) + zigzag(2) + b"xx" + SYNC, b"snappy"), "cannot be unpacked"),
        (avro(json.dumps(CAPTURED).encode(), zigzag(1) + zigzag(0) + SYNC, b"snappy"), "cannot be unpacked"),
    ],
    ids=shortly,
)
def test_what_is_no_capture_is_refused(tmp_path: Path, data: bytes, what: str) -> None:
    file = tmp_path / HOME
    file.parent.mkdir(parents=True)
    file.write_bytes(data)
    with pytest.raises(ArchiveError) as raised:
        list(read(file))
    assert raised.value.message.startswith(f"archive {file} ")
    assert what in raised.value.message
    assert raised.value.message.isprintable()


@pytest.mark.parametrize(
    ("codec", "pack"),
    [
        (b"deflate", lambda data: zlib.compress(data, 9)[2:-4]),
        (b"snappy", lambda data: bytes(cramjam.snappy.compress_raw(data)) + struct.pack(">I", zlib.crc32(data))),
    ],
)
def test_a_capture_bomb_is_refused(tmp_path: Path, codec: bytes, pack: Callable[[bytes], bytes]) -> None:
    block = pack(b"\x00" * (16 << 20))
    file = tmp_path / HOME
    file.parent.mkdir(parents=True)
    file.write_bytes(avro(json.dumps(CAPTURED).encode(), zigzag(1) + zigzag(len(block)) + block + SYNC, codec))
    tracemalloc.start()
    with pytest.raises(ArchiveError, match=r"block 1: (unpacks to more|cannot be unpacked)"):
        list(read(file, limits=Limits(block_bytes=2 << 20)))
    assert tracemalloc.get_traced_memory()[1] < 8 << 20
    tracemalloc.stop()
    with pytest.raises(ArchiveError, match="20 times its size"):
        list(read(file, limits=Limits(ratio=20, ratio_from_bytes=1 << 20)))


def test_a_capture_cut_or_flipped_anywhere_gives_records_or_an_error(tmp_path: Path) -> None:
    """Nothing but an ArchiveError ever comes out of it."""
    events = [captured(i, Properties={"a": i}, Body=os.urandom(20)) for i in range(4)]
    file = capture_file(tmp_path, events, codec="deflate")
    whole = file.read_bytes()
    refused = 0
    for data in [*(whole[:cut] for cut in range(0, len(whole), 3)), *each_flip(whole, 2)]:
        file.write_bytes(data)
        try:
            list(read(file))
        except ArchiveError:
            refused += 1
    assert refused > len(whole) // 4


# ---------------------------------------------------------------- extras


@pytest.mark.parametrize(
    ("lacking", "name"), [("pyarrow", "a.parquet"), ("pyarrow", "a.jsonl.zst"), ("fastavro", HOME)]
)
def test_a_missing_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lacking: str, name: str) -> None:
    if name == HOME:
        file = capture_file(tmp_path, [captured(0)])
    else:
        file = tmp_path / name
        file.write_bytes(packed(".jsonl.zst", GOOD))
    monkeypatch.setitem(sys.modules, lacking, None)
    monkeypatch.delitem(sys.modules, "processor.archives.parquet")
    with pytest.raises(RunStepsError) as raised:
        list(read(file))
    assert "pip install 'run-steps[audit]'" in raised.value.hint
    assert lacking in raised.value.message


def test_lines_need_no_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("pyarrow", "fastavro"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, "processor.archives.parquet")
    assert list(read(record_all(tmp_path / "a", [a_record(0)]))) == [a_record(0)]


def test_base64_is_what_the_standard_says() -> None:
    line = encode_line(a_record(0, value=b"\xfb\xff"))
    assert json.loads(line)["value"] == {"base64": base64.b64encode(b"\xfb\xff").decode()}
