"""Runs and steps on more than one partition of the source: counted, named, and said beside every verdict."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processor.archives import ArchivedRecord, Recorder
from processor.audit.expected_records import ExpectedRecords
from processor.audit.replay import split_ids
from processor.audit.replay.command import replay
from processor.audit.replay.options import Options
from processor.audit.replay.outcome import Replayed, program
from processor.audit.replay.split_ids import IdWriter, split_among
from processor.audit.report import folder as reports
from processor.audit.report import manifest as manifests
from processor.audit.report.manifest import Outcome
from processor.config.settings import Settings
from processor.core.partition import PartitionState
from processor.kafka.output_records import Outputs
from tests.core.scripted_log import run, step, text
from tests.examples import examples

TOPIC = "events"
CONFIG = Settings.model_validate({"source": {"topic": TOPIC}})


@settings(max_examples=examples(80), deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 5), st.text(max_size=3), st.none() | st.integers() | st.text(max_size=2)), max_size=60
    ),
    st.integers(1, 5),
    st.integers(2, 4),
)
def test_what_stands_on_several_partitions_is_counted(
    noted: list[tuple[int, str, Any]], held: int, at_once: int
) -> None:
    """However little is held in memory, and however few files are merged at a time."""
    with pytest.MonkeyPatch.context() as patched, tempfile.TemporaryDirectory() as folder:
        patched.setattr(split_ids, "_HELD", held)
        patched.setattr(split_ids, "_OPEN_FILES", at_once)
        writers = {p: IdWriter(Path(folder), p) for p, _, _ in noted}
        for p, step_id, run_id in noted:
            writers[p].note(step_id, run_id)
        found = split_among([path for writer in writers.values() for path in writer.close()])
    steps: dict[str, set[int]] = {}
    runs: dict[str, set[int]] = {}
    for p, step_id, run_id in noted:
        steps.setdefault(step_id, set()).add(p)
        if isinstance(run_id, str) and run_id:
            runs.setdefault(run_id, set()).add(p)
    several = [{k: sorted(v) for k, v in one.items() if len(v) > 1} for one in (steps, runs)]
    assert (found.steps, found.runs) == tuple(map(len, several))
    assert found.first_steps.items() <= several[0].items()
    assert found.first_runs.items() <= several[1].items()
    assert len(found.first_steps) == min(10, found.steps)


def archives(folder: Path, placed: list[tuple[int, dict[str, Any]]]) -> None:
    """The source as somebody produced it, event by event with its partition, and what an honest worker published."""
    outputs = Outputs(CONFIG.outcome_topics, CONFIG.output.dead_letter, "")
    states = {p: PartitionState(TOPIC, p, CONFIG.rules()) for p in (0, 1, 2)}
    ends: dict[tuple[str, int], int] = {}
    with Recorder(folder / "source") as source, Recorder(folder / "out") as out:
        for number, (p, event) in enumerate(placed):
            at = states[p].next_offset
            record = ArchivedRecord(TOPIC, p, at, 1_720_000_000_000 + number, b"run", text(event), ())
            source.write(record)
            for effect in states[p].apply([record]):
                expected = ExpectedRecords(outputs, p, {}).whole(effect)
                assert expected is not None
                place = (expected.topic, p)
                ends[place] = ends.get(place, -1) + 1
                out.write(
                    ArchivedRecord(
                        *place, ends[place], expected.timestamp, expected.key, expected.value, tuple(expected.headers)
                    )
                )


def events(step_id: str, run_id: str, status: str) -> list[dict[str, Any]]:
    fields = {"run_id": run_id, "thread_id": "thread_1"}
    return [
        {"event": "thread.run.step.created", "data": step(step_id=step_id) | fields},
        {"event": f"thread.run.step.{status}", "data": step(status, step_id) | fields},
    ]


def audit(folder: Path, **options: Any) -> Replayed:
    given = {"archives": (str(folder / "source"),), "published": (str(folder / "out"),)} | options
    return replay(Options(**given), CONFIG, lambda: pytest.fail("no broker is needed"), lambda _: None)


@pytest.fixture
def split(tmp_path: Path) -> Path:
    """Step `s1` has two lives with contradicting ends; the steps of `r2` have one each; `s4` is also open elsewhere."""
    archives(
        tmp_path,
        [
            *((0, event) for event in events("s1", "r1", "completed")),
            *((1, event) for event in events("s1", "r1", "failed")),
            *((0, event) for event in events("s2", "r2", "completed")),
            *((2, event) for event in events("s3", "r2", "completed")),
            *((1, event) for event in events("s4", "r4", "completed")),
            (2, events("s4", "r4", "completed")[0]),
            (2, {"event": "thread.run.queued", "data": run("queued", "r5")}),
        ],
    )
    return tmp_path


@pytest.mark.parametrize("reported", [True, False])
@pytest.mark.parametrize("workers", [1, 2])
def test_a_verdict_says_what_has_two_lives(split: Path, *, reported: bool, workers: int) -> None:
    found = audit(split, report=str(split / "report") if reported else "", workers=workers)
    assert found.verdict is Outcome.PROVEN
    assert msgspec.to_builtins(found.about.split) == {
        "steps": 2,
        "runs": 3,
        "first_steps": {"s1": [0, 1], "s4": [1, 2]},
        "first_runs": {"r1": [0, 1], "r2": [0, 2], "r4": [1, 2]},
    }
    (said,) = found.not_judged
    assert said.startswith("2 steps and 3 runs stand on more than one partition of the source")
    assert "step s1 on 0, 1" in said
    if reported:
        page = (split / "report" / "report.html").read_text()
        assert page.index("2 steps and 3 runs stand on more than one partition") < page.index('id="findings"')
        manifest = json.loads((split / "report" / "manifest.json").read_text())
        assert manifest["about"]["split"]["steps"] == 2


def test_the_terminal_does_not_say_plain_proven(split: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from processor.cli.replay import _print_summary

    _print_summary(audit(split))
    first, second = capsys.readouterr().out.splitlines()[:2]
    assert first != "proven"
    assert "2 steps and 3 runs stand on more than one partition" in second


def test_one_partition_alone_has_nothing_to_say(split: Path) -> None:
    assert not audit(split, partitions=(0,)).about.split


def test_narrowed_to_a_step_it_is_counted_over_all(split: Path) -> None:
    from processor.audit.replay.task import StepFilter

    found = audit(split, only=StepFilter(steps=("s3",)), report=str(split / "report"))
    assert (found.about.split.steps, found.about.split.runs) == (2, 3)
    assert not reports.check(split / "report", program=program()).problems


def test_a_report_that_hides_them_is_found_out(split: Path) -> None:
    audit(split, report=str(split / "report"))
    assert not reports.check(split / "report", program=program()).problems
    honest = manifests.read(split / "report")
    about = msgspec.structs.replace(honest.about, split=msgspec.structs.replace(honest.about.split, steps=1))
    manifests.write(split / "report", msgspec.structs.replace(honest, about=about).sealed())
    problems = reports.check(split / "report", program=program()).problems
    assert any("2 steps stand on more than one partition (says 1)" in one for one in problems)


def test_records_that_a_redrive_put_back_are_counted(tmp_path: Path) -> None:
    archives(tmp_path, [(0, event) for event in events("s1", "r1", "completed")])
    redriven = (("runstep-redriven", b"dead/0/7"),)
    with Recorder(tmp_path / "again") as recorder:
        for at, event in enumerate(events("s1", "r1", "completed")):
            headers = (("a", b"1"), *redriven) if at else (("runstep-attempt", b"1"),)
            recorder.write(ArchivedRecord(TOPIC, 0, at, 1_720_000_000_000 + at, b"run", text(event), headers))
    for report in ("", str(tmp_path / "report")):
        found = audit(tmp_path, archives=(str(tmp_path / "again"),), report=report)
        assert [one.redriven for one in found.results] == [1]
    assert "1 of them put back by a redrive" in (tmp_path / "report" / "report.html").read_text()
    assert json.loads((tmp_path / "report" / "manifest.json").read_text())["ranges"][0]["redriven"] == 1
