"""The bench of peers: what its words say of the figures, who is chosen, and the fold that the Python peers share."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.bench import recorded_job
from tests.bench.load import DEAD, Expected, Job, line, records
from tests.bench.measure import Run
from tests.bench.peers import environments, roster, table
from tests.bench.peers.jobs import recorded_events
from tests.bench.peers.table import Entry
from tests.bench.peers.trial import Trial
from tests.bench.recorded_job import step_object, tool_delta
from tests.bench.verdict import Verdict, line_of

GOOD = Verdict(lost=0, doubled=0, foreign=0)


def run(*, cpu_s: float = 1.0, wall_s: float = 1.0, broker_cpu_s: float = 1.0, mib: int = 100) -> Run:
    return Run(1000, cpu_s, wall_s, broker_cpu_s, mib << 20, {})


def entry(name: str, runs: Sequence[Run], *, exactly_once: bool = True, verdict: Verdict = GOOD) -> Entry:
    return Entry(name, exactly_once, [Trial(verdict, run) for run in runs])


OURS = [entry("run-steps-eo", [run(), run()]), entry("run-steps-alo", [run(cpu_s=0.1)] * 2, exactly_once=False)]


def test_each_column_in_which_a_peer_is_ahead_is_told() -> None:
    """More per second and less of the rest; against ours of the same promise, with both figures and the rounds."""
    peer = entry("peer-eo", [run(cpu_s=2, wall_s=0.5, mib=50), run(cpu_s=2, wall_s=0.5, mib=200)])
    told = table.ahead(OURS, [peer])
    assert told == [
        "peer-eo is ahead of run-steps (exactly once) in by the clock: 2,000 against 1,000 events/s "
        "(2.00 x, in 2 of 2 rounds)."
    ]
    less = table.ahead(OURS, [entry("peer-eo", [run(broker_cpu_s=0.5, mib=50)] * 2)])
    assert [sentence.partition(" in ")[2].partition(":")[0] for sentence in less] == ["broker CPU", "peak memory"]


def test_a_peer_is_held_against_ours_of_the_same_promise() -> None:
    peer = entry("peer-alo", [run(cpu_s=0.5)] * 2, exactly_once=False)
    assert table.ahead(OURS, [peer]) == ["No peer is ahead of run-steps in any column."]


def test_ahead_with_wrong_output_is_told_as_such() -> None:
    peer = entry("peer-eo", [run(cpu_s=0.5)] * 2, verdict=Verdict(lost=0, doubled=3, foreign=0))
    first, second = table.ahead(OURS, [peer])
    assert first.endswith("in 2 of 2 rounds), but what it published is not correct.")
    assert second == "peer-eo: not correct: 0 lost, 3 doubled, 0 foreign."


def test_who_did_not_finish_has_no_figures_and_beats_nobody() -> None:
    half = Entry("peer-eo", True, [Trial(GOOD, run(cpu_s=0.1)), Trial(GOOD, problem="not done in time")])
    assert table.ahead(OURS, [half]) == ["peer-eo: not correct: not done in time (0 lost, 0 doubled, 0 foreign)."]
    assert "| peer-eo | exactly once |  |  |  |  |  | NO: not done in time" in table.table({}, OURS, [half])


def test_the_ratio_is_the_median_of_the_rounds_own_ratios() -> None:
    peer = entry("peer-eo", [run(cpu_s=4), run(cpu_s=2)])
    assert "| 0.38 | yes |" in table.table({}, OURS, [peer])


@pytest.mark.parametrize(
    ("exactly_once", "verdict", "is_kept"),
    [(True, Verdict(0, 1, 0), False), (False, Verdict(0, 1, 0), True), (False, Verdict(1, 0, 0), False)],
)
def test_a_double_breaks_only_the_promise_of_exactly_once(exactly_once: bool, verdict: Verdict, is_kept: bool) -> None:
    killed = Entry("peer", exactly_once, [Trial(verdict, killed_at=[500])])
    told = table.crash_words([killed], 1000)
    assert (told == ["Kept their promise: peer."]) is is_kept
    assert "| 50% |" in table.crash_table([killed], 1000)


def test_a_kill_after_the_end_proves_nothing_and_says_so() -> None:
    late = Entry("peer", True, [Trial(GOOD, killed_at=[1000])])
    told = table.crash_words([late], 1000)
    assert "proves nothing" in told[0]
    assert told[-1] == "Kept their promise: none."


def test_peers_are_chosen_by_name_or_by_its_beginning() -> None:
    """A whole name is not taken for a beginning as well: quix-eo-100ms is not asked for here."""
    assert [peer.name for peer in roster.chosen("quix-eo,kstreams-memory")] == [
        "kstreams-memory-eo",
        "kstreams-memory-alo",
        "quix-eo",
    ]
    assert roster.chosen("none") == []
    with pytest.raises(ValueError, match="no peer 'qui'"):
        roster.chosen("qui")


def test_what_cannot_be_had_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No Maven, no Python new enough: said of this peer, and no hindrance to the others."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path))
    with pytest.raises(environments.Unavailable, match=r"kstreams: no `mvn`"):
        environments.MavenProject().obtain(lambda _: None)
    with pytest.raises(environments.Unavailable, match=r"no Python 3\.90"):
        environments.interpreter((3, 90))


def test_every_environment_is_pinned() -> None:
    for name in {peer.environment.name for peer in roster.PEERS}:
        assert all("==" in chosen for chosen in environments.versions(name)), name


@pytest.fixture
def job(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """What the Python peers share; its settings come from the environment."""
    for name in ("BOOTSTRAP", "SOURCE", "GROUP", "DIRECTORY"):
        monkeypatch.setenv(f"BENCH_{name}", "x")
    monkeypatch.setenv("BENCH_PARTITIONS", "1")
    monkeypatch.setenv("BENCH_EXACTLY_ONCE", "1")
    return importlib.import_module("tests.bench.peers.programs.job")


def folded(job: ModuleType, values: Iterable[bytes]) -> tuple[list[str], int]:
    """The lines of the steps that the peers' fold publishes, and how many dead letters."""
    states, lines, letters = dict[str, Any](), list[str](), 0
    for value in values:
        event = json.loads(value)
        if not event["event"].startswith(job.PREFIX):
            continue
        step_id = event["data"]["id"]
        states[step_id], kind, out = job.fold(states.get(step_id), event["event"], event["data"])
        if kind == DEAD:
            letters += 1
        elif kind is not None:
            lines.append(line_of(kind, json.dumps(out).encode()))
    return sorted(lines), letters


