"""IndexWriter: indexed records are found by identity, in order and once, however they were cut and shared out."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from random import Random

import pytest
from msgspec.structs import replace

from processor.audit import published_index
from processor.audit.judge.published_headers import caused_at
from processor.audit.judge.verdicts import ExpectedRecord, FindingKind, Published, Unreadable
from processor.audit.published_index import FileIndex, IndexWriter
from processor.audit.replay.index_output import shared_out
from processor.core.effects import LogRecord
from processor.core.headers import (
    FIRST_OFFSET,
    LAST_OFFSET,
    REASON,
    REVISION,
    SOURCE_OFFSET,
    SOURCE_PARTITION,
    SOURCE_TOPIC,
)

SOURCE = b"source"


def record(
    offset: int, step: str, *, cause: int = 7, revision: int = 0, partition: int = 0, **more: bytes
) -> LogRecord:
    headers = (
        (SOURCE_TOPIC, SOURCE),
        (SOURCE_PARTITION, b"%d" % partition),
        (FIRST_OFFSET, b"%d" % cause),
        (LAST_OFFSET, b"%d" % cause),
        (REVISION, b"%d" % revision),
        *((f"runstep-{name.replace('_', '-')}", content) for name, content in more.items()),
    )
    return LogRecord(offset, 1_000 + offset, step.encode(), b"{}" * offset, headers)


def refusal(offset: int, cause: int, reason: bytes) -> LogRecord:
    headers = (
        (SOURCE_TOPIC, SOURCE),
        (SOURCE_PARTITION, b"0"),
        (SOURCE_OFFSET, b"%d" % cause),
        (REASON, reason),
    )
    return LogRecord(offset, 0, None, None, headers)


Row = tuple[str, int, LogRecord]


def fill(folder: Path, rows: Iterable[Row], name: str = "") -> IndexWriter:
    with IndexWriter(folder, "source", 4, frozenset({0, 2}), name) as shelves:
        for topic, partition, one in rows:
            shelves.put(topic, partition, one, dead_letters=topic == "dead")
    return shelves


def places(found: Iterable[Published]) -> list[tuple[str, int, int]]:
    return [(one.topic, one.partition, one.offset) for one in found]


@pytest.fixture(params=["at once", "in pieces"])
def cut(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything in memory, or hardly anything: what is held is written every few rows, the order in short runs."""
    if request.param == "in pieces":
        monkeypatch.setattr(published_index, "_HELD_BYTES", 2_000)
        monkeypatch.setattr(published_index, "_RUN_ROWS", 5)


@pytest.mark.usefixtures("cut")
def test_what_is_put_away_is_found_by_identity_and_taken_once(tmp_path: Path) -> None:
    rng = Random(1)
    logs = {(topic, p): 0 for topic in ("a", "b") for p in range(3)}
    rows: list[Row] = []
    for _ in range(300):
        place = rng.choice(sorted(logs))
        step, revision = f"s{rng.randrange(90)}", rng.randrange(2)
        rows.append((*place, record(logs[place], step, revision=revision, partition=rng.choice((0, 2)))))
        logs[place] += 1
    assert fill(tmp_path, rows).indexed == 300
    for own in (0, 2):
        expected: dict[tuple[str, str], list[Row]] = {}
        for row in sorted(rows, key=lambda row: (row[0], row[1], row[2].offset)):
            headers = dict(row[2].headers)
            if headers[SOURCE_PARTITION] == b"%d" % own:
                identity = (row[2].key or b"").decode(), (headers[REVISION] or b"").decode()
                expected.setdefault(identity, []).append(row)
        with FileIndex(tmp_path, own) as filed:
            assert filed.count == sum(map(len, expected.values()))
            assert filed.look(FindingKind.STEP, ("nobody", "0")) == []
            assert filed.look(FindingKind.DEAD_LETTER, next(iter(expected))) == []
            taken = set()
            for identity, wanted in expected.items():
                found = filed.look(FindingKind.STEP, identity)
                assert [
                    (one.topic, one.partition, LogRecord(one.offset, one.timestamp, one.key, one.value, one.headers))
                    for one in found
                ] == wanted
                assert all(one.identity == identity and one.source_partition == own for one in found)
                if rng.random() < 0.7:
                    filed.take(found[0])
                    taken.add(places(found)[0])
                    assert places(filed.look(FindingKind.STEP, identity)) == places(found)[1:]
            rest = [(t, p, r.offset) for ws in expected.values() for t, p, r in ws if (t, p, r.offset) not in taken]
            left = []
            for one in filed.left():
                assert filed.last[one.topic, one.partition, one.offset] is one
                left.append(one)
            assert places(left) == sorted(rest)


