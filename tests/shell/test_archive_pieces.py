"""Archives are read a piece at a time where all of it is usual: the same comes out as of one item after the other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from processor.archives import (
    ArchivedRecord,
    ArchiveError,
    Gap,
    GapKind,
    Recorder,
    jsonl,
    parquet,
    read_batches,
    read_pieces,
)
from processor.archives.jsonl import encode_line
from processor.archives.reading import _items, _Order
from processor.archives.records import LIMITS, MAX_OFFSET, MAX_TIMESTAMP, MIN_TIMESTAMP, Limits
from processor.core.record_columns import RecordColumns
from tests.examples import examples

Item = ArchivedRecord | Gap
USUAL: Final = [ArchivedRecord("events", 0, offset, 1_000, b"k", b"v") for offset in range(5)]


def one_by_one(order: _Order, items: list[Item]) -> int:
    return next((at for at, item in enumerate(items) if not order.follows(item)), len(items))


def changed(at: int, **fields: object) -> list[Item]:
    return [msgspec.structs.replace(item, **fields) if n == at else item for n, item in enumerate(USUAL)]


@pytest.mark.parametrize(
    "items",
    [
        list(USUAL),
        changed(2, offset=1),
        changed(4, offset=9),
        changed(0, offset=-1),
        changed(3, topic="other"),
        changed(3, partition=1),
        changed(3, topic="no topic"),
        changed(2, timestamp=MAX_TIMESTAMP + 1),
        changed(2, timestamp=MIN_TIMESTAMP - 1),
        [*USUAL, Gap("events", 0, 5, 7, GapKind.MARKER)],
        [*USUAL[:2], Gap("events", 0, 1, 7, GapKind.MARKER), *USUAL[2:]],
        [ArchivedRecord("events", 0, MAX_OFFSET + n, 1, None, None) for n in range(2)],
    ],
)
@pytest.mark.parametrize("before", [(), (("events", -1),), (("events", 2), ("other", 1)), (("other", 1),)])
def test_offsets_are_checked_alike_in_a_piece_and_one_by_one(
    items: list[Item], before: tuple[tuple[str, int], ...]
) -> None:
    orders = _Order(), _Order()
    for order in orders:
        for topic, offset in before:
            order._last[topic, 0] = offset
    whole, each = orders
    whole.is_alone = False
    good = one_by_one(each, items)
    assert whole.followed(items) == good
    assert whole._last == each._last
    assert whole.is_alone == (len({(item.topic, item.partition) for item in items[:good]}) == 1)


LINES: Final = (
    encode_line(USUAL[0])[:-1],
    encode_line(USUAL[1])[:-1],
    encode_line(ArchivedRecord("events", 0, 7, 1, None, b"\xff", (("n", b"v"), ("\udcff", None), ("m", b"\xfe"))))[:-1],
    encode_line(ArchivedRecord("events", 0, 8, 1, b"k", None, tuple(("n", b"v") for _ in range(4))))[:-1],
    encode_line(Gap("events", 0, 9, 12, GapKind.ABORTED))[:-1],
    b'{"topic":"events","partition":0,"offset":3,"timestamp":4,"key":null,"value":"v"}',
    b"",
    b" \t",
    b"{",
    b"[]",
    b'{"topic":"events","partition":0,"offset":3,"timestamp":4,"key":1,"value":"v","headers":[]}',
    encode_line(ArchivedRecord("events", 0, 20, 1, b"k", b"v" * 300))[:-1],
    encode_line(USUAL[0])[:-1] + encode_line(USUAL[1])[:-1],  # two values in a line
    encode_line(USUAL[0])[:-1] + b"  ",
    encode_line(USUAL[1])[:-1] + b"\r",
    encode_line(USUAL[0])[:-1].replace(b',"headers"', b'\n,"headers"'),  # a value in two lines
    encode_line(ArchivedRecord("events", 0, 7, 1, b"\xff", b"v"))[:-1].replace(b":{", b":\n{"),
    encode_line(ArchivedRecord("events", 0, 8, 1, b"k", b"v", (("m", b"\xfe"),)))[:-1].replace(b"}]", b"}\n]"),
)


def came(items_of: object) -> tuple[list[Item], list[tuple[str, int]], str]:
    """The items, the place of each, and the error behind them."""
    items: list[Item] = []
    places: list[tuple[str, int]] = []
    try:
        for unit, number, batch in items_of:  # type: ignore[attr-defined]
            items += batch
            places += [(unit, number + at) for at in range(len(batch))]
    except ArchiveError as error:
        return items, places, str(error)
    return items, places, ""


@given(lines=st.lists(st.sampled_from(LINES), max_size=6), end=st.sampled_from([b"", b"\n"]), bom=st.booleans())
@example(lines=[LINES[0], LINES[8]], end=b"", bom=False)
@example(lines=[LINES[0], LINES[11]], end=b"", bom=False)
@example(lines=[LINES[12], LINES[6]], end=b"\n", bom=False)
@example(lines=[LINES[12], LINES[15]], end=b"", bom=False)
@example(lines=[LINES[12], LINES[16], LINES[0]], end=b"", bom=False)
@example(lines=[LINES[12], LINES[17], LINES[0]], end=b"", bom=False)
@example(lines=[LINES[3], LINES[4]], end=b"\n", bom=True)
def test_lines_are_decoded_alike_in_a_piece_and_one_by_one(lines: list[bytes], end: bytes, bom: bool) -> None:
    text = (b"\xef\xbb\xbf" if bom else b"") + b"\n".join(lines) + end
    limits: Limits = msgspec.structs.replace(LIMITS, line_bytes=290, headers=3)
    with TemporaryDirectory() as folder:
        file = Path(folder) / "a.jsonl"
        file.write_bytes(text)
        whole = came(jsonl.read_lines(file, limits))
        each = came(jsonl._one_by_one(file, text.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1, limits))
    assert whole == each


COLUMNS: Final = (
    *LINES,
    *(encode_line(one)[:-1] for one in USUAL[2:]),
    encode_line(changed(3, partition=1)[3])[:-1],
    encode_line(changed(4, topic="other")[4])[:-1],
    *(
        encode_line(ArchivedRecord("events", 0, 5, timestamp, b"k", b"v"))[:-1]
        for timestamp in (MAX_TIMESTAMP + 1, MIN_TIMESTAMP - 1, 7)
    ),
)


@given(
    lines=st.lists(st.sampled_from(COLUMNS), max_size=6),
    first=st.integers(0, 2),
    chunk=st.sampled_from([150, 300, 1 << 16]),
    begin=st.integers(0, 5),
    end=st.integers(0, 8) | st.just(MAX_OFFSET),
)
@example(lines=[COLUMNS[-3]], first=0, chunk=150, begin=0, end=MAX_OFFSET)
@example(lines=[COLUMNS[-2]], first=0, chunk=150, begin=0, end=MAX_OFFSET)
@settings(deadline=None, max_examples=examples(400))
def test_columns_are_the_records_of_lists(lines: list[bytes], first: int, chunk: int, begin: int, end: int) -> None:
    """In a range of one partition: the same items, and the same error behind them."""
    usual = [encode_line(one)[:-1] for one in USUAL[first:]]
    limits: Limits = msgspec.structs.replace(LIMITS, line_bytes=290, headers=3)
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patched:
        patched.setattr(jsonl, "CHUNK_BYTES", chunk)
        file = Path(folder) / "a.jsonl"
        file.write_bytes(b"\n".join([*usual, *lines]))
        bounds: dict[str, Any] = {"begin": begin, "end": end, "limits": limits}
        as_lists = whole(read_batches(file, only=("events", 0), **bounds))
        as_pieces = whole(read_pieces(file, ("events", 0), **bounds))
    assert as_pieces == as_lists


def whole(batches: Iterator[Any]) -> tuple[list[Item], str]:
    items: list[Item] = []
    try:
        for batch in batches:
            items += _items(batch, ("events", 0)) if isinstance(batch, RecordColumns) else batch
    except ArchiveError as error:
        return items, str(error)
    return items, ""


def test_a_file_that_does_not_begin_where_its_name_says_is_refused(tmp_path: Path) -> None:
    with Recorder(tmp_path / "a", files=".jsonl", file_bytes=1_000) as recorder:
        for at in range(100):
            recorder.write(ArchivedRecord("events", 0, at, at, b"k", b"v" * 100))
    *_, last = sorted((tmp_path / "a" / "events" / "0").iterdir())
    last.rename(last.with_name(f"{int(last.name.partition('.')[0]) - 1:020d}.jsonl"))
    bounds: dict[str, Any] = {"begin": 0, "end": 100}
    found = whole(read_pieces(tmp_path / "a", ("events", 0), **bounds))
    assert found == whole(read_batches(tmp_path / "a", only=("events", 0), **bounds))
    assert "begins elsewhere" in found[1]


@pytest.mark.parametrize("first", [MAX_OFFSET - 1_000, MAX_OFFSET - 999, -1_000])
def test_offsets_that_no_log_has_are_refused_in_columns_too(tmp_path: Path, first: int) -> None:
    """1,001 records in several pieces: those of the first case have offsets that there may be."""
    file = tmp_path / "a.jsonl"
    log: list[Item] = [ArchivedRecord("events", 0, first + at, at, b"k", b"v" * 300) for at in range(1_001)]
    file.write_bytes(b"".join(map(encode_line, log)))
    bounds: dict[str, Any] = {"begin": min(first, 0), "end": MAX_OFFSET + 10}
    as_pieces = whole(read_pieces(file, ("events", 0), **bounds))
    assert as_pieces == whole(read_batches(file, only=("events", 0), **bounds))
    assert bool(as_pieces[1]) == (first != MAX_OFFSET - 1_000)


def test_nearly_all_pieces_are_columns(tmp_path: Path) -> None:
    """But for the first, which is looked at one by one; and each kind of piece that no columns may hold."""
    file = tmp_path / "a.jsonl"
    log: list[Item] = [ArchivedRecord("events", 0, at, at, b"k", b"v" * 100) for at in range(5_000)]
    file.write_bytes(b"".join(map(encode_line, log)))
    pieces = list(read_pieces(file, ("events", 0), begin=0, end=MAX_OFFSET))
    assert [isinstance(piece, RecordColumns) for piece in pieces] == [False] + [True] * (len(pieces) - 1)
    assert len(pieces) > 5
    for other in (
        msgspec.structs.replace(log[-1], partition=1),
        msgspec.structs.replace(log[-1], topic="other"),
        msgspec.structs.replace(log[-1], offset=6_000),
        Gap("events", 0, 4_999, 5_000, GapKind.MARKER),
    ):
        file.write_bytes(b"".join(map(encode_line, [*log[:-1], other])))
        *_, last = read_pieces(file, ("events", 0), begin=0, end=MAX_OFFSET)
        assert isinstance(last, list)


ROWS: Final = (
    *USUAL,
    ArchivedRecord("events", 0, 5, 1, None, b"\xff", (("n", b"v"), ("m", None), ("é", b""))),
    ArchivedRecord("events", 0, 6, 1, b"", None),
    ArchivedRecord("events", 0, 7, 1, b"k", b"v", (("\udcff", b"v"),)),
    ArchivedRecord("events", 0, 8, 1, b"k", b"v", tuple(("n", b"v") for _ in range(4))),
    ArchivedRecord("events", 1, 9, 1, b"k", b"v"),
    ArchivedRecord("other", 0, 9, 1, b"k", b"v"),
    Gap("events", 0, 9, 12, GapKind.ABORTED),
)


@given(
    rows=st.lists(st.sampled_from(ROWS), max_size=6),
    first=st.integers(0, 2),
    most=st.sampled_from([1, 2, 3, 1 << 12]),
    begin=st.integers(0, 5),
    end=st.integers(0, 12) | st.just(MAX_OFFSET),
)
@example(rows=list(ROWS[5:7]), first=0, most=2, begin=0, end=MAX_OFFSET)
@example(rows=[ROWS[5], ROWS[6], ROWS[7]], first=0, most=1 << 12, begin=0, end=MAX_OFFSET)
@settings(deadline=None, max_examples=examples(300))
def test_columns_of_parquet_are_the_records_of_lists(
    rows: list[Item], first: int, most: int, begin: int, end: int
) -> None:
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patched:
        patched.setattr(parquet, "_BATCH_ROWS", most)
        limits: Limits = msgspec.structs.replace(LIMITS, headers=3)
        file = Path(folder) / "a.parquet"
        with file.open("wb") as raw:
            writing = parquet.RecordingFile(raw, file, LIMITS)
            for item in (*USUAL[first:], *rows):
                writing.write(item)
            writing.close()
        bounds: dict[str, Any] = {"begin": begin, "end": end, "limits": limits}
        as_lists = whole(read_batches(file, only=("events", 0), **bounds))
        as_pieces = whole(read_pieces(file, ("events", 0), **bounds))
    assert as_pieces == as_lists


def test_nearly_all_pieces_of_parquet_are_columns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Null keys and values, and headers, too; not what is of another partition, or a gap."""
    monkeypatch.setattr(parquet, "_BATCH_ROWS", 100)
    log: list[Item] = [
        ArchivedRecord(
            "events", 0, at, at, b"k%d" % at if at % 3 else None, None if at % 7 == 0 else b"v" * (at % 9),
            (("n", b"%d" % at), ("m", None))[: at % 3],
        )
        for at in range(1_000)
    ]  # fmt: skip
    pieces = list(read_pieces(_parquet(tmp_path / "a.parquet", log), ("events", 0), begin=0, end=MAX_OFFSET))
    assert [isinstance(piece, RecordColumns) for piece in pieces] == [False] + [True] * 9
    found = [
        one for piece in pieces for one in (_items(piece, ("events", 0)) if isinstance(piece, RecordColumns) else piece)
    ]
    assert found == log
    for other in (msgspec.structs.replace(log[-1], partition=1), Gap("events", 0, 999, 1_000, GapKind.MARKER)):
        file = _parquet(tmp_path / "b.parquet", [*log[:-1], other])
        *_, last = read_pieces(file, ("events", 0), begin=0, end=MAX_OFFSET)
        assert isinstance(last, list)


def _parquet(file: Path, items: list[Item]) -> Path:
    with file.open("wb") as raw:
        writing = parquet.RecordingFile(raw, file, LIMITS)
        for item in items:
            writing.write(item)
        writing.close()
    return file
