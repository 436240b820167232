"""Two that share no line of code agree: the generator's expected result, and what the core makes of its records."""

from __future__ import annotations

from collections import Counter
from typing import Any, NamedTuple

import pytest

from processor.core.effects import DeadLetter, Effect, Headers, LogRecord, Publish
from processor.core.partition import PartitionState
from processor.core.rules import Rules
from processor.simulate import Parameters, Simulation
from processor.simulate.expected import Expected, compare
from processor.simulate.parameters import DIALECTS, ENVELOPES, TOOLS
from tests.core.test_restart import Topics

SHARES = [
    *("with_ids", "disorder", "duplicates", "garbage", "illegal", "late_output", "approvals", "interrupted"),
    *("overruled", "stragglers", "hung", "midstream", "disagree", "tombstones", "unknown"),
]
COUNTED = ("ignored", "tombstone", "unknown_event", "duplicate", "repeated")


class Written(NamedTuple):
    """A published record as it would lie on its topic."""

    key: bytes
    value: bytes
    headers: Headers
    status: str


def records_of(simulation: Simulation) -> dict[int, list[LogRecord]]:
    logs: dict[int, list[LogRecord]] = {}
    for produced in simulation:
        log = logs.setdefault(produced.partition, [])
        log.append(LogRecord(len(log), produced.timestamp, produced.key, produced.value, tuple(produced.headers)))
    return logs


def assert_expected(expected: Expected, effects: list[Effect]) -> None:
    written = [Written(e.step_id.encode(), e.value, e.headers, e.status) for e in effects if isinstance(e, Publish)]
    letters = [effect for effect in effects if isinstance(effect, DeadLetter)]
    assert [str(difference) for difference in compare(expected, written, letters)] == []
    counts = Counter(f"published.{e.status.value}" for e in effects if isinstance(e, Publish))
    counts += Counter(f"inferred.{e.inferred}" for e in effects if isinstance(e, Publish) and e.inferred)
    counts += Counter(f"dead_letter.{letter.reason.value}" for letter in letters)
    wanted = {
        name: n for name, n in expected.counts.items() if name.split(".")[0] in ("published", "inferred", "dead_letter")
    }
    assert counts == wanted


def assert_agrees(**parameters: Any) -> Expected:
    simulation = Simulation(Parameters(**parameters))
    rules = Rules(grace_s=simulation.parameters.grace_s)
    effects: list[Effect] = []
    counts: Counter[str] = Counter()
    for partition, log in records_of(simulation).items():
        state = PartitionState("t", partition, rules)
        effects += state.apply(log)
        counts += state.counts
        assert state.open_steps == 0, "the last record lies beyond every deadline"
    assert_expected(simulation.expected, effects)
    assert {name: counts[name] for name in COUNTED} == {name: simulation.expected.counts[name] for name in COUNTED}
    return simulation.expected


@pytest.mark.parametrize("seed", range(4))
def test_with_the_parameters_as_they_are(seed: int) -> None:
    assert_agrees(seed=seed, runs=60)


@pytest.mark.parametrize("seed", range(3))
def test_with_a_third_of_everything(seed: int) -> None:
    assert_agrees(seed=seed, runs=40, **dict.fromkeys(SHARES, 0.3))


def test_with_all_parameters_on_every_kind_of_outcome_comes() -> None:
    expected = assert_agrees(seed=5, runs=30, **dict.fromkeys(SHARES, 0.6))
    assert all(expected.counts[name] for name in COUNTED)
    for name in ("published.completed", "published.failed", "published.cancelled", "published.expired", "inferred.run"):
        assert expected.counts[name], name
    assert expected.counts["inferred.deadline"]
    assert expected.counts["amended"]


@pytest.mark.parametrize("share", SHARES)
def test_with_one_parameter_on_and_the_others_off(share: str) -> None:
    assert_agrees(seed=7, runs=15, **(dict.fromkeys(SHARES, 0.0) | {share: 1.0}))


@pytest.mark.parametrize("tool", TOOLS)
def test_with_one_tool_alone(tool: str) -> None:
    assert_agrees(seed=8, runs=10, tools={tool: 1.0}, disorder=0.5)


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("envelope", ENVELOPES)
def test_with_one_dialect_in_one_envelope(dialect: str, envelope: str) -> None:
    assert_agrees(seed=9, runs=6, dialects={dialect: 1.0}, envelopes={envelope: 1.0})


@pytest.mark.parametrize("every", [25, 100])
def test_with_a_crash_every_so_many_records(every: int) -> None:
    """The same result by many owners, each of whom knows only what the one before committed."""
    shares: dict[str, Any] = dict.fromkeys(SHARES, 0.2)
    simulation = Simulation(Parameters(seed=11, runs=25, **shares))
    logs = records_of(simulation)
    rules = Rules(grace_s=simulation.parameters.grace_s, ended_retention_s=60)
    effects: list[Effect] = []
    for log in logs.values():
        topics = Topics(0)
        while topics.committed[0] < len(log):
            state = topics.restore(rules)
            fresh = log[state.next_offset : topics.committed[0] + every]
            unit = state.apply(fresh)
            topics.commit(state, unit + state.checkpoint(topics.committed[0]))
            lost = topics.restore(rules)
            lost.apply(log[lost.next_offset : topics.committed[0] + 5])  # and it dies without having committed
        effects += topics.outcomes
    written = [e for e in effects if isinstance(e, Publish)]
    assert len(written) == len(simulation.expected.steps)
    found = {(e.step_id, e.revision): (e.status.value, e.value.decode()) for e in written}
    assert found.keys() == simulation.expected.steps.keys()
    assert_same(simulation.expected, effects)


def assert_same(expected: Expected, effects: list[Effect]) -> None:
    """`Topics` restores as partition 3 whatever the partition is, so that header is left out."""
    written = [
        Written(e.step_id.encode(), e.value, [h for h in e.headers if h[0] != "runstep-source-partition"], e.status)
        for e in effects
        if isinstance(e, Publish)
    ]
    letters = [effect for effect in effects if isinstance(effect, DeadLetter)]
    assert [str(difference) for difference in compare(expected, written, letters)] == []
