"""Which records of an output partition are called out of order: the fewest, and of one that was moved that one."""

from __future__ import annotations

from collections import Counter
from itertools import combinations
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from processor.archives import ArchivedRecord, Recorder, read
from processor.audit.judge.record_order import RecordOrder
from processor.audit.judge.verdicts import FindingKind, RecordLocation
from processor.audit.report import folder as report_folder
from processor.audit.report.manifest import Outcome
from processor.core.headers import SOURCE_PARTITION
from tests.shell import mutations
from tests.shell.test_replay import Archived, archived

__all__ = ["archived"]

PLACE = (mutations.OUTCOMES["completed"], 0)


def noted(order: RecordOrder, places: list[RecordLocation]) -> list[str]:
    return [order.misplaced(FindingKind.STEP, (f"s{n}", "0"), place) for n, place in enumerate(places)]


@given(st.permutations(range(7)), st.permutations(range(3)))
def test_the_fewest_are_named_and_the_others_are_in_order(one: list[int], other: list[int]) -> None:
    places = [("a", 0, offset) for offset in one] + [("b", 0, offset) for offset in other]
    first = RecordOrder(is_noted=True)
    noted(first, places)
    moved = first.moved()
    for topic, offsets in (("a", one), ("b", other)):
        kept = [offset for offset in offsets if (topic, 0, offset) not in moved]
        assert kept == sorted(kept)
        longer = combinations(offsets, len(kept) + 1)
        assert not any(list(some) == sorted(some) for some in longer), "fewer would have been enough"
    whys = noted(RecordOrder(moved), places)
    assert {place for place, why in zip(places, whys, strict=True) if why} == moved.keys()


def test_the_reason_says_which_way_a_record_was_moved() -> None:
    order = RecordOrder(is_noted=True)
    noted(order, [("a", 0, offset) for offset in (1, 9, 2, 3, 0, 4)])
    assert order.moved() == {
        ("a", 0, 9): "what was caused after it comes before it, from offset 2 on",
        ("a", 0, 0): "what was caused before it comes after it, up to offset 3",
    }


def test_order_is_noted_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is behind it is compared with what came before, one by one."""
    monkeypatch.setattr("processor.audit.judge.record_order._MOST", 3)
    order = RecordOrder(is_noted=True)
    places = [("a", 0, offset) for offset in (9, 1, 2, 10, 3)]
    noted(order, places)
    assert list(order.moved()) == [("a", 0, 9)]
    why = noted(RecordOrder(order.moved()), places)[-1]
    assert why == "step s3 (0) was caused before it and comes after it, at offset 10"


def own(log: list[ArchivedRecord]) -> list[ArchivedRecord]:
    """Those of one source partition, the one of most."""
    of = [dict(record.headers)[SOURCE_PARTITION] for record in log]
    most = Counter(of).most_common(1)[0][0]
    return [record for record, partition in zip(log, of, strict=True) if partition == most]


def reordered(archived: Archived, order: dict[int, int]) -> tuple[str, list[str]]:
    """An archive of the output in which records of one partition have changed places: the number of each, and its new
    one. And the ids of the steps in the order before."""
    items = [item for item in read(archived.out) if isinstance(item, ArchivedRecord)]
    mine = own([item for item in items if (item.topic, item.partition) == PLACE])
    rest = [record for at, record in enumerate(mine) if at not in order]
    moved = {new: mine[old] for old, new in order.items()}
    there = {
        was.offset: msgspec.structs.replace(moved[at] if at in moved else rest.pop(0), offset=was.offset)
        for at, was in enumerate(mine)
    }
    with Recorder(archived.folder / "reordered", files=".jsonl") as recorder:
        for item in items:
            recorder.write(there.get(item.offset, item) if (item.topic, item.partition) == PLACE else item)
    return str(archived.folder / "reordered"), [(record.key or b"").decode() for record in mine]


@pytest.mark.parametrize(
    ("order", "moved"), [({0: 5}, [0]), ({5: 0}, [5]), ({0: 4, 1: 5}, [0, 1]), ({1: 4, 4: 1}, [1, 4])]
)
def test_of_records_that_were_moved_those_are_the_findings(
    archived: Archived, order: dict[int, int], moved: list[int], tmp_path: Path
) -> None:
    """One that was moved to the end made findings of all that it was caused before, and was itself none."""
    out, ids = reordered(archived, order)
    assert len(ids) >= 6
    found = archived.audit(published=(out,))
    assert found.verdict is Outcome.DIFFERENT
    assert [(one.verdict, one.identity[0]) for one in found.first] == [("out_of_order", ids[at]) for at in moved]
    assert found.counts["step"]["out_of_order"] == len(moved)
    reported = archived.audit(published=(out,), report=str(tmp_path / "report"))
    assert (reported.first, reported.counts) == (found.first, found.counts)
    checked = report_folder.check(tmp_path / "report", program="")
    assert (checked.problems, checked.manifest.counts) == ([], found.counts)
