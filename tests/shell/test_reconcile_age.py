"""Lists and published records of another age: what came later, on either side, is no fault of the worker."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from processor.archives import ArchivedRecord, ArchiveError, Capture, Gap, GapKind, Recorder, manifest, read
from processor.archives.jsonl import encode_line
from processor.archives.reading import recorded_files
from processor.audit.judge.verdicts import Verdict
from processor.audit.reconcile.command import reconcile as run
from processor.audit.reconcile.comparison import Doubt, PublishedStep, compare_listed
from processor.audit.report.manifest import Outcome
from tests.capture_files import captured, write_capture
from tests.shell.test_reconcile import SETTINGS, T0_S, Published, as_event, listed, one_of, page, published, reconciled

__all__ = ["published"]

NOW_MS = (T0_S + 7_200) * 1000


def told(doubt: Doubt, listed_step: dict[str, Any], *, at_s: int) -> tuple[Verdict, str]:
    """Of a step that is published as expired where the list says that it has completed."""
    expired = listed("s1", "expired")
    one = PublishedStep(("run-steps.expired", 0, 4), 0, (0, 0), expired, "deadline", timestamp=at_s * 1000)
    found = compare_listed(listed_step, [one], reference="", doubt=doubt, conflicting=False)
    assert found is not None
    assert found.differences
    return found.verdict, found.why


@pytest.mark.parametrize(
    ("doubt", "at_s", "ended_s", "why"),
    [
        (Doubt(), 20, 10, ""),
        (Doubt(behind_ms=NOW_MS), 20, 10, ""),
        (Doubt("the group has yet to read 3 offsets of the source"), 20, 10, "the group has yet to read"),
        (Doubt("an open transaction holds back records of t"), 20, 10, "an open transaction"),
        (Doubt(before_ms=(T0_S + 30) * 1000), 20, 10, "before the first record"),
        (Doubt(before_ms=(T0_S + 20) * 1000), 20, 10, ""),
        (Doubt(behind_ms=(T0_S + 100) * 1000), 20, 101, "after the last record"),
        (Doubt(behind_ms=(T0_S + 100) * 1000), 20, 99, ""),
        (Doubt(behind_ms=(T0_S + 100) * 1000), 101, None, "after the last record"),
        (Doubt(behind_ms=(T0_S + 100) * 1000), 99, None, ""),
    ],
)
def test_a_later_revision_that_was_not_read_may_say_what_the_list_says(
    doubt: Doubt, at_s: int, ended_s: int | None, why: str
) -> None:
    """Expired at its deadline, and completed late: that is published as the next revision."""
    step = listed("s1", completed_at=None if ended_s is None else T0_S + ended_s)
    verdict, said = told(doubt, step, at_s=T0_S + at_s)
    assert verdict is (Verdict.UNVERIFIABLE if why else Verdict.DIFFERENT)
    assert why in said


def test_the_end_of_an_archive_may_lack_the_revision_that_the_list_says(tmp_path: Path, published: Published) -> None:
    """The last record is of an hour later: so old is no record that may follow."""
    published.event(as_event(listed("young", completed_at=T0_S + 3_590, usage=None)), T0_S + 3_590)
    published.event(as_event(listed("old", completed_at=T0_S + 3_000, usage=None)), T0_S + 3_590)
    lists = page(listed("young", "failed", failed_at=T0_S + 3_595), listed("old", "failed", failed_at=T0_S + 3_005))
    found = reconciled(tmp_path, published, lists)
    assert one_of(found, "young").verdict is Verdict.UNVERIFIABLE
    assert one_of(found, "old").verdict is Verdict.DIFFERENT


@pytest.mark.parametrize(
    ("created_s", "verdict"),
    [(T0_S + 9, Verdict.EXTRA), (T0_S + 10, Verdict.UNVERIFIABLE), (T0_S + 60, Verdict.UNVERIFIABLE),
     (None, Verdict.UNVERIFIABLE)],
)  # fmt: skip
@pytest.mark.parametrize("status", ["completed", "in_progress"])
def test_a_step_that_began_behind_all_that_its_list_says_may_be_younger_than_the_list(
    tmp_path: Path, published: Published, created_s: int | None, verdict: Verdict, status: str
) -> None:
    """A list that was made while its run went on says of no page that it is not the last."""
    published.event(as_event(listed("s1")))
    published.event(as_event(listed("s2", created_at=created_s, completed_at=T0_S + 70)), T0_S + 70)
    own = listed("s1") if status == "completed" else listed("s1", status, created_at=T0_S + 10)
    found = reconciled(tmp_path, published, page(own))
    assert one_of(found, "s2").verdict is verdict
    assert found.verdict is (Outcome.DIFFERENT if verdict is Verdict.EXTRA else Outcome.UNPROVABLE)


@pytest.mark.parametrize(("more", "whole"), [(False, True), (None, True), (True, False), ("true", False), (1, False)])
def test_a_page_that_says_in_whatever_way_that_there_are_more_is_not_the_whole_list(
    tmp_path: Path, published: Published, more: Any, whole: bool
) -> None:
    """Gateways write the word for the boolean."""
    published.event(as_event(listed("s1")))
    published.event(as_event(listed("s2")))
    found = reconciled(tmp_path, published, page(listed("s1")) | {"has_more": more})
    assert one_of(found, "s2").verdict is (Verdict.EXTRA if whole else Verdict.UNVERIFIABLE)


def test_an_archive_that_lacks_what_its_manifest_names_is_refused(tmp_path: Path, published: Published) -> None:
    """As a replay refuses it: each step in the lost file would be missing."""
    for number in range(3):
        published.event(as_event(listed(f"s{number}")))
    items = list(read(published.write()))
    topic, folder = items[0].topic, tmp_path / "recorded"
    with Recorder(folder, files=".jsonl", file_bytes=1) as recorder:
        for item in items:
            recorder.write(item)
    manifest.begin(folder, {(topic, 0): (0, len(items))})
    manifest.finish(folder, [(topic, 0)])
    lists = tmp_path / "lists.json"
    lists.write_text(json.dumps(page(*(listed(f"s{number}") for number in range(3)))))

    def found() -> Outcome:
        return run([lists], SETTINGS, lambda: pytest.fail("no broker"), published=[folder]).verdict

    assert found() is Outcome.PROVEN
    recorded_files(folder / topic / "0")[1][1].unlink()
    with pytest.raises(ArchiveError, match=r"offsets 1 to 1 are not there; file .* is not there"):
        found()


def test_times_of_arrival_do_not_say_how_far_a_worker_had_come(tmp_path: Path, published: Published) -> None:
    """A capture of the output, by a worker an hour behind: what ended within that hour may come yet."""
    published.event(as_event(listed("s1", completed_at=T0_S + 10)), T0_S + 10)
    late = [item for item in read(published.write()) if isinstance(item, ArchivedRecord)][:1]
    arrived = [captured(replace(record, timestamp=record.timestamp + 3_600_000)) for record in late]
    file = write_capture(tmp_path, late[0].topic, 0, arrived, "null")
    moved = tmp_path / "capture" / late[0].topic / "0.avro"
    moved.parent.mkdir(parents=True)
    file.rename(moved)
    lists = tmp_path / "lists.json"
    own = listed("s1", completed_at=T0_S + 10), listed("s2", completed_at=T0_S + 1_800)
    lists.write_text(json.dumps(page(*own)))
    pattern = Capture(pattern="{EventHub}/{PartitionId}")
    found = run([lists], SETTINGS, lambda: pytest.fail("no broker"), published=[moved.parent], capture=pattern)
    assert one_of(found, "s1").verdict is Verdict.EQUAL
    assert one_of(found, "s2").verdict is Verdict.UNVERIFIABLE


def read_behind(published: Published, tmp_path: Path, items: list[ArchivedRecord | Gap], *ids: str) -> Any:
    """The verdicts on steps whose published records retention has taken, in part, from the archive."""
    published.path.write_bytes(b"".join(map(encode_line, items)))
    own = [listed(step_id, "failed", failed_at=T0_S + 10 + 100 * at) for at, step_id in enumerate(ids)]
    found = reconciled(tmp_path, published, page(*own))
    return {step_id: one_of(found, step_id).verdict for step_id in ids}


def test_nothing_is_missing_of_a_partition_of_which_a_marker_alone_is_left(
    tmp_path: Path, published: Published
) -> None:
    published.event(as_event(listed("s1", "failed")))
    rest = [item for item in read(published.write()) if item.topic != "run-steps.failed"]
    assert read_behind(published, tmp_path, rest, "s1") == {"s1": Verdict.MISSING}
    left = [*rest, Gap("run-steps.failed", 0, 1, 1, GapKind.MARKER)]
    assert read_behind(published, tmp_path, left, "s1") == {"s1": Verdict.UNVERIFIABLE}


def test_an_archive_whose_first_item_is_a_marker_begins_late(tmp_path: Path, published: Published) -> None:
    published.event(as_event(listed("s1", "failed")))
    published.event(as_event(listed("s2", "failed", failed_at=T0_S + 110)), T0_S + 110)
    items = [item for item in read(published.write()) if isinstance(item, ArchivedRecord)]
    left: list[ArchivedRecord | Gap] = [Gap("run-steps.failed", 0, 1, 1, GapKind.MARKER)]
    left += [replace(item, offset=2) if item.key == b"s2" else item for item in items if item.key != b"s1"]
    assert read_behind(published, tmp_path, left, "s1", "s2") == {"s1": Verdict.UNVERIFIABLE, "s2": Verdict.EQUAL}
