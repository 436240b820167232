"""What an archive lacks, or keeps less of, is seen however it is given: alone, in a folder of several, or in part.

So are offsets that no gap names, and files that another program has packed. Reports of such archives are compared only
with their like.
"""

from __future__ import annotations

import bz2
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from processor.archives import ArchivedRecord, ArchiveError, Gap, GapKind, Recorder, lacks_headers, left_alone, read
from processor.archives.jsonl import encode_line
from processor.archives.label import LABEL, MANIFEST, roots
from processor.audit.reconcile.command import Reconciled, reconcile
from processor.audit.replay.outcome import Replayed
from processor.audit.report.manifest import Outcome, lossy
from processor.audit.report.manifest import read as read_report
from processor.cli import main as cli
from processor.errors import UsageError
from processor.otlp.command import Exported, Options, export_archives
from tests.shell import mutations
from tests.shell.test_audit_captures import Captured, _capture, _no_broker, _spark
from tests.shell.test_otlp import Sink
from tests.shell.test_replay import Archived, settings

SOURCE = mutations.SOURCE


@pytest.fixture
def archived(tmp_path: Path) -> Archived:
    return Archived(tmp_path)


@pytest.fixture
def there(tmp_path: Path) -> Captured:
    return Captured(tmp_path)


def items_of(path: Path) -> list[ArchivedRecord | Gap]:
    return list(read(path))


