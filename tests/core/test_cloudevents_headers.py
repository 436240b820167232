"""Published steps as CloudEvents in binary mode: the CloudEvents SDK reads them, and so does this program."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final
from urllib.parse import unquote

import msgspec
import pytest
from cloudevents.core.bindings.kafka import KafkaMessage, from_binary_event
from hypothesis import given
from hypothesis import strategies as st

from processor.audit.judge.verdicts import Verdict
from processor.core.effects import LogRecord, Publish
from processor.core.headers import CE_ID
from processor.core.partition import PartitionState
from processor.core.rules import Rules
from processor.core.run_steps.fast_path import Paths
from tests.core.scripted_log import RULES, Play, headers, published, step
from tests.core.strategies import RULES as LOG_RULES
from tests.core.strategies import lives, logs
from tests.shell.test_audit import RULES as AUDITED
from tests.shell.test_audit import Case, one_step, verdicts

SOURCE: Final = "//kafka.example.com/run-step-events"
ON: Final = msgspec.structs.replace(RULES, cloudevents_source=SOURCE)
LOG_ON: Final = msgspec.structs.replace(LOG_RULES, cloudevents_source=SOURCE)


def of(effect: Publish) -> KafkaMessage:
    named = {name: content for name, content in effect.headers if content is not None}
    assert len(named) == len(effect.headers)
    return KafkaMessage(named, effect.step_id.encode(), effect.value)


@given(st.one_of(logs(), lives()))
def test_the_sdk_reads_every_published_step(log: list[LogRecord]) -> None:
    """And a record without the switch differs in these headers and in the digest of the settings alone."""
    effects = PartitionState("source", 3, LOG_ON).apply(log)
    plain = PartitionState("source", 3, LOG_RULES).apply(log)
    seen: dict[str, Publish] = {}
    assert len(effects) == len(plain)
    for effect, without in zip(effects, plain, strict=True):
        if not isinstance(effect, Publish) or not isinstance(without, Publish):
            continue
        event = from_binary_event(of(effect))
        attributes = event.get_attributes()
        assert attributes["specversion"] == "1.0"
        assert attributes["source"] == SOURCE
        assert attributes["type"] == f"thread.run.step.{effect.status}"
        assert unquote(attributes.get("subject", effect.step_id)) == effect.step_id
        assert event.get_data() == json.loads(effect.value)
        assert seen.setdefault(attributes["id"], effect) is effect
        ours = {name: content for name, content in effect.headers if name[:3] != "ce_" and name != "content-type"}
        assert ours | {"runstep-rules": b""} == dict(without.headers) | {"runstep-rules": b""}
        assert (effect.value, effect.timestamp) == (without.value, without.timestamp)


@given(lives())
def test_fast_and_slow_path_give_the_same(log: list[LogRecord]) -> None:
    PartitionState("source", 3, LOG_ON, paths=Paths.BOTH).apply(log)


def test_an_id_of_any_characters_becomes_a_subject_of_a_uri_s() -> None:
    play = Play(ON)
    hostile = 'step_1 é\x1b[31m%"'
    play.created(id=hostile)
    found = headers(published(play.say("step.completed", step("completed", id=hostile))))
    assert found["ce_subject"] == "step_1%20%C3%A9%1B%5B31m%25%22"
    assert unquote(found["ce_subject"]) == hostile


def test_each_revision_is_an_event_of_its_own() -> None:
    play = Play(ON)
    play.created()
    first = dict(published(play.say("step.completed", step("completed"))).headers)[CE_ID]
    second = dict(published(play.say("step.completed", step("completed", usage={"n": 1}))).headers)[CE_ID]
    assert first != second


def test_another_processor_reads_a_published_step_as_the_event_that_ends_it() -> None:
    play, second = Play(ON), Play(RULES)
    play.created()
    effect = published(play.say("step.completed", step("completed", usage={"total_tokens": 3})))
    read = published(second.put(effect.value, headers=effect.headers))
    assert json.loads(read.value) == json.loads(effect.value)
    assert second.put(effect.value, headers=effect.headers) == [], "ce_source and ce_id are its event id"


def test_the_switch_is_a_rule_that_counts_where_it_is_used() -> None:
    assert Rules(max_step_bytes=8 << 20).digest() == "d063af78578bdcec"
    assert len({Rules().digest(), Rules(cloudevents_source="a").digest(), Rules(cloudevents_source="b").digest()}) == 3


def test_an_audit_across_the_switch_accuses_no_one(tmp_path: Path) -> None:
    """With the settings of both sides all is equal; with those of one side the other is not provable."""
    on = msgspec.structs.replace(AUDITED, cloudevents_source=SOURCE)
    case = Case(tmp_path)
    one_step(case, "before")
    end = len(case.play.log)
    case.play.state = PartitionState("source", 3, on, next_offset=0, live_from=end)
    assert not case.play.state.apply(case.play.log)
    one_step(case, "after")
    one_step(case, "later")
    case.publish()
    assert verdicts(case.audit(rules=on, earlier=(AUDITED,))) == [Verdict.EQUAL] * 3
    assert sorted(verdicts(case.audit(rules=on))) == [Verdict.EQUAL, Verdict.EQUAL, Verdict.UNVERIFIABLE]
    assert sorted(verdicts(case.audit(rules=AUDITED))) == [Verdict.EQUAL, Verdict.UNVERIFIABLE, Verdict.UNVERIFIABLE]


def test_a_forged_source_is_a_difference(tmp_path: Path) -> None:
    on = msgspec.structs.replace(AUDITED, cloudevents_source=SOURCE)
    case = Case(tmp_path)
    case.play.state = PartitionState("source", 3, on)
    one_step(case)
    case.publish()
    assert verdicts(case.audit(rules=on)) == [Verdict.EQUAL]
    ((place, log),) = [(place, log) for place, log in case.out.items() if log]
    forged = tuple((name, b"//evil" if name == "ce_source" else content) for name, content in log[0].headers)
    case.out[place] = [msgspec.structs.replace(log[0], headers=forged)]
    assert verdicts(case.audit(rules=on)) == [Verdict.DIFFERENT]


def test_steps_that_began_in_one_record_are_events_of_their_own() -> None:
    """Partition, first offset and revision are the same; the digest of the value tells them apart."""
    frames = (
        f"event: thread.run.step.completed\ndata: {json.dumps(step('completed', step_id=name))}\n\n"
        for name in ("s1", "s2")
    )
    both = [effect for effect in Play(ON).put("".join(frames).encode()) if isinstance(effect, Publish)]
    assert len({dict(effect.headers)[CE_ID] for effect in both}) == 2


@pytest.mark.parametrize(("step_id", "has_subject"), [("s" * 255, True), ("é" * 170, True), ("é" * 171, False)])
def test_a_subject_that_would_be_too_long_is_left_out(step_id: str, has_subject: bool) -> None:
    play = Play(ON)
    play.created(id=step_id)
    found = published(play.say("step.completed", step("completed", id=step_id)))
    assert ("ce_subject" in dict(found.headers)) == has_subject
    assert sum(len(name) + len(content or b"") for name, content in found.headers if name[:3] == "ce_") < 2_500
    assert from_binary_event(of(found)).get_type() == "thread.run.step.completed"