@pytest.mark.usefixtures("cut")
def test_several_shelves_read_as_one_however_they_were_shared_out(tmp_path: Path) -> None:
    rng = Random(2)
    rows: list[Row] = [("a", n % 3, record(n // 3, f"s{n % 40}")) for n in range(120)]
    fill(tmp_path, rows)
    fill(tmp_path, [row for row in rows if row[1] != 1], "one")
    fill(tmp_path, [row for row in rows if row[1] == 1], "two")
    with FileIndex(tmp_path, 0) as whole, FileIndex(tmp_path, 0, ("two", "one")) as parts:
        assert whole.count == parts.count == 120
        for n in range(40):
            found = whole.look(FindingKind.STEP, (f"s{n}", "0"))
            assert len(found) == 3
            assert parts.look(FindingKind.STEP, (f"s{n}", "0")) == found
            for one in rng.sample(found, 2):
                whole.take(one)
                parts.take(one)
        assert list(parts.left()) == list(whole.left())


@pytest.mark.usefixtures("cut")
@pytest.mark.parametrize("shelves", [("one", "two"), ("both",)])
def test_archives_that_hold_the_same_offsets_come_in_order_all_the_same(
    tmp_path: Path, shelves: tuple[str, ...]
) -> None:
    archives: list[list[Row]] = [[("a", 0, record(n, f"s{n}")) for n in range(at, at + 20)] for at in (0, 10)]
    if shelves == ("both",):  # one job has read both, one after the other
        archives = [[*archives[0], *archives[1]]]
    for name, rows in zip(shelves, archives, strict=True):
        fill(tmp_path, rows, name)
    with FileIndex(tmp_path, 0, shelves) as filed:
        offsets = [one.offset for one in filed.left()]
        assert offsets == sorted([*range(20), *range(10, 30)])
        assert len(filed.look(FindingKind.STEP, ("s15", "0"))) == 2


@pytest.mark.usefixtures("cut")
def test_marks_refusals_and_what_retention_left_are_told(tmp_path: Path) -> None:
    rows: list[Row] = [("expired", 0, record(n, f"s{n}", clock_mark=b"%d@%d" % (n % 5, 100))) for n in range(30)]
    rows += [("expired", 1, record(n + 50, f"t{n}", cause=900 - n)) for n in range(30)]
    rows += [("dead", 0, refusal(n, 500 - n, b"too_many_open_steps")) for n in range(30)]
    rows += [("dead", 0, refusal(n, n, b"not_json")) for n in range(30, 60)]
    fill(tmp_path, rows)
    with FileIndex(tmp_path, 0) as filed:
        assert filed.marks() == [(100, n) for n in range(5)]
        assert filed.first_refusal_from(0) == 471
        assert filed.first_refusal_from(480) == 480
        assert filed.first_refusal_from(501) is None
        shortened = {("expired", 1): 50, ("expired", 2): 1, ("dead", 0): 0}
        assert filed.kept_from(shortened) == {("expired", 1): 900, ("expired", 2): 1 << 62, ("dead", 0): 500}
        (first,) = filed.look(FindingKind.STEP, ("t0", "0"))
        assert caused_at(first) == 900
    with FileIndex(tmp_path, 2) as empty:
        assert (empty.count, empty.marks(), empty.first_refusal_from(0), list(empty.left())) == (0, [], None, [])
        assert empty.look(FindingKind.STEP, ("s0", "0")) == []


@pytest.mark.usefixtures("cut")
def test_strays_stand_in_the_first_index_in_order(tmp_path: Path) -> None:
    rows: list[Row] = [(topic, p, LogRecord(n, 0, b"k", b"v", ())) for n in range(9) for topic in "ba" for p in (1, 0)]
    shelves = fill(tmp_path, rows[::2], "one"), fill(tmp_path, rows[1::2], "two")
    assert [one.unreadable for one in shelves] == [18, 18]
    with FileIndex(tmp_path, 0, ("one", "two")) as first, FileIndex(tmp_path, 2, ("one", "two")) as other:
        expected = [(FindingKind.STEP, Unreadable(t, p, r.offset, "no runstep-source-topic")) for t, p, r in rows]
        assert list(first.strays()) == sorted(expected, key=lambda one: (one[1].topic, one[1].partition, one[1].offset))
        assert list(other.strays()) == []


@pytest.mark.usefixtures("cut")
@pytest.mark.parametrize("checksums", [(0,), (0xFFFFFFFF,), (0, 1 << 31, 0xFFFFFFFF), (1 << 31, (1 << 31) + 4)])
def test_identities_with_one_checksum_are_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, checksums: tuple[int, ...]
) -> None:
    """Wherever their rows crowd: first, last, or in the middle with what is looked for next behind them."""
    monkeypatch.setattr(published_index, "crc32", lambda text, _: checksums[sum(text) % len(checksums)])
    fill(tmp_path, [("a", 0, record(n, f"s{n}")) for n in range(40)])
    with FileIndex(tmp_path, 0) as filed:
        for n in range(40):
            (one,) = filed.look(FindingKind.STEP, (f"s{n}", "0"))
            assert one.key == f"s{n}".encode()
            filed.take(one)
            assert filed.look(FindingKind.STEP, (f"t{n}", "0")) == []
            assert filed.look(FindingKind.STEP, (f"s{n}", "0")) == []
        assert list(filed.left()) == []


@pytest.mark.usefixtures("cut")
def test_what_is_equal_in_every_byte_is_taken_at_once(tmp_path: Path) -> None:
    rows: list[Row] = [("ab"[n % 2], n % 3, record(n, f"s{n}")) for n in range(60)]
    twice: list[Row] = [("a", 0, record(100 + n, f"s{n}")) for n in range(5)]
    fill(tmp_path, rows, "one")
    fill(tmp_path, twice, "two")
    with FileIndex(tmp_path, 0, ("one", "two")) as filed:
        for topic, partition, one in reversed(rows):
            identity = ((one.key or b"").decode(), "0")
            placed = ExpectedRecord(topic, partition, one.key, one.value, one.timestamp, one.headers)
            for other in (
                {"topic": "c"},
                {"partition": 9},
                {"key": b"k"},
                {"value": None},
                {"timestamp": 1},
                {"headers": one.headers[1:]},
                {"headers": one.headers[::-1]},
            ):
                assert filed.take_equal(FindingKind.STEP, identity, replace(placed, **other)) is None
            assert filed.take_equal(FindingKind.DEAD_LETTER, identity, placed) is None
            anywhere = replace(placed, partition=None)
            if one.offset < 5:  # there are two of it: which is meant is not for the index to say
                assert filed.take_equal(FindingKind.STEP, identity, anywhere) is None
                continue
            assert filed.take_equal(FindingKind.STEP, identity, anywhere) == (topic, partition, one.offset)
            assert filed.take_equal(FindingKind.STEP, identity, placed) is None
            assert filed.look(FindingKind.STEP, identity) == []
        assert len(list(filed.left())) == 10


def test_rows_are_the_same_however_many_blocks_are_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(published_index, "_BLOCK_BITS", 4)
    monkeypatch.setattr(published_index, "_BLOCKS", 2)
    rows: list[Row] = [("a", 0, record(n, f"s{n}")) for n in range(40)]
    fill(tmp_path, rows)
    with FileIndex(tmp_path, 0) as filed:
        for _, _, one in rows[::-1] + rows[::3]:
            (found,) = filed.look(FindingKind.STEP, ((one.key or b"").decode(), "0"))
            assert LogRecord(found.offset, found.timestamp, found.key, found.value, found.headers) == one


def test_an_index_of_the_same_name_is_replaced(tmp_path: Path) -> None:
    fill(tmp_path, [("a", 0, record(n, f"s{n}")) for n in range(9)])
    fill(tmp_path, [("a", 0, record(0, "s"))])
    with FileIndex(tmp_path, 0) as filed:
        assert filed.count == 1


def test_work_is_shared_out_whole_and_evenly() -> None:
    units = [(size, f"{size}.{n}") for n, size in enumerate((5, 1, 9, 0, 3, 3, 7, 0))]
    for jobs in (1, 2, 3, 20):
        found = shared_out(units, jobs)
        assert sorted(unit for own in found for unit in own) == sorted(unit for _, unit in units)
        assert len(found) == min(jobs, len(units))
    two = [sum(int(unit.partition(".")[0]) for unit in own) for own in shared_out(units, 2)]
    assert max(two) - min(two) <= 2
    assert shared_out([], 3) == []
