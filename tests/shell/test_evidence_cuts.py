"""The same range read from archives that are cut elsewhere, or overlap, is the same evidence."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from random import Random

import msgspec
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from processor.archives import ArchivedRecord, Gap, Recorder
from processor.archives import read as read_archive
from processor.archives.jsonl import encode_line
from processor.audit.replay import archive_ranges
from processor.audit.report.manifest import read
from processor.cli import main as cli
from processor.core.effects import FOLD_VERSION
from processor.core.headers import RULES
from tests.examples import examples
from tests.shell import mutations
from tests.shell.test_replay import Archived
from tests.shell.test_replay import settings as archived_settings

Cuts = list[tuple[float, int]]
"""Where a log is cut, as a share of it, and how many items the next file repeats of the last."""


@pytest.fixture(scope="module")
def archived(tmp_path_factory: pytest.TempPathFactory) -> Archived:
    return Archived(tmp_path_factory.mktemp("cuts"))


def pieces(items: Sequence[ArchivedRecord | Gap], cuts: Cuts) -> list[bytes]:
    ends = sorted((round(share * len(items)), repeated) for share, repeated in cuts)
    found, begin = [], 0
    for end, repeated in [*ends, (len(items), 0)]:
        if items[begin:end]:
            found.append(b"".join(map(encode_line, items[begin:end])))
        begin = max(begin, end - repeated)
    return found


def evidence(archived: Archived, folder: Path, cuts: Sequence[Cuts]) -> tuple[str, str]:
    paths = []
    for (partition, log), own in zip(sorted(archived.made.logs.items()), cuts, strict=True):
        for number, content in enumerate(pieces(log, own)):
            paths.append(folder / f"part-{partition}-{number}.jsonl")
            paths[-1].write_bytes(content)
    found = archived.audit(archives=tuple(map(str, paths)), report=str(folder / "report"))
    assert read(folder / "report").evidence == found.evidence
    return found.evidence, found.root


_cuts: st.SearchStrategy[Cuts] = st.lists(st.tuples(st.floats(0.05, 0.95), st.integers(0, 40)), max_size=3)


@settings(
    max_examples=examples(6), deadline=None, phases=[Phase.explicit, Phase.generate]
)  # a replay is too dear to shrink by
@given(cuts=st.lists(_cuts, min_size=mutations.PARTITIONS, max_size=mutations.PARTITIONS))
def test_how_archives_are_cut_and_overlap_makes_no_difference_to_the_evidence(
    archived: Archived, cuts: list[Cuts]
) -> None:
    whole = evidence_of_whole(archived)
    folder = Path(tempfile.mkdtemp(dir=archived.folder))
    try:
        found, _ = evidence(archived, folder, cuts)
    finally:
        shutil.rmtree(folder)
    assert found == whole


_WHOLE: dict[int, str] = {}


def evidence_of_whole(archived: Archived) -> str:
    if id(archived) not in _WHOLE:
        _WHOLE[id(archived)] = archived.audit(report=str(archived.folder / "whole")).evidence
    return _WHOLE[id(archived)]


def test_another_range_is_other_evidence(archived: Archived, tmp_path: Path) -> None:
    found = archived.audit(end="100", report=str(tmp_path / "shorter"))
    assert found.evidence != evidence_of_whole(archived)


def test_overlapping_archives_say_so_outside_of_the_evidence(archived: Archived, tmp_path: Path) -> None:
    found, root = evidence(archived, tmp_path, [[(0.5, 30)]] * mutations.PARTITIONS)
    about = read(tmp_path / "report").about
    assert any("in more than one archive" in line for line in about.reading)
    assert not about.notes or "archive" not in about.notes[0] or "does not say how many" in about.notes[0]
    assert (found, root != found) == (evidence_of_whole(archived), True)


def with_holes(archived: Archived, folder: Path, rng: Random, count: int) -> list[str]:
    """So many archives of the log; each lacks some of its items, and the others hold them."""
    logs: list[list[bytes]] = [[] for _ in range(count)]
    for log in archived.made.logs.values():
        for item in log:
            lines = logs if rng.random() < 0.8 else rng.sample(logs, rng.randrange(1, count))
            for own in lines:
                own.append(encode_line(item))
    paths = [folder / f"holes-{number}\udcff.jsonl" for number in range(count)]  # a name that is no text
    for path, own in zip(paths, logs, strict=True):
        path.write_bytes(b"".join(own))
    rng.shuffle(paths)
    return list(map(str, paths))


@pytest.mark.parametrize(("seed", "count"), [(1, 2), (2, 2), (3, 3)])
def test_what_archives_hold_together_is_the_evidence_wherever_each_has_holes(
    archived: Archived, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int, count: int
) -> None:
    monkeypatch.setattr(archive_ranges, "_MOST_HOLES", 1_000)
    paths, report = with_holes(archived, tmp_path, Random(seed), count), tmp_path / "report"
    found = archived.audit(archives=tuple(paths), report=str(report))
    assert found.evidence == evidence_of_whole(archived)
    about = read(report).about
    assert sum("are not in archive" in line for line in about.reading) > 10
    assert not any("are not in archive" in line for line in about.notes)
    for order in (paths, paths[::-1]):
        arguments = [argument for path in order for argument in ("--archive", path)]
        assert cli._run(["replay", "--check", str(report), *arguments]) == 0


def test_of_very_many_holes_none_is_read_from_elsewhere_and_it_is_said(
    archived: Archived, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive_ranges, "_MOST_HOLES", 3)
    paths, report = with_holes(archived, tmp_path, Random(1), 2), tmp_path / "report"
    found = archived.audit(archives=tuple(paths), report=str(report))
    assert found.exit_code == 4
    assert found.coverage["missing"] > 3
    assert sum("too many to be read from there" in line for line in read(report).about.reading) == mutations.PARTITIONS


def test_the_first_record_of_a_time_is_found_in_whichever_archive_holds_it(archived: Archived, tmp_path: Path) -> None:
    records = [item for item in archived.made.logs[0] if isinstance(item, ArchivedRecord)]
    at = next(n for n in range(40, len(records)) if records[n].timestamp > max(r.timestamp for r in records[:n]))
    for name, kept in (("first", [*records[:at], *records[at + 3 :]]), ("second", records[20:])):
        (tmp_path / f"{name}.jsonl").write_bytes(b"".join(map(encode_line, kept)))
    paths = (str(tmp_path / "first.jsonl"), str(tmp_path / "second.jsonl"))
    found = archived.audit(archives=paths, start=f"{records[at].timestamp}ms")
    assert found.results[0].begin == records[at].offset


def test_the_versions_and_settings_that_records_name_are_in_the_evidence(archived: Archived, tmp_path: Path) -> None:
    rules = archived_settings().rules().digest()
    found = archived.audit(report=str(tmp_path / "r"))
    assert {(row.fold_version, row.rules) for one in found.results for row in one.in_force} == {(FOLD_VERSION, rules)}
    for one in found.results:
        (row,) = one.in_force
        assert row.records == sum(one.counts["step"].values())
        assert one.begin <= row.first_cause <= row.last_cause < one.end
    with Recorder(tmp_path / "out", files=".jsonl") as recorder:
        changed = 0
        for item in read_archive(archived.out):
            if isinstance(item, ArchivedRecord) and dict(item.headers).get(RULES) and changed < 3:
                changed += 1
                headers = tuple((n, b"0123456789abcdef" if n == RULES else c) for n, c in item.headers)
                item = msgspec.structs.replace(item, headers=headers)
            recorder.write(item)
    again = archived.audit(report=str(tmp_path / "again"), published=(str(tmp_path / "out"),))
    rows = [row for one in read(tmp_path / "again").ranges for row in one.in_force]
    assert sum(row.records for row in rows if row.rules == "0123456789abcdef") == changed == 3
    assert again.evidence != found.evidence
    assert "0123456789abcdef" in (tmp_path / "again" / "report.html").read_text("utf-8")
