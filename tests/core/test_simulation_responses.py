"""The generator's Responses runs and the core agree, which share no line of code: beside run steps, and alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from processor.core.effects import DeadLetter, Effect, Publish
from processor.core.partition import PartitionState
from processor.core.rules import Rules
from processor.simulate import Parameters, Simulation
from processor.simulate.expected import Expected, compare
from processor.simulate.parameters import GATEWAY_FAULTS, RESPONSE_ITEMS
from tests.core.test_restart import Topics
from tests.core.test_simulation import SHARES as RUN_STEP_SHARES
from tests.core.test_simulation import Written, assert_expected, records_of

SHARES = ("rotated", "unnumbered", "lost", "resumed", "dropped", "duplicates", "gateways")


def assert_agrees(**parameters: Any) -> Expected:
    simulation = Simulation(Parameters(**parameters))
    rules = Rules(grace_s=simulation.parameters.grace_s, max_age_s=simulation.parameters.max_age_s)
    effects: list[Effect] = []
    for partition, log in records_of(simulation).items():
        state = PartitionState("t", partition, rules)
        effects += state.apply(log)
        assert state.open_steps == 0, "the last record lies beyond every deadline"
    assert_expected(simulation.expected, effects)
    return simulation.expected


@pytest.mark.parametrize("seed", range(3))
def test_responses_beside_run_steps(seed: int) -> None:
    assert_agrees(seed=seed, runs=50, responses=0.5)


@pytest.mark.parametrize("share", SHARES)
def test_with_one_parameter_on_and_the_others_off(share: str) -> None:
    off = dict.fromkeys(SHARES, 0.0)
    assert_agrees(seed=7, runs=15, responses=1.0, **(off | {share: 1.0}))


def test_with_a_third_of_everything_every_kind_of_outcome_comes() -> None:
    shares = dict.fromkeys([*RUN_STEP_SHARES, *SHARES], 0.3)
    expected = assert_agrees(seed=5, runs=60, responses=0.6, **shares)
    of_responses = [outcome for (step_id, _), outcome in expected.steps.items() if step_id.startswith("resp_")]
    assert {outcome.status for outcome in of_responses} == {"completed", "failed", "cancelled", "expired"}
    assert {outcome.inferred for outcome in of_responses} == {None, "run", "deadline"}
    assert {name for outcome in of_responses for name in outcome.anomalies} == {
        *("sequence_gap", "fold_divergence", "joined_midstream", "orphaned_by_run"),
    }
    assert any("incomplete_details" in outcome.snapshot_text for outcome in of_responses)


@pytest.mark.parametrize("fault", GATEWAY_FAULTS)
def test_with_one_fault_of_a_gateway_alone(fault: str) -> None:
    """No step is lost, none comes twice, none has an anomaly that it has not without the gateway."""
    assert_agrees(seed=7, runs=12, responses=1.0, gateways=1.0, gateway_faults={fault: 1.0}, dropped=0.3, resumed=0.5)


Event = dict[str, Any]


def said(events: list[Event], name: str) -> list[Any]:
    return [event[name] for event in events if name in event]


def ids_of(events: list[Event], kind: str) -> list[Any]:
    return [event["item"]["id"] for event in events if event["type"] == f"response.output_item.{kind}"]


SHOWS: dict[str, Callable[[list[Event]], bool]] = {
    "number_same": lambda events: len(set(said(events, "sequence_number"))) == 1,
    "number_default": lambda events: said(events, "sequence_number").count(0) > 2,
    "number_anew": lambda events: all(e["sequence_number"] == 0 for e in events if e["type"].endswith("item.added")),
    "number_missing": lambda events: 0 < len(said(events, "sequence_number")) < len(events),
    "number_old_at_end": lambda events: events[-1]["sequence_number"] < events[-2]["sequence_number"],
    "number_float": lambda events: {type(number) for number in said(events, "sequence_number")} == {float},
    "number_text": lambda events: {type(number) for number in said(events, "sequence_number")} == {str},
    "index_missing": lambda events: not said(events, "output_index"),
    "index_missing_in_texts": lambda events: all("item" in e for e in events if "output_index" in e),
    "index_null": lambda events: {*said(events, "output_index")} == {None},
    "index_same": lambda events: len(set(said(events, "output_index"))) == 1 < len(ids_of(events, "added")),
    "index_float": lambda events: {type(index) for index in said(events, "output_index")} == {float},
    "index_text": lambda events: {type(index) for index in said(events, "output_index")} == {str},
    "item_null": lambda events: any(not e.get("item") for e in events if e["type"] == "response.output_item.done"),
    "id_changes": lambda events: not {*ids_of(events, "added")} & {*ids_of(events, "done")},
    "done_renamed": lambda events: events[-1]["type"] == "response.done",
    "error_renamed": lambda events: events[-1]["type"] in ("error", "response.error"),
}


@pytest.mark.parametrize("fault", GATEWAY_FAULTS)
def test_the_fault_of_a_gateway_stands_in_the_events(fault: str) -> None:
    """Else the agreement of both would say nothing of it."""
    off: dict[str, Any] = dict.fromkeys([*SHARES, "garbage", "unknown", "tombstones"], 0.0)
    chosen = off | {"gateways": 1.0, "gateway_faults": {fault: 1.0}, "envelopes": {"bare": 1.0}}
    made: dict[bytes, list[Event]] = {}
    for record in Simulation(Parameters(seed=1, runs=40, responses=1.0, **chosen)):
        if record.value and record.key.startswith(b"resp_"):
            made.setdefault(record.key, []).append(json.loads(record.value))
    streams = [events for events in made.values() if "response.output_item.done" in said(events, "type")]
    showing = [events for events in streams if SHOWS[fault](events)]
    assert len(showing) >= (len(streams) // 2 if fault.startswith(("number", "index", "done")) else 1)


@pytest.mark.parametrize("seed", range(3))
def test_with_mixes_of_the_faults_of_gateways_and_repeats_that_event_ids_tell(seed: int) -> None:
    assert_agrees(seed=seed, runs=25, responses=1.0, gateways=1.0, with_ids=1.0, duplicates=0.3, dropped=0.3)


@pytest.mark.parametrize("item", RESPONSE_ITEMS)
def test_with_one_kind_of_item_alone(item: str) -> None:
    assert_agrees(seed=8, runs=5, responses=1.0, response_items={item: 1.0}, lost=0.5, dropped=0.2)


@pytest.mark.parametrize("envelope", ["event", "bare", "sse", "sse_many"])
def test_in_one_envelope(envelope: str) -> None:
    assert_agrees(seed=9, runs=10, responses=1.0, envelopes={envelope: 1.0})


@pytest.mark.parametrize("every", [25, 100])
def test_with_a_crash_every_so_many_records(every: int) -> None:
    """The same result by many owners, each of whom knows only what the one before committed."""
    shares: dict[str, Any] = dict.fromkeys(SHARES, 0.3)
    simulation = Simulation(Parameters(seed=11, runs=20, responses=0.7, **shares))
    logs = records_of(simulation)
    rules = Rules(grace_s=simulation.parameters.grace_s, ended_retention_s=60)
    effects: list[Effect] = []
    for log in logs.values():
        topics = Topics(0)
        while topics.committed[0] < len(log):
            state = topics.restore(rules)
            unit = state.apply(log[state.next_offset : topics.committed[0] + every])
            topics.commit(state, unit + state.checkpoint(topics.committed[0]))
            lost = topics.restore(rules)
            lost.apply(log[lost.next_offset : topics.committed[0] + 5])  # and it dies without having committed
        effects += topics.outcomes
    written = [
        # `Topics` restores as partition 3 whatever the partition is, so that header is left out.
        Written(e.step_id.encode(), e.value, [h for h in e.headers if h[0] != "runstep-source-partition"], e.status)
        for e in effects
        if isinstance(e, Publish)
    ]
    letters = [effect for effect in effects if isinstance(effect, DeadLetter)]
    assert [str(difference) for difference in compare(simulation.expected, written, letters)] == []
