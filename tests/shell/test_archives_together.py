"""Replay of several archives, of which one lacks what another holds."""

from __future__ import annotations

from pathlib import Path

import pytest

from processor.archives import ArchivedRecord, ArchiveError, Gap, GapKind, Recorder, manifest, read
from processor.archives.jsonl import encode_line
from processor.archives.reading import recorded_files
from processor.audit.replay.archive_ranges import Archives
from processor.audit.replay.options import Options
from processor.audit.replay.source_survey import SourceSurvey
from processor.audit.replay.task import ArchiveRange
from processor.audit.report.manifest import Outcome
from processor.config.settings import Settings
from processor.errors import CorruptLog
from tests.shell import mutations
from tests.shell.test_replay import Archived, archived

__all__ = ["archived"]


@pytest.mark.parametrize("spare", [(30, 70), (40, 60), (35, None), (0, 60)])
def test_what_an_archive_has_lost_in_its_middle_another_may_hold(
    archived: Archived, tmp_path: Path, spare: tuple[int, int | None]
) -> None:
    end = archived.made.ends[0]

    def part(name: str, *spans: tuple[int, int]) -> Path:
        folder, key = tmp_path / name, (mutations.SOURCE, 0)
        with Recorder(folder, files=".jsonl"):
            manifest.begin(folder, {key: (spans[0][0], spans[-1][1])})
        for low, high in spans:
            with Recorder(folder, files=".jsonl") as recorder:
                for item in read(archived.source, only=key, begin=low, end=high):
                    recorder.write(item)
        manifest.finish(folder, [key])
        return folder

    whole = part("whole", (0, 40), (40, 60), (60, end))
    (lost,) = (file for _, file in recorded_files(whole / mutations.SOURCE / "0") if int(file.name.split(".")[0]) == 40)
    lost.unlink()
    alone = archived.audit(archives=(str(whole),), partitions=(0,))
    assert alone.verdict is Outcome.UNPROVABLE
    other = part("spare", (spare[0], spare[1] or end))
    found = archived.audit(archives=(str(whole), str(other)), partitions=(0,))
    assert found.verdict is Outcome.PROVEN, (found.counts, found.coverage, found.questions)


@pytest.mark.parametrize("at", [50, -3])
@pytest.mark.parametrize("kind", [GapKind.MISSING, GapKind.COMPACTED, GapKind.UNKNOWN, None])
def test_what_one_archive_lacks_contradicts_no_other(
    archived: Archived, tmp_path: Path, kind: GapKind | None, at: int
) -> None:
    """Retention or compaction had taken it when the second one was recorded; None: nothing says why it lacks."""
    key, end = (mutations.SOURCE, 0), archived.made.ends[0]
    low = at % end
    with Recorder(tmp_path / "later", files=".jsonl") as recorder:
        for item in read(archived.source, only=key, begin=40, end=low):
            recorder.write(item)
        if kind is not None:
            recorder.write(Gap(*key, low, low + 2, kind))
        for item in read(archived.source, only=key, begin=low + 3):
            recorder.write(item)
    found = archived.audit(archives=(str(archived.source), str(tmp_path / "later")), partitions=(0,))
    assert found.verdict is Outcome.PROVEN, (found.counts, found.questions)


@pytest.mark.parametrize("which_first", [0, 40])
def test_records_that_another_archive_calls_markers_are_no_agreement(
    archived: Archived, tmp_path: Path, which_first: int
) -> None:
    """Also at the end of what both hold, where no record of the other one follows."""
    end, key = archived.made.ends[0], (mutations.SOURCE, 0)
    with Recorder(tmp_path / "whole", files=".jsonl") as recorder:
        for item in read(archived.source, only=key, begin=40 - which_first):
            recorder.write(item)
    with Recorder(tmp_path / "other", files=".jsonl") as recorder:
        for item in read(archived.source, only=key, begin=which_first, end=end - 3):
            recorder.write(item)
        recorder.write(Gap(*key, end - 3, end - 1, GapKind.MARKER))
    with pytest.raises(CorruptLog, match=f"offset {end - 3} differs from what another archive holds"):
        archived.audit(archives=(str(tmp_path / "whole"), str(tmp_path / "other")), partitions=(0,))