def plain(file: Path, items: list[ArchivedRecord | Gap]) -> Path:
    """JSON lines as any program may write them: no label, no manifest."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"".join(map(encode_line, items)))
    return file


def recorded_output(archived: Archived, folder: Path) -> Path:
    """The output as `--record` keeps it: with a manifest."""
    from processor.archives import manifest

    ends: dict[tuple[str, int], tuple[int, int]] = {}
    with Recorder(folder, files=".jsonl") as recorder:
        for item in read(archived.out):
            recorder.write(item)
            behind = item.offset + 1 if isinstance(item, ArchivedRecord) else item.last + 1
            first = item.offset if isinstance(item, ArchivedRecord) else item.first
            place = (item.topic, item.partition)
            ends[place] = (ends.get(place, (first,))[0], behind)
    manifest.begin(folder, ends)
    manifest.finish(folder, list(ends))
    return folder


def step_lists(archived: Archived, file: Path) -> Path:
    """The newest of each published step, as its service would list it."""
    newest: dict[str, Any] = {}
    for log in archived.made.topics.values():
        for record in log:
            headers = dict(record.headers)
            if "runstep-revision" in headers and record.value:
                step, order = json.loads(record.value), int(headers["runstep-revision"] or b"0")
                if order >= newest.get(step["id"], (-1, None))[0]:
                    newest[step["id"]] = (order, step)
    listed = [step for _, step in newest.values() if not step["id"].startswith("resp_")]
    file.write_text(json.dumps(listed))
    return file


def exported(*paths: Path) -> Exported:
    return export_archives(settings(), list(paths), Sink(), Options())


# --- a recorded archive in a folder of others, or a part of one -------------------------------------------------------


@pytest.mark.parametrize("given", ["itself", "the folder around it", "its topic"])
def test_a_lost_partition_of_the_output_is_refused_however_it_is_given(
    archived: Archived, tmp_path: Path, given: str
) -> None:
    """Its steps were missing (3) where the manifest was not looked for, and left out of an export without a word."""
    folder = recorded_output(archived, tmp_path / "kept" / "output")
    paths = {"itself": folder, "the folder around it": folder.parent, "its topic": folder / "out.completed"}
    path, lists = paths[given], step_lists(archived, tmp_path / "lists.json")
    assert exported(path).steps > 0
    shutil.rmtree(folder / "out.completed" / "1")
    for refuse in (
        lambda: archived.audit(published=(str(path),)),
        lambda: reconcile([lists], settings(), _no_broker, published=[path]),
        lambda: exported(path),
    ):
        with pytest.raises(ArchiveError, match=r"manifest of out\.completed-1 names offsets"):
            refuse()


def test_a_lost_file_of_the_source_is_told_however_it_is_given(archived: Archived, tmp_path: Path) -> None:
    copy = tmp_path / "kept" / "source"
    archived.audit(record=str(copy), record_files=".jsonl")
    shutil.rmtree(copy / SOURCE / "1")
    for path in (copy, copy.parent, copy / SOURCE):
        found = archived.audit(archives=(str(path),))
        assert found.verdict is Outcome.UNPROVABLE, path
        assert any(f"manifest of {SOURCE}-1" in question for question in found.questions)


def test_a_file_that_was_chosen_need_not_hold_the_rest(archived: Archived, tmp_path: Path) -> None:
    copy = tmp_path / "source"
    archived.audit(record=str(copy), record_files=".jsonl")
    (file,) = (copy / SOURCE / "0").glob("*.jsonl")
    shutil.rmtree(copy / SOURCE / "1")
    assert archived.audit(archives=(str(file),), partitions=(0,)).verdict is Outcome.PROVEN


@pytest.mark.parametrize("part", [".", "..", SOURCE, f"{SOURCE}/0"])
def test_the_label_counts_for_a_part_of_the_archive_and_for_a_folder_of_several(
    there: Captured, tmp_path: Path, part: str
) -> None:
    """Recorded from a capture: 124 honest steps were different where the label was not looked for."""
    recorded = tmp_path / "kept" / "recorded"
    there.audit(source="captured", record=str(recorded))
    partitions = (0,) if part.endswith("/0") else ()
    found = there.audit(source=f"kept/recorded/{part}", partitions=partitions)
    assert found.verdict is Outcome.UNPROVABLE, found.first


def test_the_roots_of_an_archive_are_found(tmp_path: Path) -> None:
    for name in ("a", "b"):
        with Recorder(tmp_path / "both" / name, files=".jsonl") as recorder:
            recorder.write(ArchivedRecord("t", 0, 0, 0, None, None, ()))
    a, b = tmp_path / "both" / "a", tmp_path / "both" / "b"
    (file,) = (a / "t" / "0").iterdir()
    assert [roots(path) for path in (a, a / "t", a / "t" / "0", file)] == [[a]] * 4
    assert roots(tmp_path / "both") == roots(tmp_path) == [a, b]
    (a / LABEL).rename(a / MANIFEST)
    assert roots(tmp_path) == [a, b]
    beside = plain(a / "beside.jsonl", [])
    other = plain(a / "t" / "other" / "x.jsonl", [])
    assert roots(beside) == roots(other) == roots(other.parent) == []
    assert roots(tmp_path / "none") == []
    (tmp_path / "both" / LABEL).write_text('{"of": "another program"}')
    assert roots(tmp_path) == [a, b]
    foreign = plain(tmp_path / "foreign" / "t" / "0" / "x.jsonl", [])
    (tmp_path / "foreign" / LABEL).write_text("[]")
    assert roots(foreign) == roots(foreign.parent) == roots(foreign.parents[1]) == []


def test_what_is_recorded_from_an_archive_without_headers_is_told_to_be(there: Captured, tmp_path: Path) -> None:
    """Else the recording says of each record that it has no headers, and honest steps are different."""
    _spark(tmp_path / "without", there.source, headers=False)
    recorded = tmp_path / "recorded"
    assert there.audit(source="without", record=str(recorded)).verdict is Outcome.UNPROVABLE
    assert json.loads((recorded / LABEL).read_text())["headers"] == "unknown"
    assert lacks_headers(recorded)
    assert there.audit(source="recorded").verdict is Outcome.UNPROVABLE
    Recorder(recorded, has_arrivals=True)
    assert json.loads((recorded / LABEL).read_text()) | {"files": ""} == {
        "run-steps archive": 1, "files": "", "times": "arrival", "headers": "unknown",
    }  # fmt: skip


# --- two archives of the output ---------------------------------------------------------------------------------------


def test_archives_of_the_output_that_overlap_are_refused_by_all(archived: Archived, tmp_path: Path) -> None:
    """`reconcile` took the later of two contradicting records, and `export` sent steps twice."""
    own = items_of(archived.out)
    half = plain(tmp_path / "half.jsonl", own[: len(own) // 2])
    rest = plain(tmp_path / "rest.jsonl", own[len(own) // 2 :])
    again = plain(tmp_path / "again.jsonl", own[len(own) // 2 - 1 :])
    lists = step_lists(archived, tmp_path / "lists.json")
    assert exported(rest, half).steps == exported(archived.out).steps

    def reconciled(*paths: Path) -> Reconciled:
        return reconcile([lists], settings(), _no_broker, published=list(paths))

    assert reconciled(rest, half).counts == reconciled(archived.out).counts
    for refuse in (exported, reconciled, lambda *paths: archived.audit(published=tuple(map(str, paths)))):
        with pytest.raises(ArchiveError, match="is among those of another archive"):
            refuse(half, again)


# --- offsets that no gap names ----------------------------------------------------------------------------------------


def with_markers(archived: Archived) -> list[ArchivedRecord | Gap]:
    """The output, with a transaction's marker behind every third record of a partition."""
    found: list[ArchivedRecord | Gap] = []
    for (topic, partition), log in sorted(archived.made.topics.items()):
        offset = 0
        for number, r in enumerate(log, start=1):
            found.append(ArchivedRecord(topic, partition, offset, r.timestamp, r.key, r.value, r.headers))
            offset += 1
            if number % 3 == 0:
                found.append(Gap(topic, partition, offset, offset, GapKind.MARKER))
                offset += 1
    return found


