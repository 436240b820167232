"""What records on the output topics claim to be of: counted, said beside the verdict, or accused."""

from __future__ import annotations

import re
from pathlib import Path
from random import Random

import msgspec
import pytest

from processor.archives import ArchivedRecord, Recorder
from processor.audit.judge.not_judged import CLAIMS, PLACES, ClaimCounter, Claims, merged
from processor.audit.judge.verdicts import Verdict
from processor.audit.published_index import FileIndex, IndexWriter
from processor.audit.report.manifest import Outcome, read
from processor.core.effects import LogRecord, Publish
from processor.core.headers import SOURCE_PARTITION, SOURCE_TOPIC
from tests.core.scripted_log import step
from tests.shell import mutations
from tests.shell.test_audit import Case, one_step, verdicts
from tests.shell.test_replay import Archived

OURS = (SOURCE_TOPIC, b"source")


def placed(tmp_path: Path, *headers: tuple[str, bytes | None], sole_source: bool = False) -> str:
    """Where a record with these headers goes: an audited partition, another one, another source; or why nowhere."""
    given = (*headers, (SOURCE_PARTITION, b"0"), ("runstep-revision", b"0"))
    with IndexWriter(tmp_path, "source", 4, frozenset({0, 1}), sole_source=sole_source) as writer:
        writer.put("out", 0, LogRecord(0, 0, b"k", b"{}", given), dead_letters=False)
    if named := writer.elsewhere.claims().named:
        return f"of {', '.join(named)}"
    with FileIndex(tmp_path, 0) as index:
        (why,) = [stray.why for _, stray in index.strays()] or ["audited"]
    return why


@pytest.mark.parametrize(
    ("headers", "to"),
    [
        ([OURS], "audited"),
        ([(SOURCE_TOPIC, b"other")], "of other"),
        ([(SOURCE_TOPIC, b"")], "its runstep-source-topic is empty"),
        ([(SOURCE_TOPIC, None)], "its runstep-source-topic is empty"),
        ([(SOURCE_TOPIC, b"SOURCE")], "its runstep-source-topic is the source in other case"),
        ([(SOURCE_TOPIC, b"so urce")], "its runstep-source-topic can be no topic"),
        ([(SOURCE_TOPIC, b"..")], "its runstep-source-topic can be no topic"),
        ([(SOURCE_TOPIC, b"\xff")], "its runstep-source-topic can be no topic"),
        ([(SOURCE_TOPIC, b"s" * 250)], "its runstep-source-topic can be no topic"),
        ([OURS, (SOURCE_TOPIC, b"other")], "names its runstep-source-topic more than once"),
        ([(SOURCE_TOPIC, b"other"), OURS], "names its runstep-source-topic more than once"),
        ([OURS, OURS], "names its runstep-source-topic more than once"),
        ([OURS, ("tracestate", b"1"), ("tracestate", b"2")], "audited"),
        ([], "no runstep-source-topic"),
    ],
)
def test_a_claim_of_no_source_that_there_can_be_belongs_to_nobody(
    tmp_path: Path, headers: list[tuple[str, bytes | None]], to: str
) -> None:
    assert placed(tmp_path, *headers) == to


def test_where_there_is_one_source_another_belongs_to_nobody(tmp_path: Path) -> None:
    why = placed(tmp_path, (SOURCE_TOPIC, b"other"), sole_source=True)
    assert why == "names another source, other, and there is none (--sole-source)"


def test_claims_are_counted_in_bounded_memory_however_the_reading_is_shared_out() -> None:
    """Anybody may have written them."""
    rng = Random(3)
    names = [f"{rng.randrange(3 * CLAIMS):04d}" for _ in range(5_000)]
    whole = ClaimCounter()
    placed = [(name, ("out", 0, offset)) for offset, name in enumerate(names)]
    rng.shuffle(placed)
    for name, place in placed:
        whole.add(name, 1, (place,))
        assert len(whole._counts) <= 2 * CLAIMS
    counted = whole.claims()
    assert counted.total() == len(names)
    assert counted.named == {name: names.count(name) for name in sorted(set(names))[:CLAIMS]}
    assert counted.first == {
        name: [("out", 0, n) for n, other in enumerate(names) if other == name][:PLACES] for name in counted.named
    }
    for cut in (1, 700, 4_999):
        parts = []
        for part in (placed[:cut], placed[cut:]):
            counter = ClaimCounter()
            for name, place in part:
                counter.add(name, 1, (place,))
            parts.append(counter.claims())
        assert merged(parts) == counted
    assert merged([]) == Claims()


