"""The bench of peers: what its words say of the figures, who is chosen, and the fold that the Python peers share."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.bench.load import DEAD, Expected, Job, line, records
from tests.bench.measure import Run
from tests.bench.peers import environments, roster, table
from tests.bench.peers.table import Entry
from tests.bench.peers.trial import Trial
from tests.bench.verdict import Verdict

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


def test_the_peers_fold_does_the_job(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the Python peers share comes to what the job says must come out."""
    for name in ("BOOTSTRAP", "SOURCE", "GROUP", "DIRECTORY"):
        monkeypatch.setenv(f"BENCH_{name}", "x")
    monkeypatch.setenv("BENCH_PARTITIONS", "1")
    monkeypatch.setenv("BENCH_EXACTLY_ONCE", "1")
    from tests.bench.peers.programs import job

    expected, states, lines, letters = Expected(), dict[str, job.State](), [], 0
    for made in records(Job(5_000, open_runs=50, illegal=0.1), expected):
        event = json.loads(made.value)
        step_id = event["data"]["id"]
        states[step_id], kind, out = job.fold(states.get(step_id), event["event"], event["data"])
        if kind == DEAD:
            letters += 1
        elif kind is not None:
            assert out is not None
            calls = out["step_details"].get("tool_calls") or ()
            lines.append(line(kind, out["id"], [call["function"]["arguments"] for call in calls]))
    assert sorted(lines) == sorted(expected.lines)
    assert letters == expected.counts[DEAD] > 0
