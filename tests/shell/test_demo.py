"""What the demo judges by: the last words of recordings, the audit, and that any difference ends it with exit 1."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from processor.audit.replay.options import Options
from processor.audit.replay.outcome import Replayed
from processor.audit.report.manifest import Outcome
from processor.config.settings import Settings
from processor.core.effects import Publish
from processor.demo import EXIT_DIFFERENT, _Demo, proof
from processor.demo.recordings import compare, read, story_of
from processor.demo.screen import Screen
from processor.demo.tails import Out
from processor.publish.command import sample_files
from processor.simulate.expected import Expected
from tests.core.test_samples import OUTCOMES, STORIES, folded
from tests.shell import reports


def came_out_of(story: str) -> list[Out]:
    """What the core publishes for a sample, as a consumer would read it."""
    return [
        Out(effect.status.value, effect.step_id.encode(), effect.value, tuple(effect.headers))
        for effect in folded(story, times=1)
        if isinstance(effect, Publish)
    ]


def files_of(story: str) -> list[Path]:
    return [path for path in sample_files() if story_of(path) == story]


@pytest.mark.parametrize("story", STORIES)
def test_last_words_and_fold_agree(story: str) -> None:
    told = read(files_of(story))
    assert sorted(step.status or "" for step in told.values()) == sorted(
        status for status, _, revision in OUTCOMES[story] if revision == 0
    )
    assert compare(told, came_out_of(story)) == []


def test_each_kind_of_difference_is_found() -> None:
    told = read(files_of("mcp_approval"))
    outs = came_out_of("mcp_approval")
    first, amended = next((a, b) for a in outs for b in outs if a.key == b.key and a is not b)
    snapshot = json.loads(first.value or b"")
    other_text = json.dumps(snapshot | {"run_id": "run_of_somebody_else"}).encode()

    def kinds(came: list[Out]) -> set[str]:
        return {difference.kind for difference in compare(told, came)}

    assert kinds([out for out in outs if out.key != first.key]) == {"missing"}
    assert kinds([*outs, amended]) == {"twice"}
    assert kinds([out for out in outs if out is not first]) == {"missing"}
    assert kinds([*outs, first._replace(key=b"step_of_nobody")]) == {"extra"}
    assert kinds([out._replace(status="failed") for out in outs]) == {"status"}
    assert kinds([out._replace(headers=(*out.headers, ("runstep-inferred", b"run"))) for out in outs]) == {"inferred"}
    assert kinds([out._replace(value=other_text) if out.key == first.key else out for out in outs]) == {"content"}


def test_a_step_left_open_must_not_come_out(tmp_path: Path) -> None:
    (whole,) = files_of("run_failed")
    cut = tmp_path / "cut.sse"
    cut.write_text(whole.read_text().partition("event: thread.run.step.failed")[0])
    told = read([cut])
    assert [step.status for step in told.values()] == [None]
    assert compare(told, []) == []
    assert {difference.kind for difference in compare(told, came_out_of("run_failed"))} == {"extra"}


def test_any_difference_is_named_and_ends_it_with_exit_1(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    demo = _Demo(Screen(sections=6), tmp_path, [], False, 1, 7)
    expected = Expected()
    assert demo._judge(expected, {}, []) == 0
    assert "equal: nothing lost, nothing twice" in capsys.readouterr().out
    expected.publish("step_lost", 0, {"id": "step_lost", "status": "completed"}, partition=0)
    assert demo._judge(expected, {}, []) == EXIT_DIFFERENT == 1
    said = capsys.readouterr().out
    assert "missing: step_lost revision 0: never published as completed" in said
    assert "NOT equal: 1 differences; seed 7, 1 runs" in said


# --- the audit ----------------------------------------------------------------------------------------------------


def judging(monkeypatch: pytest.MonkeyPatch, verdict: Outcome, counts: dict[str, dict[str, int]]) -> None:
    """Put a verdict in the place of the replay, which needs a broker."""

    def replay(options: Options, *_: object) -> Replayed:
        return Replayed(
            verdict=verdict,
            counts=counts,
            coverage={"data": 9, "marker": 0},
            about=reports.about(),
            results=[],
            first=[],
            questions=["1 record was left open"] if verdict is Outcome.UNPROVABLE else [],
            not_judged=[],
            outputs={},
            report=options.report,
        )

    monkeypatch.setattr("processor.audit.replay.command.replay", replay)


@pytest.mark.parametrize(
    ("verdict", "counts", "code"),
    [
        (Outcome.PROVEN, {"step": {"equal": 7}, "dead_letter": {"equal": 2}}, 0),
        (Outcome.DIFFERENT, {"step": {"equal": 6, "out_of_order": 1}, "dead_letter": {"equal": 2}}, 1),
        (Outcome.UNPROVABLE, {"step": {"equal": 6, "unverifiable": 1}, "dead_letter": {"equal": 2}}, 1),
    ],
)
def test_what_is_not_proven_ends_it_with_exit_1(
    verdict: Outcome,
    counts: dict[str, dict[str, int]],
    code: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    judging(monkeypatch, verdict, counts)
    assert proof.audit(Screen(sections=6), Settings()) == code
    said = capsys.readouterr().out
    assert f"{'✗' if code else '✓'}  {verdict.value}, after" in said
    for kind in counts.values():
        for name, count in kind.items():
            assert name.replace("_", " ") in said
            assert str(count) in said
    assert ("1 record was left open" in said) == (verdict is Outcome.UNPROVABLE)
    (folder,) = tmp_path.iterdir()
    assert f"{folder}/report.html" in said


def test_without_the_extra_the_audit_is_skipped_and_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "duckdb", None)
    assert proof.audit(Screen(sections=6), Settings()) == 0
    said = capsys.readouterr().out
    assert "skipped: duckdb not installed" in said
    assert "pip install 'run-steps[audit]'" in said


def test_the_report_is_in_the_project_and_overwritten_or_in_a_folder_of_its_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    project, elsewhere = tmp_path / "project", tmp_path / "elsewhere"
    (project / "build" / "demo-report").mkdir(parents=True)
    (project / "build" / "demo-report" / "report.html").touch()
    (project / "pyproject.toml").touch()
    elsewhere.mkdir()
    monkeypatch.setattr(proof, "_PROJECT", project)
    monkeypatch.setattr("tempfile.tempdir", str(elsewhere))
    monkeypatch.chdir(project)
    assert proof.report_folder() == project / "build" / "demo-report"
    assert not (project / "build" / "demo-report").exists(), "the last one is gone"
    monkeypatch.chdir(elsewhere)
    first, second = proof.report_folder(), proof.report_folder()
    assert first != second
    assert first.parent == second.parent == elsewhere


def test_a_replay_that_fails_leaves_no_half_report(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def replay(options: Options, *_: object) -> Replayed:
        (Path(options.report) / "half").touch()
        raise KeyboardInterrupt

    monkeypatch.setattr("processor.audit.replay.command.replay", replay)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        proof.audit(Screen(sections=6), Settings())
    assert list(tmp_path.iterdir()) == []