@pytest.mark.parametrize(
    ("low", "topic_begin", "spans", "read", "switch"),
    [
        (0, 0, [(0, 40), (60, 90)], [(0, 40)], 40),
        (0, 40, [(0, 40), (60, 90)], [(0, 40)], 40),
        (0, 41, [(0, 40), (60, 90)], [(0, 40)], 40),
        (0, 59, [(0, 40), (60, 90)], [(0, 40)], 40),
        (0, 60, [(0, 40), (60, 90)], [(0, 40), (60, 90)], 90),
        (0, 10, [(0, 30), (20, 50), (70, 80)], [(0, 30), (30, 50)], 50),
        (0, 0, [(50, 90)], [], 0),
        (50, 50, [(50, 90)], [(50, 90)], 90),
        (0, 60, [(0, 40), (50, 55), (70, 80)], [(0, 40), (50, 55)], 55),
    ],
)
def test_what_archives_lack_is_read_from_the_topic_where_it_is_there(
    low: int,
    topic_begin: int,
    spans: list[tuple[int, int]],
    read: list[tuple[int, int]],
    switch: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Archives, "_compared", lambda *_: [])
    survey = SourceSurvey(Options(archives=("a",), and_topic=True), Settings(), lambda: pytest.fail("no broker"), print)
    survey._archives.ranges[0] = [ArchiveRange("a", *span) for span in spans]
    survey._settle(0, low, 100, topic_begin)
    found = survey.spans[0]
    assert ([(part.begin, part.end) for part in found.parts], found.switch) == (read, switch)


Cut = tuple[int, int, bool]
"""Records that an archive of an output partition holds, by number; whether it says that those before are missing."""


def of_output(archived: Archived, folder: Path, *cuts: Cut) -> tuple[list[str], str]:
    """Archives of the output, of which each holds a part of one partition, the last also all of the others; and the
    step of the record behind the first part."""
    items = [item for item in read(archived.out) if isinstance(item, ArchivedRecord)]
    place = (mutations.OUTCOMES["completed"], 0)
    own = [item for item in items if (item.topic, item.partition) == place]
    paths = []
    for number, (low, high, is_told) in enumerate(cuts):
        paths.append(folder / f"out-{number}.jsonl")
        lines = [encode_line(item) for item in own[low:high]]
        if is_told:
            lines.insert(0, encode_line(Gap(*place, own[low - 1].offset, own[low].offset - 1, GapKind.MISSING)))
        if number == len(cuts) - 1:
            lines += [encode_line(item) for item in items if (item.topic, item.partition) != place]
        paths[-1].write_bytes(b"".join(lines))
    return list(map(str, paths)), (own[cuts[0][1]].key or b"").decode()


@pytest.mark.parametrize("order", [1, -1])
def test_archives_of_the_output_come_in_any_order(archived: Archived, tmp_path: Path, order: int) -> None:
    """Where a partition begins, the one says that holds its first offsets."""
    paths, _ = of_output(archived, tmp_path, (0, 3, False), (3, 99, False))
    assert archived.audit(published=tuple(paths[::order])).verdict is Outcome.PROVEN
    for name, told, verdict in (("lost", False, "missing"), ("told", True, "unverifiable")):
        (tmp_path / name).mkdir()
        paths, step_id = of_output(archived, tmp_path / name, (0, 3, False), (4, 99, told))
        found = archived.audit(published=tuple(paths[::order]))
        (finding,) = [one for one in found.first if one.identity[0] == step_id]
        assert finding.verdict == verdict


def test_archives_of_the_output_must_not_overlap(archived: Archived, tmp_path: Path) -> None:
    paths, _ = of_output(archived, tmp_path, (0, 4, False), (3, 99, False))
    with pytest.raises(ArchiveError, match=r"out-1\.jsonl: out.completed-0: offset \d+ is among those of another"):
        archived.audit(published=tuple(paths))
