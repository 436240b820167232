"""The evidence: the same input gives the same bytes, nothing in it changes unseen, nothing in it attacks its reader."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from hashlib import sha256
from html.parser import HTMLParser
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from random import Random

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from processor.archives import ArchivedRecord, Gap, GapKind, Limits, Recorder
from processor.audit.judge.block_digests import BLOCK_OFFSETS, BlockDigests, framed
from processor.audit.judge.verdicts import Difference, Finding, FindingKind, Verdict
from processor.audit.report import charts, tables
from processor.audit.report.folder import check, check_records, write
from processor.audit.report.manifest import NAME, PAGE, About, Manifest, Outcome, ReportError, encoded, outcome, read
from processor.audit.report.page import lasted, shown, when
from processor.audit.report.tables import SCHEMAS, Tables, digest_of
from processor.core.effects import LogRecord
from processor.errors import UsageError
from tests.shell.reports import HOSTILE, PROGRAM, about, make, records_of

GUIDE = Path(__file__).parents[2] / "docs" / "auditors-guide.md"
ALL_WRONG = tuple(verdict for verdict in Verdict if verdict is not Verdict.EQUAL)


def problems(folder: Path) -> list[str]:
    return check(folder, program=PROGRAM).problems


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def page_of(folder: Path) -> str:
    return (folder / PAGE).read_text("utf-8")


# --- the same input, the same bytes ----------------------------------------------------------------------------


def test_the_same_replay_gives_the_same_folder(tmp_path: Path) -> None:
    make(tmp_path / "a", wrong=ALL_WRONG, hole=5)
    make(tmp_path / "b", wrong=ALL_WRONG, hole=5)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_the_time_of_making_changes_root_and_page_but_no_evidence(tmp_path: Path) -> None:
    without = make(tmp_path / "a")
    with_time = make(tmp_path / "b", created="2026-11-23T16:00:00Z")
    assert with_time.evidence == without.evidence
    assert with_time.root != without.root
    assert "2026-11-23T16:00:00Z" in page_of(tmp_path / "b")
    changed = {name for name, found in contents(tmp_path / "a").items() if found != contents(tmp_path / "b")[name]}
    assert changed == {NAME, PAGE}


def test_row_groups_are_cut_by_count_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "ROW_GROUP_ROWS", 4)
    own = Tables(tmp_path, 3, begin=77)
    for n in range(9):
        own.coverage(n, n, "data")
    files = own.close()
    assert set(files) == {f"{name}/00003-{77:019d}.parquet" for name in SCHEMAS}
    path = tmp_path / f"coverage/00003-{77:019d}.parquet"
    assert pq.ParquetFile(path).metadata.num_row_groups == 3
    assert files[f"coverage/{path.name}"] == digest_of(path, 9)
    assert pq.read_table(path).column("first").to_pylist() == list(range(9))


def test_row_groups_are_the_same_however_many_rows_are_held_as_objects(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "ROW_GROUP_ROWS", 6_000)
    found = []
    for held in (6_000, 2_000, 1):
        monkeypatch.setattr(tables, "_HELD_ROWS", held)
        own = Tables(tmp_path / str(held), 0)
        for n in range(8_000):
            own.coverage(n, n, f"{n}{n * 7919 % 6_007}" * 40)  # more than a dictionary takes, or a page
        part = next((tmp_path / str(held)).glob("coverage/.*"))
        assert part.stat().st_size > 10_000, "a row group is written when it is whole"
        found.append(own.close())
        path = tmp_path / str(held) / f"coverage/00000-{0:019d}.parquet"
        metadata = pq.ParquetFile(path).metadata
        assert [metadata.row_group(at).num_rows for at in range(2)] == [6_000, 2_000]
    assert found[0] == found[1] == found[2], "to the byte"


def test_a_task_that_failed_leaves_no_file(tmp_path: Path) -> None:
    own = Tables(tmp_path, 0)
    own.coverage(0, 1, "data")
    own.abandon()
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_numbers_and_texts_that_no_column_holds_are_tamed(tmp_path: Path) -> None:
    """Headers come from anybody: an offset of 19 nines and half a surrogate pair must not end the replay."""
    own = Tables(tmp_path, 0)
    differences = (Difference("value.\ud800", "a", "\udfff"),)
    own.finding(
        Finding(
            Verdict.EXTRA,
            FindingKind.STEP,
            1 << 40,
            ("\ud800", "0"),
            10**19 - 1,
            -(10**20),
            ("t", 0, 1),
            "",
            differences,
        )
    )
    own.close()
    (row,) = pq.read_table(tmp_path / "findings").to_pylist()
    assert (row["partition"], row["first_offset"], row["cause_offset"]) == (2**31 - 1, 2**63 - 1, -(2**63))
    assert row["identity_1"] == "\\ud800"
    assert row["differences"] == [{"path": "value.\\ud800", "expected": "a", "got": "\\udfff"}]


# --- the verdict -----------------------------------------------------------------------------------------------


def test_a_range_without_a_finding_is_proven(tmp_path: Path) -> None:
    assert make(tmp_path / "r").verdict is Outcome.PROVEN
    assert "Proven" in page_of(tmp_path / "r")
    assert problems(tmp_path / "r") == []


@pytest.mark.parametrize("verdict", ALL_WRONG)
def test_each_verdict_counts(tmp_path: Path, verdict: Verdict) -> None:
    expected = Outcome.UNPROVABLE if verdict is Verdict.UNVERIFIABLE else Outcome.DIFFERENT
    assert make(tmp_path / "r", wrong=(verdict,)).verdict is expected
    assert problems(tmp_path / "r") == []


def test_a_disagreement_outweighs_what_is_open(tmp_path: Path) -> None:
    wrong = (Verdict.MISSING, Verdict.UNVERIFIABLE)
    assert make(tmp_path / "r", wrong=wrong).verdict is Outcome.DIFFERENT


def test_a_hole_proves_nothing(tmp_path: Path) -> None:
    assert make(tmp_path / "r", hole=1).verdict is Outcome.UNPROVABLE
    assert "1 offset is missing." in page_of(tmp_path / "r")


def test_what_was_not_compared_proves_nothing(tmp_path: Path) -> None:
    assert make(tmp_path / "r", settings=about(verified=False)).verdict is Outcome.UNPROVABLE


def test_what_an_open_transaction_holds_back_is_not_proven(tmp_path: Path) -> None:
    """Even where all that could be read is equal: a forged record may stand behind it."""
    held = about(held=[("out.completed", 1, 17)])
    assert make(tmp_path / "r", settings=held).verdict is Outcome.UNPROVABLE
    assert "open transaction holds back" in page_of(tmp_path / "r")
    assert problems(tmp_path / "r") == []


def test_an_empty_range_proves_nothing() -> None:
    assert outcome(about(), []) is Outcome.UNPROVABLE


def test_what_does_not_add_up_proves_nothing(tmp_path: Path) -> None:
    manifest = make(tmp_path / "r")
    trouble = msgspec.structs.replace(manifest.ranges[0], trouble=("3 effects were judged twice",))
    assert outcome(manifest.about, [trouble]) is Outcome.UNPROVABLE


def test_a_report_is_not_written_over_another(tmp_path: Path) -> None:
    make(tmp_path / "r")
    with pytest.raises(UsageError, match="not empty"):
        make(tmp_path / "r")


def test_a_folder_may_be_called_anything(tmp_path: Path) -> None:
    """The engine that reads the tables takes some letters of a path for patterns."""
    folder = tmp_path / "range [1] *?{a}'x %41"
    make(folder)
    make(tmp_path / "range 1 plain")
    assert contents(folder) == contents(tmp_path / "range 1 plain")
    assert problems(folder) == []


def test_a_table_of_other_columns_is_said(folder: Path) -> None:
    steps = next((folder / "tables" / "steps").iterdir())
    steps.write_bytes(next((folder / "tables" / "timeline").iterdir()).read_bytes())
    name = steps.relative_to(folder).as_posix()
    rows = pq.read_metadata(steps).num_rows
    forged(folder, {"files": {**read(folder).files, name: digest_of(steps, rows)}})
    (found,) = problems(folder)
    assert "tables" in found


def test_a_lost_table_is_named(tmp_path: Path) -> None:
    manifest = make(tmp_path / "r")
    (tmp_path / "work").mkdir()
    with pytest.raises(ReportError, match="parquet"):
        write(tmp_path / "again", tmp_path / "work", manifest.ranges, manifest.about)


# --- nothing changes unseen ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sound") / "r"
    make(folder, partitions=1, steps=12, wrong=(Verdict.DIFFERENT,), created="then")
    return folder


@pytest.fixture
def folder(sound: Path, tmp_path: Path) -> Path:
    """A report that a test may damage."""
    return Path(shutil.copytree(sound, tmp_path / "r"))


def run_guide(number: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    """One of the programs that the guide shows, in a Python that has nothing of ours."""
    blocks = re.findall(r"```python\n(.*?)```", GUIDE.read_text("utf-8"), re.DOTALL)
    assert len(blocks[number].splitlines()) <= 20
    return subprocess.run(
        [sys.executable, "-I", "-S", "-c", blocks[number], *arguments], capture_output=True, text=True, timeout=30
    )


def test_the_guide_finds_a_sound_folder_sound(folder: Path) -> None:
    done = run_guide(0, str(folder))
    assert (done.returncode, done.stdout.split()) == (0, ["difference", "found", read(folder).root]), done.stderr


def test_every_flipped_bit_is_found(folder: Path, sound: Path) -> None:
    """In each file at its first, its last and some other places; manifest.json, which holds the digests, at many."""
    random = Random(7)
    for name, whole in contents(folder).items():
        path = folder / name
        places = {0, len(whole) - 1, *random.sample(range(len(whole)), min(len(whole), 40 if name == NAME else 4))}
        for place in sorted(places):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << random.randrange(8)]) + whole[place + 1 :])
            try:
                found = problems(folder)
            except ReportError:
                continue  # not even readable: said, with another exit code
            assert found, f"{name}: byte {place}"
        path.write_bytes(whole)
    assert problems(folder) == []


@pytest.mark.parametrize("damage", ["flip", "cut", "longer", "extra", "folder", "missing", "link", "spaces", "page"])
def test_the_guide_finds_what_check_finds(folder: Path, damage: str) -> None:
    victim = sorted((folder / "tables" / "findings").iterdir())[0]
    whole = victim.read_bytes()
    match damage:
        case "flip":
            victim.write_bytes(whole[:50] + bytes([whole[50] ^ 4]) + whole[51:])
        case "cut":
            victim.write_bytes(whole[:-1])
        case "longer":
            victim.write_bytes(whole + b"\0")
        case "extra":
            (folder / "tables" / "more.txt").write_text("")
        case "folder":
            (folder / "tables" / "more" / "empty").mkdir(parents=True)
        case "missing":
            victim.unlink()
        case "link":
            victim.rename(folder.parent / "elsewhere")
            victim.symlink_to(folder.parent / "elsewhere")
        case "spaces":
            (folder / NAME).write_text(json.dumps(json.loads((folder / NAME).read_text()), sort_keys=True))
        case "page":
            (folder / PAGE).write_text(page_of(folder).replace("Difference found", "Proven"))
    assert problems(folder)
    if damage != "link":  # its bytes are the right ones; that they lie elsewhere is our own rule
        done = run_guide(0, str(folder))
        assert done.returncode == 1
        assert done.stderr.startswith("changed: "), done.stderr


def forged(folder: Path, change: dict[str, object]) -> None:
    """Change the manifest and seal it again, as one would who knows the digest rule."""
    manifest = msgspec.structs.replace(read(folder), **change).sealed()
    (folder / NAME).write_bytes(encoded(manifest))


def test_a_verdict_sealed_anew_is_found(folder: Path) -> None:
    forged(folder, {"verdict": Outcome.PROVEN})
    assert problems(folder) == ["manifest.json: verdict: is difference found (says proven)"]


def test_counts_sealed_anew_are_found(folder: Path) -> None:
    manifest = read(folder)
    counts = {"step": {"equal": 12}, "dead_letter": {"equal": 2}}
    one = msgspec.structs.replace(manifest.ranges[0], counts=counts)
    forged(folder, {"verdict": Outcome.PROVEN, "counts": counts, "ranges": [one]})
    (found,) = problems(folder)
    assert "the table of findings says otherwise" in found


def test_a_page_sealed_anew_is_found(folder: Path) -> None:
    (folder / PAGE).write_text(page_of(folder).replace("Difference found", "Proven"))
    forged(folder, {"files": {**read(folder).files, PAGE: digest_of(folder / PAGE)}})
    assert problems(folder) == ["report.html: is not what the tables give"]


def test_coverage_sealed_anew_is_found(folder: Path) -> None:
    manifest = read(folder)
    one = msgspec.structs.replace(manifest.ranges[0], end=manifest.ranges[0].end + 1)
    forged(folder, {"ranges": [one]})
    assert any("coverage: ends at" in line for line in problems(folder))


def test_a_manifest_cannot_point_out_of_its_folder(folder: Path) -> None:
    manifest = read(folder)
    forged(folder, {"files": {**manifest.files, "../../etc/passwd": digest_of(Path("/etc/passwd"))}})
    assert problems(folder) == ["../../etc/passwd: missing: the manifest names it"]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "Input data was truncated"),
        (b"[]", "Expected `object`"),
        (b'{"format": 99}', "format 99, this program reads 2"),
        (b"[" * 100_000, "manifest"),
        (b"\xff\xfe", "manifest"),
    ],
)
def test_what_is_no_manifest_is_said(tmp_path: Path, content: bytes, told: str) -> None:
    (tmp_path / NAME).write_bytes(content)
    with pytest.raises(ReportError, match=re.escape(told)) as caught:
        check(tmp_path, program=PROGRAM)
    assert caught.value.exit_code == 65


def test_a_folder_without_a_manifest_is_said(tmp_path: Path) -> None:
    with pytest.raises(ReportError, match=r"No such file"):
        check(tmp_path, program=PROGRAM)


# --- tables that were made to harm ---


def replaced(folder: Path, table: str, content: bytes, rows: int) -> None:
    """Put another file in the place of a table and seal the report anew, as its maker could."""
    path = next((folder / "tables" / table).iterdir())
    path.write_bytes(content)
    forged(folder, {"files": {**read(folder).files, path.relative_to(folder).as_posix(): digest_of(path, rows)}})


def test_a_table_that_unpacks_to_too_much_is_refused_before_it_is_unpacked(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert problems(folder) == []
    monkeypatch.setattr("processor.audit.report.folder.LIMITS", Limits(block_bytes=4))
    assert re.search(r"tables: archive \S+ row group 0 column \S+: claims a page of \d+ bytes", problems(folder)[0])


def test_a_long_text_that_is_named_a_million_times_stays_one_text(folder: Path) -> None:
    """A few kilobytes on the disk, 16 GiB as rows."""
    rows = 1 << 20
    zeros = pa.array([0] * rows, pa.int32())
    kinds = pa.DictionaryArray.from_arrays(zeros, pa.array(["x" * (16 << 10)]))
    columns = [zeros, zeros.cast(pa.int64()), zeros.cast(pa.int64()), kinds]
    names = SCHEMAS["coverage"].names
    schema = pa.schema([pa.field(name, column.type, False) for name, column in zip(names, columns, strict=True)])
    file = BytesIO()
    with pq.ParquetWriter(file, schema, compression="zstd", store_schema=False, write_statistics=False) as writer:
        writer.write_table(pa.table(columns, schema=schema))
    assert len(file.getvalue()) < 16 << 10
    replaced(folder, "coverage", file.getvalue(), rows)
    before = pa.default_memory_pool().max_memory()
    (found,) = problems(folder)
    assert "coverage: offset 1 is not accounted for" in found
    assert pa.default_memory_pool().max_memory() <= max(before, 100 << 20)


def test_a_difference_without_a_path_is_said(folder: Path) -> None:
    """No column of ours is null there, but a list in Parquet can hold it."""
    path = next((folder / "tables" / "findings").iterdir())
    table = pq.read_table(path)
    differences = [[{"path": None, "expected": "a", "got": "b"}]] * table.num_rows
    at = table.schema.get_field_index("differences")
    file = BytesIO()
    field = table.schema.field(at)
    pq.write_table(table.set_column(at, field, [pa.array(differences, field.type)]), file, store_schema=False)
    replaced(folder, "findings", file.getvalue(), table.num_rows)
    (found,) = problems(folder)
    assert "tables: Expected `str`, got `null`" in found


@pytest.mark.parametrize("table", sorted(SCHEMAS))
def test_a_footer_with_any_byte_changed_ends_in_a_sentence(folder: Path, table: str) -> None:
    """Sealed anew, so that nothing but the table itself can tell. Some bytes say nothing that is read."""
    path = next((folder / "tables" / table).iterdir())
    whole, rows = path.read_bytes(), read(folder).files[path.relative_to(folder).as_posix()].rows
    begin, end = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little"), len(whole) - 8
    random = Random(table)
    told = 0
    for place in random.sample(range(begin, end), 12):
        replaced(folder, table, whole[:place] + bytes([random.randrange(256)]) + whole[place + 1 :], rows)
        told += bool(problems(folder))
    assert told > 3


# --- the records behind it -------------------------------------------------------------------------------------


def archived(manifest: Manifest) -> list[ArchivedRecord | Gap]:
    items: list[ArchivedRecord | Gap] = []
    for one in manifest.ranges:
        items += [
            ArchivedRecord("run-step-events", one.partition, r.offset, r.timestamp, r.key, r.value, r.headers)
            for r in records_of(one.partition, one.records)
        ]
        items.append(Gap("run-step-events", one.partition, one.records, one.records, GapKind.MARKER))
    return items


def test_the_links_are_recomputed_from_an_archive_and_name_the_block_that_differs(folder: Path) -> None:
    manifest = read(folder)
    items = archived(manifest)
    end = manifest.ranges[0].records
    assert end > 3 * BLOCK_OFFSETS

    def found(*changed: ArchivedRecord | Gap) -> list[str]:
        return list(check_records(folder, manifest, changed))

    assert found(*items) == []
    assert found(*items[1:]) == ["partition 0, offsets 0 to 63: the archive holds 63 records (the report says 64)"]
    at = items[70]
    assert isinstance(at, ArchivedRecord)
    (other,) = found(*items[:70], msgspec.structs.replace(at, timestamp=1), *items[71:])
    assert other.startswith("partition 0, offsets 64 to 127: not the records of the report: digest ")
    (none,) = found(*items[:64], *items[128:])
    assert none == "partition 0, offsets 64 to 127: the archive holds 0 records (the report says 64)"
    (tail,) = found(*items[:100])
    assert "offsets 64 to 127: the archive holds 36 records" in tail
    assert tail.endswith(f"; {-(-end // BLOCK_OFFSETS) - 2} more blocks of this partition differ")
    elsewhere = msgspec.structs.replace(at, topic="another")
    assert found(elsewhere, *items) == []


def test_links_sealed_anew_are_found(folder: Path) -> None:
    """A forged digest of a block is not that of the chain; one that both fit does not fit the archive."""
    path = next((folder / "tables" / "links").iterdir())
    table = pq.read_table(path)
    digests = table.column("digest").to_pylist()
    forged_table = table.set_column(4, table.schema.field("digest"), [["0" * 64, *digests[1:]]])
    pq.write_table(forged_table, path, store_schema=False)
    name = path.relative_to(folder).as_posix()
    manifest = read(folder)
    forged(folder, {"files": {**manifest.files, name: digest_of(path, table.num_rows)}})
    (found,) = problems(folder)
    assert "links: their chain is" in found
    chain = sha256("".join(["0" * 64, *digests[1:]]).encode()).hexdigest()
    forged(folder, {"ranges": [msgspec.structs.replace(manifest.ranges[0], chain=chain)]})
    assert [p for p in problems(folder) if "page" not in p and PAGE not in p] == []
    (found,) = check_records(folder, read(folder), archived(manifest))
    assert "offsets 0 to 63: not the records" in found


@given(data=st.data())
def test_links_depend_on_the_records_alone(data: st.DataObject) -> None:
    """However they are read, whatever stands beside them: any pieces, any range that cuts no block."""
    offsets = sorted(data.draw(st.sets(st.integers(0, 5 * BLOCK_OFFSETS), max_size=200)))
    records = [LogRecord(at, at, None, b"%d" % at) for at in offsets]
    end = 5 * BLOCK_OFFSETS + 1
    whole = BlockDigests(0, end)
    once = [*whole.take(records), *whole.finish()]
    pieces = BlockDigests(0, end)
    cuts = sorted(data.draw(st.sets(st.integers(0, len(records)), max_size=6)) | {0, len(records)})
    told = [link for low, high in pairwise(cuts) for link in pieces.take(records[low:high])]
    assert [*told, *pieces.finish()] == once
    assert (
        pieces.range_digest == whole.range_digest == sha256("".join(link.digest for link in once).encode()).hexdigest()
    )
    middle = BLOCK_OFFSETS * data.draw(st.integers(0, 5))
    early, late = BlockDigests(0, middle), BlockDigests(middle, end)
    split = [*early.take([r for r in records if r.offset < middle]), *early.finish()]
    split += [*late.take([r for r in records if r.offset >= middle]), *late.finish()]
    assert split == once
    for link in once:
        own = [r for r in records if link.first <= r.offset <= link.last]
        assert (link.records, link.digest) == (len(own), sha256(b"".join(map(framed, own))).hexdigest())


@pytest.mark.parametrize("kind", [".jsonl", ".jsonl.gz"])
@pytest.mark.parametrize("file_bytes", [64 << 20, 2000])
def test_the_guide_computes_the_chain_from_json_lines(folder: Path, tmp_path: Path, kind: str, file_bytes: int) -> None:
    """Of one file, or of all that a recording has made of the partition; not of another partition's."""
    manifest = read(folder)
    own = tmp_path / "archive"
    with Recorder(own, files=kind, file_bytes=file_bytes) as recorder:
        for item in archived(manifest):
            recorder.write(item)
    files = list(own.rglob("*.jsonl*"))
    assert (len(files) > 1) is (file_bytes == 2000)
    one = manifest.ranges[0]
    place = str(files[0] if len(files) == 1 else files[0].parent)
    other = run_guide(1, place, "run-step-events", str(one.partition + 1), str(one.begin), str(one.end))
    assert (other.returncode, other.stdout) == (1, "")
    assert "holds nothing of run-step-events" in other.stderr
    done = run_guide(1, place, "run-step-events", str(one.partition), str(one.begin), str(one.end))
    *blocks, chain = done.stdout.splitlines()
    assert chain == one.chain, done.stderr
    links = pq.read_table(folder / "tables" / "links").to_pylist()
    assert blocks == [f"{link['first']} {link['digest']}" for link in links]