def forge(archived: Archived, change: dict[str, bytes], folder: str) -> tuple[Path, int]:
    """The published archive with a changed copy of three records behind each partition; and how many they are."""
    path, forged = archived.folder / folder, 0
    with Recorder(path, files=".jsonl") as recorder:
        for (topic, partition), log in sorted(archived.made.topics.items()):
            copies = []
            for n, r in enumerate(log[:3]):
                headers = tuple((name, change.get(name, content)) for name, content in r.headers)
                copies.append(msgspec.structs.replace(r, offset=log[-1].offset + 1 + n, headers=headers))
            forged += len(copies)
            for r in (*log, *copies):
                recorder.write(ArchivedRecord(topic, partition, r.offset, r.timestamp, r.key, r.value, r.headers))
    return path, forged


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({SOURCE_TOPIC: b"other"}, "{n} published records name another source: other ({n})."),
        ({SOURCE_PARTITION: b"77"}, "{n} published records name a partition that was not audited: 77 ({n})."),
    ],
)
def test_what_is_let_go_for_its_claim_is_said_with_the_verdict(
    archived: Archived, tmp_path: Path, change: dict[str, bytes], told: str
) -> None:
    """36 records without a trace: page and evidence were those of an honest world, byte by byte."""
    honest = archived.audit(report=str(tmp_path / "honest"))
    assert not honest.not_judged
    out, n = forge(archived, change, "forged")
    found = archived.audit(published=(str(out),), report=str(tmp_path / "report"))
    assert (found.verdict, found.not_judged) == (Outcome.PROVEN, [told.format(n=n)])
    assert found.evidence != honest.evidence
    head = (tmp_path / "report" / "report.html").read_text("utf-8").partition("<nav")[0]
    assert told.format(n=n) in head
    kept = read(tmp_path / "report").about.not_judged
    assert kept.sources.total() + kept.partitions.total() == n
    ((_, places),) = {**kept.sources.first, **kept.partitions.first}.items()
    assert len(places) == PLACES
    topic, partition, offset = places[0]
    assert offset >= len(archived.made.topics[topic, partition]), "a copy, and no honest record"
    assert f"{topic}-{partition} at {offset}" in (tmp_path / "report" / "report.html").read_text("utf-8")
    if SOURCE_TOPIC in change:
        strict = archived.audit(published=(str(out),), sole_source=True)
        assert strict.verdict is Outcome.DIFFERENT
        assert sum(verdicts["extra"] for verdicts in strict.counts.values()) == n


def test_what_lies_outside_of_the_range_is_said_with_the_verdict(
    archived: Archived, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Behind the group's position, or an archive's end: the count stood in the manifest alone."""
    from processor.cli.replay import _print_summary

    whole = min(archived.made.ends.values())
    found = archived.audit(end=str(3 * whole // 4), start=str(whole // 2), report=str(tmp_path / "report"))
    (before, behind) = found.not_judged[:2]
    assert before.endswith("a cause before the range.")
    assert behind.endswith("a cause behind the range.")
    n = sum(int(re.findall(r"\d+", line)[0]) for line in (before, behind))
    assert n == sum(one.out_of_range for one in found.results)
    for verdict, first, last in (
        (Outcome.PROVEN, "proven, but for what is not judged:", "proven: of the range alone. Not judged:"),
        (Outcome.UNPROVABLE, "not provable; besides, what is not judged:", "not provable. Not judged:"),
    ):
        _print_summary(msgspec.structs.replace(found, verdict=verdict))
        lines = capsys.readouterr().out.splitlines()
        assert lines[:2] == [first, f"  not judged: {before}"]
        assert lines[-1].startswith(f"{last} {before}")
    assert behind in (tmp_path / "report" / "report.html").read_text("utf-8").partition("<nav")[0]


@pytest.mark.parametrize(("log_end", "unbounded"), [(None, 1), (2, 1), (1, 0)])
def test_a_mark_at_the_end_of_an_archive_is_not_bounded_by_it(
    tmp_path: Path, log_end: int | None, unbounded: int
) -> None:
    """What came next, and when, decides whether the clock can have come so far."""
    case = Case(tmp_path)
    case.play.created(id="s1", expires_at=2_000)
    due = case.play.state.next_due_ms()
    assert due is not None
    case.play.effects += [e for e in case.play.state.advance(due) if isinstance(e, Publish)]
    case.publish()
    assert verdicts(case.audit(log_end=log_end)) == ["equal"]
    assert case.last.unbounded_marks == unbounded


def test_a_cause_behind_the_range_is_counted_apart_from_one_before_it(tmp_path: Path) -> None:
    case = Case(tmp_path)
    one_step(case, "s1")
    one_step(case, "s2")
    case.play.say("step.completed", step("completed", id="s2", usage={"a": 1}))
    case.publish()
    assert {f.verdict for f in case.audit(begin=2, end=4)} <= {Verdict.EQUAL, Verdict.UNVERIFIABLE}
    assert (case.last.out_of_range, case.last.caused_behind) == (2, 1)


@pytest.fixture
def archived(tmp_path: Path) -> Archived:
    return Archived(tmp_path)


def test_the_worlds_have_enough_to_forge() -> None:
    assert len(mutations.world(5, runs=20).topics) > 5
