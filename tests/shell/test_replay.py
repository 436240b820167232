"""The bounded loop without a broker: bounds, coverage, archives in, the same bytes from every executor."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import duckdb
import msgspec
import pyarrow.parquet as pq
import pytest

from processor.archives import ArchivedRecord, ArchiveError, Capture, Gap, GapKind, Recorder, manifest, read
from processor.archives.jsonl import encode_line
from processor.archives.label import LABEL, MANIFEST
from processor.audit.judge.block_digests import BLOCK_OFFSETS
from processor.audit.replay import partition_task as partition
from processor.audit.replay import range_bounds as bounds
from processor.audit.replay import task_tables as evidence
from processor.audit.replay.archive_ranges import laid_end_to_end
from processor.audit.replay.command import replay
from processor.audit.replay.options import Options
from processor.audit.replay.outcome import Progress, Replayed
from processor.audit.replay.range_bounds import CommittedBound, Edge, Offset, Time
from processor.audit.replay.record_sources import Ledger
from processor.audit.replay.task import ArchiveRange, StepFilter
from processor.audit.report.manifest import Outcome
from processor.cli import main as cli
from processor.cli.replay import _print_summary
from processor.config.settings import Settings
from processor.core.effects import LogRecord
from processor.errors import CorruptLog, UsageError
from processor.kafka.client_config import Connection
from tests.shell import mutations
from tests.shell.test_archives import capture_file, captured

# --- where a range begins and ends ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "bound"),
    [
        ("beginning", Edge.BEGINNING),
        ("end", Edge.END),
        ("0", Offset(0)),
        ("12345", Offset(12345)),
        ("1720000000000ms", Time(1_720_000_000_000)),
        ("2024-07-03T09:46:40Z", Time(1_720_000_000_000)),
        ("2024-07-03T11:46:40+02:00", Time(1_720_000_000_000)),
        ("2024-07-03T09:46:40", Time(1_720_000_000_000)),
        ("2024-07-03", Time(1_719_964_800_000)),
        ("0001-01-01", Time(0)),  # the client takes no time before 1970
        ("committed:my-group", CommittedBound("my-group")),
    ],
)
def test_bounds_as_people_write_them(text: str, bound: bounds.Bound) -> None:
    assert bounds.parse("--from", text) == bound


@pytest.mark.parametrize("text", ["", "-1", "1.5", "tomorrow", "committed:", "99999999999999999999", "٣"])
def test_what_is_no_place_in_a_log_is_refused_by_name(text: str) -> None:
    with pytest.raises(UsageError, match="--to"):
        bounds.parse("--to", text)


# --- every offset once ------------------------------------------------------------------------------------------------


def spans(begin: int, end: int, *steps: Sequence[Any]) -> tuple[list[tuple[int, int, str]], dict[str, int]]:
    told: list[tuple[int, int, str]] = []
    ledger = Ledger(begin, end, lambda first, last, kind: told.append((first, last, str(kind))))
    for step in steps:
        if isinstance(step[0], str):
            ledger.gap(step[1], step[2], step[0], GapKind.COMPACTED)
        else:
            ledger.records([LogRecord(offset, 0, None, None) for offset in step], GapKind.COMPACTED)
    ledger.finish(GapKind.MISSING)
    return told, dict(ledger.offsets)


def test_each_offset_is_told_once_and_neighbours_are_joined() -> None:
    told, offsets = spans(10, 20, [10, 11], [12, 14], ("marker", 15, 15), ("aborted", 16, 99))
    assert told == [(10, 12, "data"), (13, 13, "compacted"), (14, 14, "data"), (15, 15, "marker"), (16, 19, "aborted")]
    assert offsets == {"data": 4, "compacted": 1, "marker": 1, "aborted": 4}


def test_how_reading_is_cut_makes_no_difference() -> None:
    assert spans(0, 8, [0, 1, 2, 4, 5]) == spans(0, 8, [0], [1], [2, 4], [5])


def test_what_was_never_reached_is_told() -> None:
    assert spans(0, 5, [0]) == ([(0, 0, "data"), (1, 4, "missing")], {"data": 1, "missing": 4})
    assert spans(5, 5) == ([], {})


def test_a_gap_that_begins_before_the_range_is_cut() -> None:
    assert spans(5, 9, ("aborted", 0, 6), [7, 8])[0] == [(5, 6, "aborted"), (7, 8, "data")]


@pytest.mark.parametrize(
    ("lossy", "read", "twice"),
    [
        ("", [("a", 10, 100), ("b", 100, 150)], [("b", 80, 100), ("c", 90, 95)]),
        ("a", [("a", 10, 80), ("b", 80, 150)], [("a", 80, 100), ("c", 90, 95)]),
        ("ab", [("a", 10, 90), ("c", 90, 95), ("a", 95, 100), ("b", 100, 150)], [("b", 80, 100), ("a", 90, 95)]),
        ("abc", [("a", 10, 100), ("b", 100, 150)], [("b", 80, 100), ("c", 90, 95)]),
    ],
)
def test_archives_are_laid_end_to_end_and_overlaps_are_told(
    lossy: str, read: list[tuple[str, int, int]], twice: list[tuple[str, int, int]]
) -> None:
    def laid(*parts: ArchiveRange, begin: int = 10, end: int = 150) -> tuple[list[ArchiveRange], list[ArchiveRange]]:
        return laid_end_to_end(parts, begin, end, lambda path: (False, path in lossy, False))

    whole = ArchiveRange("b", 80, 200), ArchiveRange("a", 0, 100), ArchiveRange("c", 90, 95)
    assert laid(*whole) == ([ArchiveRange(*part) for part in read], [ArchiveRange(*part) for part in twice])
    assert laid(ArchiveRange("a", 0, 10), begin=20, end=30) == ([], [])


# --- archives in ------------------------------------------------------------------------------------------------------


class Archived:
    """A simulated world as two archives: of the source, and of what was published."""

    def __init__(self, folder: Path, seed: int = 5) -> None:
        self.made = mutations.world(seed, runs=20, gateways=0)  # as test_evidence_golden.py knows it
        self.source, self.out, self.folder = folder / "source", folder / "out", folder
        with Recorder(self.source, files=".jsonl") as recorder:
            for log in self.made.logs.values():
                for item in log:
                    recorder.write(item)
        with Recorder(self.out, files=".jsonl.gz") as recorder:
            for (topic, partition), records in sorted(self.made.topics.items()):
                for r in records:
                    recorder.write(ArchivedRecord(topic, partition, r.offset, r.timestamp, r.key, r.value, r.headers))

    def audit(self, shown: list[Progress] | None = None, **options: Any) -> Replayed:
        given = {"archives": (str(self.source),), "published": (str(self.out),)} | options
        return replay(Options(**given), settings(), _no_broker, (shown if shown is not None else []).append)


def settings() -> Settings:
    rules = mutations.RULES
    return Settings.model_validate(
        {
            "source": {"topic": mutations.SOURCE},
            "output": {"dead_letter": mutations.DEAD, "max_record_bytes": rules.max_record_bytes, **mutations.OUTCOMES},
            "steps": {"max_step_bytes": rules.max_step_bytes},
        }
    )


def _no_broker() -> Connection:
    raise AssertionError("no broker is needed")


@pytest.fixture
def archived(tmp_path: Path) -> Archived:
    return Archived(tmp_path)


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_archives_alone_are_enough_for_a_proof(archived: Archived) -> None:
    found = archived.audit()
    assert found.verdict is Outcome.PROVEN, (found.counts, found.questions)
    total = sum(len(log) for log in archived.made.topics.values())
    assert sum(n for verdicts in found.counts.values() for n in verdicts.values()) == total
    assert found.coverage["marker"] > 0
    assert found.exit_code == 0


def test_without_a_report_the_same_is_found(archived: Archived, tmp_path: Path) -> None:
    """Tables and links are made for a report alone; the verdict must not hang on them."""
    (_, log) = next((place, log) for place, log in sorted(archived.made.topics.items()) if place[0] != mutations.DEAD)
    narrowed = StepFilter(runs=(json.loads(log[0].value or b"")["run_id"],))
    halved = tmp_path / "halved"
    with Recorder(halved, files=".jsonl") as recorder:
        for number, item in enumerate(read(archived.out)):
            if number % 2:
                recorder.write(item)
    cases: list[dict[str, Any]] = [
        {}, {"start": "40", "end": "120"}, {"only": narrowed}, {"verify": False}, {"published": (str(halved),)},
        {"workers": 2},
    ]  # fmt: skip
    for number, options in enumerate(cases):
        alone = archived.audit(**options)
        reported = archived.audit(report=str(tmp_path / f"report-{number}"), **options)
        assert (alone.verdict, alone.counts, alone.coverage) == (reported.verdict, reported.counts, reported.coverage)
        assert (alone.questions, alone.outputs) == (reported.questions, reported.outputs)
        assert all(result.chain and result.files for result in reported.results)
        bare = [msgspec.structs.replace(result, chain="", files=(), in_force=()) for result in reported.results]
        assert (alone.results, alone.first) == (bare, reported.first)


def test_one_process_several_and_dask_leave_the_same_bytes(archived: Archived, tmp_path: Path) -> None:
    distributed = pytest.importorskip("distributed")
    one = archived.audit(report=str(tmp_path / "one"), created="2026-01-01T00:00:00Z")
    two = archived.audit(report=str(tmp_path / "two"), created="2026-01-01T00:00:00Z", workers=2)
    assert one.root == two.root
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=2, processes=False, dashboard_address=None, host="127.0.0.1", protocol="tcp"
    ) as cluster:
        three = archived.audit(
            report=str(tmp_path / "three"),
            created="2026-01-01T00:00:00Z",
            dask=cluster.scheduler_address,
            work=str(tmp_path / "work"),
        )
    assert three.root == one.root
    assert contents(tmp_path / "three") == contents(tmp_path / "one")


def test_what_an_archive_of_the_output_lacks_is_missing_where_it_cannot_have_begun_later(
    archived: Archived, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    items = [item for item in read(archived.out) if isinstance(item, ArchivedRecord)]
    own = [item for item in items if (item.topic, item.partition) == ("out.completed", 0)]

    def without(name: str, dropped: ArchivedRecord) -> Replayed:
        file = tmp_path / f"{name}.jsonl"
        file.write_bytes(b"".join(encode_line(item) for item in items if item is not dropped))
        return archived.audit(published=(str(file),))

    dropped = own[len(own) // 2]
    middle = without("middle", dropped)
    assert middle.verdict is Outcome.DIFFERENT
    assert middle.counts["step"]["missing"] == 1
    (finding,) = middle.first
    assert (finding.verdict, finding.identity[0].encode()) == ("missing", dropped.key)
    _print_summary(middle)
    told = (
        f"  missing: step {finding.identity[0]} revision {finding.identity[1]}, partition {finding.partition}, offsets "
    )
    assert told in capsys.readouterr().out
    first = without("first", own[0])
    assert first.verdict is Outcome.UNPROVABLE, "retention may have taken it"
    assert first.counts["step"]["unverifiable"] == 1


def test_what_a_recorded_archive_of_the_output_lacks_is_a_hole(archived: Archived, tmp_path: Path) -> None:
    """It names every offset that holds no record: one that it does not name was lost from its file."""
    items = [item for item in read(archived.out) if isinstance(item, ArchivedRecord)]
    own = [item for item in items if (item.topic, item.partition) == ("out.completed", 0)]
    with Recorder(tmp_path / "holed", files=".jsonl") as recorder:
        for item in items:
            if item is not own[len(own) // 2]:
                recorder.write(item)
    found = archived.audit(published=(str(tmp_path / "holed"),))
    assert (found.verdict, found.counts["step"].get("missing", 0)) == (Outcome.UNPROVABLE, 0)
    assert found.counts["step"]["unverifiable"] == 1


def test_a_hole_in_an_archive_is_told_and_not_proven(archived: Archived, tmp_path: Path) -> None:
    whole = list(read(archived.source))
    lost = [item for item in whole if isinstance(item, ArchivedRecord) and item.partition == 0][40]
    items = [item for item in whole if item is not lost]
    with Recorder(tmp_path / "holed", files=".jsonl") as recorder:
        for item in items:
            recorder.write(item)
    found = archived.audit(archives=(str(tmp_path / "holed"),))
    assert found.coverage["missing"] == 1
    assert found.verdict is Outcome.UNPROVABLE, found.counts
    assert "different" not in found.counts["step"]
    assert "missing" not in found.counts["step"]


def test_archives_may_overlap_where_they_agree(archived: Archived, tmp_path: Path) -> None:
    def part(name: str, low: int, high: int, change: bytes = b"") -> str:
        with Recorder(tmp_path / name, files=".jsonl") as recorder:
            for item in read(archived.source):
                first = item.first if isinstance(item, Gap) else item.offset
                last = item.last if isinstance(item, Gap) else item.offset
                if item.partition == 0 and low <= first and last < high:
                    if change and isinstance(item, ArchivedRecord):
                        item = ArchivedRecord(
                            item.topic, 0, item.offset, item.timestamp, item.key, change, item.headers
                        )
                    recorder.write(item)
        return str(tmp_path / name)

    end = archived.made.ends[0]
    early, late = part("early", 0, 60), part("late", 50, end)
    found = archived.audit(archives=(late, early), partitions=(0,))
    assert found.verdict is Outcome.PROVEN, (found.counts, found.questions)
    assert any("in more than one archive, and agree" in note for note in found.about.reading)
    with pytest.raises(CorruptLog, match="differs from what another archive holds"):
        archived.audit(archives=(early, part("wrong", 50, end, b"{}")), partitions=(0,))


def test_a_range_by_offsets_and_by_time_in_archives(archived: Archived) -> None:
    log = [item for item in archived.made.logs[0] if isinstance(item, ArchivedRecord)]
    middle = log[len(log) // 2]
    found = archived.audit(partitions=(0,), end=f"{middle.timestamp}ms")
    assert found.results[0].begin == 0
    assert 0 < found.results[0].end <= middle.offset
    assert found.verdict is Outcome.PROVEN
    found = archived.audit(partitions=(0,), start="5", end="9")
    assert (found.results[0].begin, found.results[0].end) == (5, 9)
    with pytest.raises(UsageError, match="no partition 7"):
        archived.audit(partitions=(7,))
    with pytest.raises(UsageError, match="needs the topic"):
        archived.audit(end="committed:group")


def test_a_timeline_written_piece_by_piece_adds_up_to_the_same(
    archived: Archived, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def minutes(name: str) -> list[tuple[Any, ...]]:
        archived.audit(report=str(tmp_path / name))
        rows = f"FROM '{tmp_path / name}/tables/timeline/*.parquet'"
        with duckdb.connect() as db:
            sums = f"SELECT partition, minute, status, sum(count), sum(rejected) {rows} GROUP BY ALL ORDER BY ALL"
            return db.execute(sums).fetchall()

    whole = minutes("whole")
    assert len(whole) > 2
    monkeypatch.setattr(evidence, "_CELLS", 2)
    assert minutes("pieces") == whole


def test_narrowing_reports_less_and_folds_the_same(archived: Archived, tmp_path: Path) -> None:
    whole = archived.audit(report=str(tmp_path / "whole"))
    (_, log) = next((place, log) for place, log in sorted(archived.made.topics.items()) if place[0] != mutations.DEAD)
    step_id = (log[0].key or b"").decode()
    narrowed = archived.audit(only=StepFilter(steps=(step_id,)), report=str(tmp_path / "narrowed"))
    assert set(narrowed.counts["step"]) == {"equal"}
    assert sum(narrowed.counts["step"].values()) < sum(whole.counts["step"].values())
    assert [r.chain for r in narrowed.results] == [r.chain for r in whole.results]
    assert all(r.chain for r in whole.results)
    run_id = json.loads(log[0].value or b"")["run_id"]
    nobody = archived.audit(only=StepFilter(runs=("run_nobody",)))
    assert nobody.verdict is Outcome.UNPROVABLE, "a misspelt id must not read as a proof"
    assert any("has one of the ids" in question for question in nobody.questions)

    by_run = archived.audit(only=StepFilter(runs=(run_id,)))
    assert 0 < sum(by_run.counts["step"].values()) < sum(whole.counts["step"].values())


def test_narrowing_to_a_run_narrows_the_transitions_and_lacks_none(archived: Archived, tmp_path: Path) -> None:
    archived.audit(end="120", report=str(tmp_path / "whole"))
    whole = pq.read_table(tmp_path / "whole" / "tables" / "transitions").to_pylist()
    steps = pq.read_table(tmp_path / "whole" / "tables" / "steps").to_pylist()
    others = [step for step in steps if step["run_id"] not in (None, steps[0]["run_id"])]
    open_run = next(step["run_id"] for step in others if step["status"] == "in_progress")
    for name, run_id in (("ended", steps[0]["run_id"]), ("open", open_run)):
        archived.audit(end="120", only=StepFilter(runs=(run_id,)), report=str(tmp_path / name))
        own = pq.read_table(tmp_path / name / "tables" / "transitions").to_pylist()
        ids = {step["step_id"] for step in steps if step["run_id"] == run_id}
        wanted = [row for row in whole if row["step_id"] in ids and not (row["refused"] and row["from"] is None)]
        assert sorted(map(repr, own)) == sorted(map(repr, wanted))
        assert 0 < len(own) < len(whole)
    thread_id = next(step["thread_id"] for step in steps if step["thread_id"])
    archived.audit(end="120", only=StepFilter(threads=(thread_id,), steps=("nobody",)), report=str(tmp_path / "thread"))
    own = pq.read_table(tmp_path / "thread" / "tables" / "transitions").to_pylist()
    assert {row["step_id"] for row in own} == {s["step_id"] for s in steps if s["thread_id"] == thread_id}


def test_the_time_of_making_is_a_time(archived: Archived, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--created: not a time in ISO 8601"):
        archived.audit(report=str(tmp_path / "report"), created="yesterday")
    assert not (tmp_path / "report").exists()


def test_a_capture_whose_path_names_nothing_is_named_by_options(tmp_path: Path) -> None:
    file = tmp_path / "renamed" / "capture.avro"
    file.parent.mkdir()
    file.write_bytes(capture_file(tmp_path / "as-written", [captured(n) for n in range(3)]).read_bytes())
    config = Settings.model_validate({"source": {"topic": "hub.one"}})

    def found(path: Path, capture: Capture) -> Replayed:
        report = str(tmp_path / f"report-{path.stem}")
        options = Options(archives=(str(path),), capture=capture, verify=False, report=report)
        return replay(options, config, _no_broker, lambda _: None)

    with pytest.raises(UsageError, match="--capture-pattern") as refused:
        found(file, Capture(pattern="{EventHub}/{PartitionId}/{Hour}"))
    assert "`replay --capture-topic`" in (refused.value.hint or ""), "other commands have the pattern alone"
    given = found(file, Capture(topic="hub.one", partition=3))
    assert [(r.partition, r.records) for r in given.results] == [(3, 3)]
    moved = tmp_path / "3" / "hub.one.avro"
    moved.parent.mkdir()
    file.rename(moved)
    by_path = found(moved, Capture(pattern="{PartitionId}/{EventHub}"))
    assert [r.chain for r in by_path.results] == [r.chain for r in given.results]
    named = ["--capture-topic", "run-step-events", "--capture-partition", "9"]
    assert cli._run(["replay", "--archive", str(moved), *named, "--no-verify"]) == 4


def test_a_replay_without_comparing_proves_nothing_and_says_so(archived: Archived) -> None:
    found = archived.audit(verify=False)
    assert found.verdict is Outcome.UNPROVABLE
    assert found.exit_code == 4
    assert any("not compared" in question for question in found.questions)


def test_other_rules_are_a_matter_of_settings_not_of_blame(archived: Archived) -> None:
    """Published under other rules: what differs is unverifiable, with the reason."""
    other = settings().model_copy(update={"steps": settings().steps.model_copy(update={"grace_s": 1})})
    options = Options(archives=(str(archived.source),), published=(str(archived.out),))
    found = replay(options, other, _no_broker, lambda _: None)
    assert found.counts["step"].keys() <= {"unverifiable"}


def test_the_range_can_be_archived_on_the_way_and_read_again(archived: Archived, tmp_path: Path) -> None:
    first = archived.audit(record=str(tmp_path / "copy"), record_files=".jsonl", report=str(tmp_path / "first"))
    again = archived.audit(archives=(str(tmp_path / "copy"),), report=str(tmp_path / "again"))
    assert [r.chain for r in again.results] == [r.chain for r in first.results]
    assert again.coverage == first.coverage
    assert list(read(tmp_path / "copy")) == list(read(archived.source)), "gaps and their kinds included"
    before = contents(tmp_path / "copy")
    archived.audit(record=str(tmp_path / "copy"), record_files=".jsonl")
    assert contents(tmp_path / "copy") == before, "what is recorded already is not recorded twice"


def test_what_is_printed_names_the_archive(
    archived: Archived, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("processor.cli.replay.load_settings", lambda _: settings())
    copy = str(tmp_path / "copy")
    asked = ["replay", "--archive", str(archived.source), "--published", str(archived.out)]
    assert cli._run([*asked, "--record", copy]) == 0
    assert f"  archive: {copy}\n" in capsys.readouterr().out
    assert cli._run(asked) == 0
    assert "archive:" not in capsys.readouterr().out


@pytest.mark.parametrize(("count", "told"), [(0, "0 steps open"), (1, "1 step open"), (1_200, "1,200 steps open")])
def test_open_steps_are_counted_in_english(
    archived: Archived, capsys: pytest.CaptureFixture[str], count: int, told: str
) -> None:
    found = archived.audit()
    first = msgspec.structs.replace(found.results[0], open_steps=count)
    _print_summary(msgspec.structs.replace(found, results=[first]))
    assert f", {told}\n" in capsys.readouterr().out


def recorded(archived: Archived, tmp_path: Path) -> tuple[Path, dict[int, tuple[int, int]]]:
    """The range recorded in files of a few records, and [begin, end) of each partition."""
    copy = tmp_path / "copy"
    assert archived.audit(record=str(copy), record_files=".jsonl").exit_code == 0
    again = archived.audit(archives=(str(copy),))
    assert again.exit_code == 0
    return copy, {result.partition: (result.begin, result.end) for result in again.results}


def test_an_archive_without_one_of_its_partitions_is_not_proven(archived: Archived, tmp_path: Path) -> None:
    copy, spans = recorded(archived, tmp_path)
    shutil.rmtree(copy / mutations.SOURCE / "0")
    found = archived.audit(archives=(str(copy),))
    assert found.exit_code == 4
    begin, end = spans[0]
    assert any(
        f"Partition 0: archive {copy}" in q and f"{begin} to {end - 1} are not there" in q for q in found.questions
    )
    assert found.coverage["missing"] == end - begin
    shutil.rmtree(copy / mutations.SOURCE)
    assert archived.audit(archives=(str(copy),)).exit_code == 4
    assert archived.audit(archives=(str(copy), str(archived.source))).exit_code == 0, "another archive holds all of it"


@pytest.mark.parametrize("which", [0, 1, -1])
def test_an_archive_without_one_of_its_files_is_not_proven_and_offsets_are_named(
    archived: Archived, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, which: int
) -> None:
    monkeypatch.setattr(partition, "Recorder", partial(Recorder, file_bytes=20_000))
    copy, spans = recorded(archived, tmp_path)
    files = sorted((copy / mutations.SOURCE / "0").glob("*.jsonl"))
    assert len(files) > 2
    first = int(files[which].stem)
    behind = int(files[which + 1].stem) if which != -1 else spans[0][1]
    files[which].unlink()
    found = archived.audit(archives=(str(copy),))
    assert found.exit_code == 4
    assert any(f"offsets {first} to {behind - 1} are not there" in question for question in found.questions)
    # What is there is proven where it alone is asked for, if it begins at the beginning.
    if which:
        assert archived.audit(archives=(str(copy),), partitions=(0,), end=str(first)).exit_code == 0
    # Recording again mends it, and only that: what was promised is not forgotten.
    archived.audit(record=str(copy), record_files=".jsonl")
    assert archived.audit(archives=(str(copy),)).exit_code == (0 if which == -1 else 4)


def test_a_recording_that_was_cut_short_is_not_proven(
    archived: Archived, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy, _ = recorded(archived, tmp_path)
    whole = contents(copy)
    shutil.rmtree(copy)
    with monkeypatch.context() as patched:

        def cut(*args: Any) -> None:
            raise KeyboardInterrupt

        patched.setattr(manifest, "finish", cut)
        with pytest.raises(KeyboardInterrupt):
            archived.audit(record=str(copy), record_files=".jsonl")
    found = archived.audit(archives=(str(copy),))
    assert found.exit_code == 4, "all offsets are there, and the recording was not completed"
    assert all("its recording was not completed" in question for question in found.questions)
    archived.audit(record=str(copy), record_files=".jsonl")
    assert contents(copy) == whole
    (copy / MANIFEST).unlink()
    assert archived.audit(archives=(str(copy),)).exit_code == 0, "archives without a manifest are read as they are"


def test_a_copy_without_its_label_still_has_to_hold_what_its_manifest_says(archived: Archived, tmp_path: Path) -> None:
    copy, _ = recorded(archived, tmp_path)
    (copy / LABEL).unlink()
    assert archived.audit(archives=(str(copy),)).exit_code == 0
    lost = max(copy.glob("*/*"))
    shutil.rmtree(lost)
    found = archived.audit(archives=(str(copy),))
    assert found.exit_code == 4
    assert any(f"manifest of {lost.parent.name}-{lost.name}" in question for question in found.questions)


def test_an_archive_that_was_killed_while_it_grew_names_what_it_was_to_hold(archived: Archived, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    code = (
        "import os, sys, pickle; from pathlib import Path; from tests.shell.test_replay import settings, _no_broker;"
        "from processor.audit.replay import command as run; from processor.archives import Recorder;"
        "Recorder.close = lambda self: os.kill(os.getpid(), 9);"
        "source, out, copy = sys.argv[1:];"
        "run.replay(run.Options(archives=(source,), published=(out,), record=copy, workers=1), settings(), _no_broker,"
        " lambda progress: None)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(archived.source), str(archived.out), str(copy)], check=False, timeout=120
    )
    assert done.returncode == -9
    held = {one.partition: one for one in manifest.read_manifest(copy)}
    assert {p: one.end for p, one in held.items()} == archived.made.ends
    assert not any(one.complete for one in held.values())
    found = archived.audit(archives=(str(copy),))
    assert found.exit_code == 4
    assert found.coverage["missing"] == sum(archived.made.ends.values())


def test_output_that_lacks_a_part_is_refused_and_no_record_accused(archived: Archived, tmp_path: Path) -> None:
    (topic, partition), log = next((at, log) for at, log in sorted(archived.made.topics.items()) if len(log) > 1)
    manifest.begin(archived.out, {(topic, partition): (log[0].offset, log[-1].offset + 1)})
    manifest.finish(archived.out, [(topic, partition)])
    assert archived.audit().exit_code == 0
    shutil.rmtree(archived.out / topic / str(partition))
    with pytest.raises(
        ArchiveError, match=f"{topic}-{partition}.*offsets {log[0].offset} to {log[-1].offset} are not there"
    ):
        archived.audit()


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        "[" * 4000,
        '{"run-steps archive manifest": 2}',
        '{"run-steps archive manifest": 1, "partitions": [{"topic": "../up", "partition": 0, "begin": 0, "end": 1, '
        '"complete": true, "files": []}]}',
        '{"run-steps archive manifest": 1, "partitions": [{"topic": "t", "partition": 0, "begin": 2, "end": 1, '
        '"complete": true, "files": []}]}',
    ],
)
def test_a_manifest_that_cannot_be_right_is_refused(archived: Archived, text: str) -> None:
    (archived.source / MANIFEST).write_text(text)
    with pytest.raises(ArchiveError, match=r"archive\.manifest\.json"):
        archived.audit()


def test_progress_is_told_while_it_runs(archived: Archived) -> None:
    shown: list[Progress] = []
    archived.audit(shown)
    assert {at.what for at in shown} >= {"folding and comparing"}
    assert shown[-1].done == shown[-1].total > 0


def test_a_report_folder_that_is_in_use_is_refused_before_anything_is_read(archived: Archived, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("do not touch")
    with pytest.raises(UsageError, match="not empty"):
        archived.audit(report=str(tmp_path / "mine"), archives=("nowhere",))


# --- the command ------------------------------------------------------------------------------------------------------


def test_the_command_and_its_exit_codes(archived: Archived, tmp_path: Path) -> None:
    out = "\n".join(f'{status} = "{topic}"' for status, topic in mutations.OUTCOMES.items())
    config = tmp_path / "audit.toml"
    config.write_text(
        f'[source]\ntopic = "{mutations.SOURCE}"\n[output]\n{out}\ndead_letter = "{mutations.DEAD}"\n'
        f"max_record_bytes = {mutations.RULES.max_record_bytes}\n"
        f"[steps]\nmax_step_bytes = {mutations.RULES.max_step_bytes}\n"
    )

    def run(*args: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "processor", "replay", *args]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    given = ("-c", str(config), "--archive", str(archived.source), "--published", str(archived.out))
    report = tmp_path / "report"
    done = run(*given, "--report", str(report))
    assert done.returncode == 0, done.stderr
    assert "leaked" not in done.stderr, "a library complains as the process ends"
    assert done.stdout.startswith("proven\n")
    checked = run("--check", str(report), "--archive", str(archived.source))
    assert checked.returncode == 0, checked.stderr
    assert ": whole. proven." in checked.stdout
    told = run(*given, "--no-verify", "--json")
    assert told.returncode == 4
    assert json.loads(told.stdout)["verdict"] == "not provable"
    (report / "manifest.json").write_text((report / "manifest.json").read_text().replace("proven", "PROVEN"))
    assert run("--check", str(report)).returncode == 65
    assert run(*given, "--from", "yesterday").returncode == 64


def test_a_fold_is_held_against_the_report_of_another(archived: Archived, tmp_path: Path) -> None:
    """The release gate: the same fold changes nothing; one with other rules changes what it changes, by name."""
    report = str(tmp_path / "before")
    whole = archived.audit(report=report)
    same = archived.audit(against=report)
    assert same.exit_code == 0
    assert same.against is not None
    assert same.against.same == sum(whole.counts["step"].values())
    assert same.against.differing == 0
    other = settings().model_copy(update={"output": settings().output.model_copy(update={"object_type": "odd"})})
    options = Options(archives=(str(archived.source),), published=(str(archived.out),), against=report)
    changed = replay(options, other, _no_broker, lambda _: None)
    assert changed.against is not None
    assert changed.against.changed == same.against.same
    assert changed.against.examples[0].columns == ("digest",)
    assert changed.exit_code == 3


def test_a_log_that_is_not_the_one_of_the_report_is_named_by_its_block(archived: Archived, tmp_path: Path) -> None:
    """A header that no rule reads: no published byte hangs on it, the links do."""
    report = str(tmp_path / "before")
    archived.audit(report=report)
    log = [item for item in archived.made.logs[1] if isinstance(item, ArchivedRecord)]
    victim = log[len(log) * 2 // 3]
    with Recorder(tmp_path / "touched", files=".jsonl") as recorder:
        for item in read(archived.source):
            if item == victim:
                item = msgspec.structs.replace(victim, headers=(*victim.headers, ("odd", b"1")))
            recorder.write(item)
    found = archived.audit(archives=(str(tmp_path / "touched"),), against=report)
    assert found.verdict is Outcome.PROVEN
    assert found.against is not None
    assert (found.against.differing, found.against.blocks) == (0, 1)
    (block,) = found.against.first_blocks
    assert block.partition == 1
    assert block.first <= victim.offset <= block.last == block.first + BLOCK_OFFSETS - 1
    assert found.exit_code == 3


def test_blocks_that_two_ranges_cut_in_two_ways_are_not_compared(archived: Archived, tmp_path: Path) -> None:
    report = str(tmp_path / "before")
    archived.audit(report=report, start="5", partitions=(0,))
    end = archived.made.ends[0]
    assert end > 4 * BLOCK_OFFSETS
    for start, stop, blocks in (("0", "", -(-end // BLOCK_OFFSETS) - 1), ("5", "200", 200 // BLOCK_OFFSETS)):
        found = archived.audit(against=report, partitions=(0,), start=start, end=stop)
        assert found.against is not None
        assert (found.against.blocks_compared, found.against.blocks) == (blocks, 0)


def test_a_process_of_the_pool_loads_nothing_that_no_task_uses() -> None:
    """It would load it while all wait for it: settings, tables, what draws on a terminal."""
    code = (
        "import sys, processor.audit.replay.partition_task, processor.audit.replay.index_output\n"
        "print(sorted({'aiohttp', 'prometheus_client', 'pyarrow', 'pydantic', 'rich', 'structlog'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "[]\n"


def test_a_replay_of_archives_needs_no_client(archived: Archived, tmp_path: Path) -> None:
    """It takes a tenth of a second to load, of the second that a replay takes to begin."""
    output = {**mutations.OUTCOMES, "dead_letter": mutations.DEAD}
    config = tmp_path / "run-steps.toml"
    config.write_text(
        "\n".join(
            (
                f'[source]\ntopic = "{mutations.SOURCE}"\n[output]',
                *(f'{name} = "{topic}"' for name, topic in output.items()),
                f"max_record_bytes = {mutations.RULES.max_record_bytes}",
                f"[steps]\nmax_step_bytes = {mutations.RULES.max_step_bytes}\n",
            )
        )
    )
    code = (
        "import sys\nsys.modules['aiokafka'] = None\n"
        "from processor.cli import main as cli\nsys.exit(cli._run(sys.argv[1:]))"
    )
    asked = ["--archive", archived.source, "--published", archived.out, "--report", tmp_path / "report"]
    command = [sys.executable, "-c", code, "replay", "--config", str(config), *map(str, asked), "--workers", "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