# --- the page --------------------------------------------------------------------------------------------------


class Seen(HTMLParser):
    """What a browser would make of a page: its elements, attributes and text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self._inside = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._inside = tag

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside not in ("script", "style"):
            self.text.append(data)


def words_of(folder: Path) -> str:
    return " ".join(" ".join(Seen(page_of(folder)).text).split())


def test_texts_from_records_are_text_on_the_page(tmp_path: Path) -> None:
    hostile_settings = about(topic=f"t{HOSTILE}", source=HOSTILE, notes=[HOSTILE], narrowed={"steps": [HOSTILE]})
    make(tmp_path / "r", hostile=True, wrong=(Verdict.DIFFERENT,) * 6, created=HOSTILE, settings=hostile_settings)
    page = page_of(tmp_path / "r")
    seen = Seen(page)
    names = [name for name, _ in seen.elements]
    assert names.count("script") == 1
    assert names.count("style") == 1
    assert "img" not in names
    assert not any(attribute.startswith("on") for _, attributes in seen.elements for attribute in attributes)
    assert not any("style" in attributes for _, attributes in seen.elements), "the policy lets none through"
    text = "".join(seen.text)
    assert "<script>alert('x')</script>" in text
    assert "\\u202etxt\\u001b[31m\\u0000{{ 7*7 }}" in text
    assert not {"\u202e", "\x1b", "\x00"} & set(page)
    assert problems(tmp_path / "r") == []


def test_the_policy_lets_nothing_in_but_our_own(tmp_path: Path) -> None:
    make(tmp_path / "r")
    seen = Seen(page_of(tmp_path / "r"))
    (policy,) = [a["content"] for name, a in seen.elements if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy is not None
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy
    links = [a.get(which) for _, a in seen.elements for which in ("src", "href", "action") if a.get(which)]
    assert all(link is not None and link.startswith(("#", "data:,")) for link in links), links


def test_every_link_on_the_page_leads_somewhere(tmp_path: Path) -> None:
    make(tmp_path / "r", wrong=ALL_WRONG)
    seen = Seen(page_of(tmp_path / "r"))
    ids = [a["id"] for _, a in seen.elements if a.get("id")]
    assert len(ids) == len(set(ids))
    links = {a["href"] for name, a in seen.elements if name == "a"}
    assert links <= {f"#{own}" for own in ids}


def test_a_finding_shows_the_single_event(tmp_path: Path) -> None:
    make(tmp_path / "r", partitions=1, wrong=(Verdict.DIFFERENT,))
    text = words_of(tmp_path / "r")
    assert "value.usage.total_tokens 1841 1814" in text
    assert re.search(r"0 2024-07-03 09:46:40.000 UTC created – in progress", text)
    assert re.search(r"1 2024-07-03 \S+ UTC delta in progress in progress bad index", text)


def test_a_large_report_stays_small(tmp_path: Path) -> None:
    make(tmp_path / "r", partitions=1, steps=3_000, wrong=(Verdict.DIFFERENT,) * 2_500)
    page = page_of(tmp_path / "r")
    assert len(page) < 1_500_000
    assert page.count('<details class="finding"') == 200
    assert page.count('<li id="finding-') == 2_300
    assert "The slowest 10 of 3,000" in page


def test_texts_are_cut_and_said_to_be(tmp_path: Path) -> None:
    assert shown("x" * 301) == "x" * 300 + "… (301 characters)"
    assert shown("a\u200bb\u2066c\nd") == "a\\u200bb\\u2066c\\u000ad"
    assert shown("Zürich 東京 🙂") == "Zürich 東京 🙂"


@pytest.mark.parametrize(
    ("milliseconds", "said"),
    [
        (0, "0 ms"), (999, "999 ms"), (1_000, "1.0 s"), (60_000, "1 min"), (184_000, "3 min 4 s"),
        (7_500_000, "2 h 5 min"), (86_400_000, "1 d"), (90_000_000, "1 d 1 h"), (1 << 62, "53,375,995,583 d 15 h"),
    ],
)  # fmt: skip
def test_durations_are_said_in_two_units(milliseconds: int, said: str) -> None:
    assert lasted(milliseconds) == said


def test_times_beyond_the_calendar_stay_numbers() -> None:
    assert when(1_720_000_000_123) == "2024-07-03 09:46:40.123 UTC"
    assert when(-1) == "1969-12-31 23:59:59.999 UTC"
    assert when(1 << 62) == f"{1 << 62} ms"
    assert when(None) == "–"


def test_wild_timestamps_do_not_blow_up_the_page(tmp_path: Path) -> None:
    manifest = make(tmp_path / "r", partitions=1, steps=4)
    (tmp_path / "work").mkdir()
    own = Tables(tmp_path / "work", 0)
    minutes = [-(1 << 62) // 60_000 * 60_000, 0, (1 << 62) // 60_000 * 60_000]
    for minute in minutes:
        own.timeline(minute, "completed", 1)
    for opened, ended in ((0, 1 << 62), (-(1 << 63), (1 << 63) - 1), (5, 3)):
        own.step(
            step_id="s", run_id=None, thread_id=None, first_offset=0, last_offset=1, events=2, revision=0,
            status="completed", opened_ms=opened, ended_ms=ended, verdict="equal",
        )  # fmt: skip
    one = msgspec.structs.replace(manifest.ranges[0], files=tuple(own.close()))
    write(tmp_path / "wild", tmp_path / "work", [one], manifest.about)
    assert len(page_of(tmp_path / "wild")) < 200_000


def test_a_report_of_nothing_is_a_page(tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    manifest = write(tmp_path / "r", tmp_path / "work", [], about())
    assert manifest.verdict is Outcome.UNPROVABLE
    assert problems(tmp_path / "r") == []
    assert "Nothing ended in this range." in page_of(tmp_path / "r")


def test_settings_that_are_none_of_the_records_are_on_the_page(tmp_path: Path) -> None:
    settings: About = about(outcome_topics={"completed": "done-here", "failed": ""}, dead_letter="")
    make(tmp_path / "r", settings=settings)
    text = words_of(tmp_path / "r")
    assert "completed: done-here , failed: switched off" in text
    assert settings.rules.digest() in text


# --- charts ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("most", "expected"),
    [(0, [0, 1]), (1, [0, 1]), (4, [0, 1, 2, 3, 4]), (7, [0, 2, 4, 6, 8]), (1_000, [0, 500, 1_000])],
)
def test_scales_are_round_and_reach_the_top(most: int, expected: list[int]) -> None:
    assert charts.ticks(most) == expected


def test_labels_of_a_chart_do_not_touch() -> None:
    bars = [(f"{n:02d}:00", [n, 1]) for n in range(24)]
    chart = charts.stacked("t", bars, ["a", "b"], width=320)
    places = [float(x) for x in re.findall(r'class="x" x="([\d.]+)"', chart)]
    assert len(places) > 3
    assert all(b - a > 5 * 6.6 for a, b in pairwise(places))
    assert places[-1] + 2.5 * 6.6 <= 320.1


def test_charts_escape_what_they_are_given() -> None:
    for chart in (
        charts.stacked(HOSTILE, [(HOSTILE, [1])], ["a"], width=300, hints=[HOSTILE]),
        charts.lying(HOSTILE, [(HOSTILE, 1, "a")], width=300),
        charts.strip(HOSTILE, [("a", 1)], width=300),
    ):
        assert "<script" not in chart
        assert "<img" not in chart


def test_what_is_there_at_all_is_seen() -> None:
    """One missing offset in a million is a sliver that a person can see."""
    chart = charts.strip("t", [("c-data", 1_000_000), ("c-missing", 1)], width=160)
    (width,) = re.findall(r'class="c-missing" x="[\d.]+" y="0" width="([\d.]+)"', chart)
    assert float(width) >= 3