def lost(items: list[ArchivedRecord | Gap]) -> ArchivedRecord:
    own = [item for item in items if (item.topic, item.partition) == ("out.completed", 0)]
    return next(item for item in own[len(own) // 2 :] if isinstance(item, ArchivedRecord))


def test_a_record_that_is_lost_from_an_archive_that_names_its_markers_is_not_called_missing(
    archived: Archived, tmp_path: Path
) -> None:
    """What names the markers would have named this offset, too. Who names none (kcat) may have left out a marker."""
    items = with_markers(archived)
    gone = lost(items)
    named = plain(tmp_path / "named.jsonl", [item for item in items if item is not gone])
    unnamed = plain(
        tmp_path / "unnamed.jsonl", [item for item in items if item is not gone and not isinstance(item, Gap)]
    )
    whole = plain(tmp_path / "whole.jsonl", items)
    assert archived.audit(published=(str(whole),)).verdict is Outcome.PROVEN
    found = archived.audit(published=(str(named),))
    assert (found.verdict, found.counts["step"]["unverifiable"]) == (Outcome.UNPROVABLE, 1)
    found = archived.audit(published=(str(unnamed),))
    assert (found.verdict, found.counts["step"]["missing"]) == (Outcome.DIFFERENT, 1)
    told = " ".join(found.about.notes)
    assert "offsets of the output are in no archive, and no gap says why" in told
    assert f"Archive {unnamed} of the output has no manifest" in told
    assert not any("no gap says why" in note for note in archived.audit(published=(str(whole),)).about.notes)


def test_reconcile_takes_unnamed_offsets_as_a_replay_does(archived: Archived, tmp_path: Path) -> None:
    lists, items = step_lists(archived, tmp_path / "lists.json"), with_markers(archived)
    ids = {step["id"].encode() for step in json.loads(lists.read_text())}
    gone = next(
        item
        for item in items
        if isinstance(item, ArchivedRecord) and item.topic == "out.completed" and item.offset and item.key in ids
    )
    kept = [item for item in items if item is not gone]

    def told(items: list[ArchivedRecord | Gap]) -> tuple[str, list[str]]:
        found = reconcile([lists], settings(), _no_broker, published=[plain(tmp_path / "out.jsonl", items)])
        assert gone.key is not None
        step = next(one for one in found.steps if one.step_id == gone.key.decode())
        return step.verdict.value, found.notes

    assert told(items)[0] == "equal"
    assert told(kept)[0] == "unverifiable"
    verdict, notes = told([item for item in kept if not isinstance(item, Gap)])
    # By the last minute before the archive's end it may come yet: that is another reason.
    assert verdict in ("missing", "unverifiable")
    assert verdict == "unverifiable" or any("no gap says why" in note for note in notes)


# --- files that are not read ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.jsonl.bz2", "sub/A.JSONL.LZ4", "b.parquet.gz", "c.avro.zst", "d.ndjson.xz"])
def test_a_folder_with_a_file_that_another_program_has_packed_is_refused(
    archived: Archived, tmp_path: Path, name: str
) -> None:
    """Left alone, its records would be missing."""
    items = items_of(archived.out)
    plain(tmp_path / "packed" / "z.jsonl", items[len(items) // 2 :])
    file = tmp_path / "packed" / name
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(bz2.compress(b"".join(map(encode_line, items[: len(items) // 2]))))
    for refuse in (
        lambda: exported(tmp_path / "packed"),
        lambda: archived.audit(published=(str(tmp_path / "packed"),)),
    ):
        with pytest.raises(ArchiveError, match="packed in a way that is not read here"):
            refuse()
    file.rename(file.with_name(f"_{file.name}"))
    assert exported(tmp_path / "packed").steps > 0, "what is not finished is left alone"


@pytest.mark.parametrize("command", [["reconcile", "lists.json", "--published"], ["export", "otlp", "--published"]])
def test_files_that_are_left_alone_are_told_by_every_command(
    archived: Archived, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
    command: list[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    step_lists(archived, tmp_path / "lists.json")
    plain(tmp_path / "folder" / "z.jsonl", items_of(archived.out))
    plain(tmp_path / "folder" / "_y.jsonl", [])
    assert left_alone(tmp_path / "folder") == 1
    endpoint = ["--endpoint", "http://127.0.0.1:1/v1/traces", "--timeout", "1"] if command[0] == "export" else []
    cli._run([*command, "folder", *endpoint])
    assert "1 files left alone" in capsys.readouterr().err


# --- reports of archives that keep less than the topic ----------------------------------------------------------------


def reported(there: Captured, source: str, **options: Any) -> tuple[Path, Replayed]:
    folder = there.folder / f"report-{source}"
    return folder, there.audit(source=source, report=str(folder), **options)


def checked(folder: Path, *archives: Path) -> int:
    """The exit code of `replay --check`."""
    return cli._run(["replay", "--check", str(folder), *(w for path in archives for w in ("--archive", str(path)))])


@pytest.mark.parametrize("kind", ["captured", "without"])
def test_a_report_is_checked_against_archives_of_its_own_kind(
    there: Captured, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    """A capture has other times: that its records were "not the records of the report" (65) accused somebody."""
    _spark(there.folder / "without", there.source, headers=False)
    whole, _ = reported(there, "source")
    lacking, _ = reported(there, kind)
    assert (lossy(read_report(whole).about.source), len(lossy(read_report(lacking).about.source))) == ([], 1)
    source, other = there.folder / "source", there.folder / kind
    assert (checked(whole, source), checked(lacking, other)) == (0, 4)
    capsys.readouterr()
    for report, archive in ((whole, other), (lacking, source), (whole, other)):
        assert checked(report, archive) == 64
        assert "cannot be compared" in capsys.readouterr().err


def test_a_changed_record_is_found_where_a_capture_is_given_that_is_not_read(
    there: Captured, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The kind of an archive that is not read does not excuse what differs."""
    report, _ = reported(there, "source")
    both = tmp_path / "captured", tmp_path / "source"
    assert checked(report, *both) == 0
    for folder, written in zip(both, (_capture, Captured._kept), strict=True):
        shutil.rmtree(folder)
        written(folder, [replace(there.source[0], value=b"{}"), *there.source[1:]])
    capsys.readouterr()
    assert checked(report, *both) == 65
    assert "not the records of the report" in capsys.readouterr().err


def test_a_changed_record_of_a_capture_is_found_in_the_report_that_was_made_from_it(
    there: Captured, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report, _ = reported(there, "captured")
    assert checked(report, tmp_path / "captured") == 4
    shutil.rmtree(tmp_path / "captured")
    _capture(tmp_path / "captured", [replace(there.source[0], value=b"{}"), *there.source[1:]])
    assert checked(report, tmp_path / "captured") == 65
    assert "not the records of the report" in capsys.readouterr().err


def test_a_replay_is_not_held_against_a_report_of_another_kind(there: Captured) -> None:
    """Every block and nearly every step differed (3)."""
    whole, _ = reported(there, "source")
    lacking, _ = reported(there, "captured")
    for source, against in (("captured", whole), ("source", lacking)):
        with pytest.raises(UsageError, match="every digest differs"):
            there.audit(source=source, against=str(against))
    for source, against in (("captured", lacking), ("source", whole)):
        found = there.audit(source=source, against=str(against))
        assert found.against is not None
        assert (found.against.blocks, found.against.differing) == (0, 0)