def test_the_peers_fold_does_the_job(job: ModuleType) -> None:
    """What the Python peers share comes to what the job says must come out."""
    expected = Expected()
    made = [record.value for record in records(Job(5_000, open_runs=50, illegal=0.1), expected)]
    assert folded(job, made) == (sorted(expected.lines), expected.counts[DEAD])
    assert expected.counts[DEAD] > 0


def test_the_peers_fold_does_the_recorded_job(job: ModuleType) -> None:
    """Messages' steps and calls of other tools come out as the job says; events of no step are nothing to it."""
    expected = Expected()
    made = [record.value for record in recorded_events(5_000, expected, open_runs=50)]
    assert folded(job, made) == (sorted(expected.lines), 0)
    assert expected.events == len(made)
    told = "".join(expected.lines)
    assert "code_interpreter input: " in told
    assert "mcp arguments: " in told


@pytest.mark.parametrize(
    ("tool", "text"),
    [
        ("function", "ab"),
        ("mcp", "mcp arguments: ab"),
        ("code_interpreter", "code_interpreter input: ab"),
        ("code_interpreter_logs", "code_interpreter logs: ab"),
    ],
)
def test_the_peers_fold_joins_the_pieces_of_each_tool(job: ModuleType, tool: str, text: str) -> None:
    """A null of the ending object leaves them alone; fields beside them stay as the first delta stated them."""
    state, _, _ = job.fold(None, "thread.run.step.created", stated_step())
    for piece, call_id in (("a", "call_1"), ("b", None)):
        state, kind, _ = job.fold(state, "thread.run.step.delta", tool_delta("step_1", tool, piece, call_id))
        assert kind is None
    end = stated_step({"id": None, "output": None}) | {"status": "failed"}
    state, kind, out = job.fold(state, "thread.run.step.failed", end)
    assert (state, kind) == ("failed", "failed")
    assert line_of("failed", json.dumps(out).encode()) == line("failed", "step_1", [text])
    call = out["step_details"]["tool_calls"][0]
    assert call["id"] == "call_1"
    assert "index" not in call
    assert ("function" in call) is (tool == "function")
    assert call.get("server_label") == ("docs" if tool == "mcp" else None)


def test_the_peers_fold_takes_a_text_that_the_ending_object_states(job: ModuleType) -> None:
    state, _, _ = job.fold(None, "thread.run.step.delta", tool_delta("step_1", "mcp", "a", "call_1"))
    end = stated_step({"type": "mcp", "arguments": "z", "output": "y"}) | {"status": "completed"}
    _, kind, out = job.fold(state, "thread.run.step.completed", end)
    assert line_of(kind, json.dumps(out).encode()) == line("completed", "step_1", ["mcp arguments: z", "mcp output: y"])


def stated_step(*calls: dict[str, Any]) -> dict[str, Any]:
    return step_object("step_1", "run_1", "thread_1", "tool_calls", {"type": "tool_calls", "tool_calls": [*calls]})


@pytest.mark.parametrize(
    "call",
    [
        {"type": "mcp", "arguments": "a"},
        {"type": "mcp", "arguments": "ab", "output": ""},
        {"type": "function", "function": {"arguments": "ab"}},
        {"type": "code_interpreter", "code_interpreter": {"input": "ab"}},
        {"type": "code_interpreter", "code_interpreter": {"outputs": [{"logs": "ab"}]}},
        {"type": "mcp"},
        {"type": "function"},
    ],
)
def test_another_text_or_tool_or_field_is_another_line(call: dict[str, Any]) -> None:
    """What the check of the recorded job must find, held against an mcp call with the arguments `ab`."""
    value = json.dumps(stated_step(call) | {"status": "completed"}).encode()
    assert line_of("completed", value) != line("completed", "step_1", ["mcp arguments: ab"])


def test_a_recorded_job_that_ends_another_number_of_steps_than_it_says_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = recorded_job.recorded

    def one_less(events: int, expected: recorded_job.Expected, *, open_runs: int) -> Iterator[recorded_job.Made]:
        yield from real(events, expected, open_runs=open_runs)
        expected.published -= 1

    monkeypatch.setattr(recorded_job, "recorded", one_less)
    with pytest.raises(RuntimeError, match="steps end in the job, and it says"):
        list(recorded_events(500, Expected(), open_runs=5))
