"""What is wrong with topics is said at start, each with its remedy."""

from __future__ import annotations

from pathlib import Path

from processor.config.settings import Output, Settings, Source
from processor.kafka.admin import TopicFacts, check_topics, takes_timestamp
from processor.serve.topics import _size, checkpoint_record_bytes, topic_problems, topic_warnings

SIZE = {"max.message.bytes": "1000000"}


def topic(name: str, **configs: str) -> TopicFacts:
    return TopicFacts(
        name, 3, 1, {"cleanup.policy": "delete", **SIZE} | {k.replace("_", "."): v for k, v in configs.items()}
    )


def problems(*topics: TopicFacts) -> list[str]:
    found = {facts.name: facts for facts in topics}
    return check_topics(found, source="in", outputs=["out"], checkpoints="kept", max_record_bytes=1000)


GOOD = (topic("in"), topic("out"), topic("kept", cleanup_policy="compact"))


def test_good_topics_have_no_problems() -> None:
    assert problems(*GOOD) == []


def test_an_outcome_topic_that_overwrites_timestamps_is_refused() -> None:
    """Published records carry the source record's time; a replay compares it."""
    overwriting = topic("out", message_timestamp_type="LogAppendTime")
    (problem,) = problems(GOOD[0], overwriting, GOOD[2])
    assert problem.startswith("topic out: overwrites the source records' timestamps")
    assert "CreateTime" in problem


def test_the_default_checkpoints_fit_where_a_topic_may_have_8_mib() -> None:
    """MSK Serverless, Confluent Cloud and Redpanda Serverless refuse more; docs/operations.md names the number."""
    asked = int(_size(checkpoint_record_bytes(Settings()))["max.message.bytes"])
    assert asked == 8_146_944 <= 8 << 20
    assert "8,146,944" in (Path(__file__).parents[2] / "docs" / "operations.md").read_text()


def test_what_a_small_checkpoint_topic_takes_is_said() -> None:
    settings = Settings(
        source=Source(topic="in"), output=Output(completed="out", failed="", cancelled="", expired="out")
    )
    kept = topic("in.checkpoints", cleanup_policy="compact", max_message_bytes="1048576")
    (problem,) = [one for one in topic_problems(settings, {"in.checkpoints": kept}) if "max_step_bytes = " in one]
    most = int(problem.partition("max_step_bytes = ")[2].partition(" ")[0])
    fitting = settings.model_copy(update={"steps": settings.steps.model_copy(update={"max_step_bytes": most})})
    assert checkpoint_record_bytes(fitting) <= 1048576 < checkpoint_record_bytes(settings)


def test_segments_that_hold_no_largest_record_are_refused() -> None:
    """A broker refuses a batch larger than a segment, whatever max.message.bytes is: the worker ended with 65, again
    and again, at the first record that was."""
    small = {"segment_bytes": "1048576", "max_message_bytes": "9000000"}
    output = Output(completed="out", failed="", cancelled="", expired="out", max_record_bytes=2_000_000)
    found = {
        "in": topic("in", max_message_bytes="3000000"),
        "out": topic("out", **small),
        "run-steps.dead-letter": topic("run-steps.dead-letter", **small),
        "in.checkpoints": topic("in.checkpoints", cleanup_policy="compact", **small),
    }
    lines = topic_problems(Settings(source=Source(topic="in"), output=output), found)
    assert {line.partition(": ")[0] for line in lines} == {f"topic {name}" for name in found if name != "in"}
    assert all(": segment.bytes is too small" in line and "(got 1048576); set at least " in line for line in lines)
    assert topic("out", **small).max_batch_bytes == 1048576
    assert topic("out", max_message_bytes="7", segment_bytes="1048576").max_batch_bytes == 7


def test_a_compacted_dead_letter_topic_is_refused() -> None:
    """It keeps the last letter of a run alone, and refuses one without a key: the worker would end with 77 on it."""
    for cleanup, is_refused in (("compact", True), ("compact,delete", True), ("delete", False)):
        dead = topic("run-steps.dead-letter", cleanup_policy=cleanup)
        lines = [line for line in topic_problems(Settings(), {dead.name: dead}) if "loses dead letters" in line]
        assert [line.endswith("set cleanup.policy=delete") for line in lines] == [True] * is_refused


def warned(*topics: TopicFacts) -> list[str]:
    output = Output(completed="out", failed="", cancelled="", expired="out")
    settings = Settings(source=Source(topic="in"), output=output)
    return topic_warnings(settings, {facts.name: facts for facts in topics})


def test_an_outcome_topic_that_keeps_records_for_less_time_than_the_source_is_warned_of() -> None:
    """A published record is as old as its source record: one that is older than its topic's retention vanishes."""
    bounded = {"message_timestamp_after_max_ms": "3600000"}
    for source, out, is_warned in (("-1", "604800000", True), ("604800000", "3600000", True), ("1000", "1000", False)):
        lines = warned(topic("in", retention_ms=source, **bounded), topic("out", retention_ms=out))
        assert [line.startswith("topic out: keeps records for less time than in") for line in lines] == [
            True
        ] * is_warned
    assert warned(topic("in", retention_ms="-1", **bounded), topic("out", retention_ms="-1")) == []
    letters = topic("run-steps.dead-letter", retention_ms="1000")
    assert warned(topic("in", retention_ms="-1", **bounded), letters)[0].startswith(
        "topic run-steps.dead-letter: keeps"
    )
    compacted = topic("out", retention_ms="1", cleanup_policy="compact")
    assert warned(topic("in", retention_ms="-1", **bounded), compacted) == []


def test_a_source_that_takes_timestamps_of_next_year_is_warned_of() -> None:
    for taken in ({}, {"message_timestamp_after_max_ms": str((1 << 63) - 1)}):
        (line,) = warned(topic("in", **taken), topic("out"))
        assert "takes timestamps far ahead of the clock" in line
    assert warned(topic("in", message_timestamp_after_max_ms="3600000"), topic("out")) == []
    assert warned(topic("in", message_timestamp_type="LogAppendTime"), topic("out")) == []


def test_the_source_may_stamp_its_records_itself() -> None:
    assert problems(topic("in", message_timestamp_type="LogAppendTime"), *GOOD[1:]) == []


def test_tighter_limits_of_timestamps_than_the_sources_are_refused() -> None:
    """What is published has its source record's timestamp: a refused one would stop the partition for ever."""
    for setting in ("before", "after", "difference"):
        name = f"message.timestamp.{setting}.max.ms"
        tight = topic("out", **{f"message_timestamp_{setting}_max_ms": "3600000"})
        (problem,) = problems(GOOD[0], tight, GOOD[2])
        assert problem.startswith(f"topic out: refuses timestamps that in takes ({name} is 3600000, there 92233")
        as_tight = topic("in", **{f"message_timestamp_{setting}_max_ms": "3600000"})
        assert problems(as_tight, tight, GOOD[2]) == []
    stamped = topic("in", message_timestamp_type="LogAppendTime")
    assert problems(stamped, topic("out", message_timestamp_after_max_ms="1"), GOOD[2]) == []


def test_which_timestamps_a_topic_takes() -> None:
    def taken(age_ms: int, **limits: str) -> bool:
        return takes_timestamp(
            topic("in", **{f"message_timestamp_{k}": v for k, v in limits.items()}), 10_000, 10_000 + age_ms
        )

    assert taken(10_000)
    assert taken(-10_000)
    assert taken(1000, before_max_ms="1000")
    assert not taken(1001, before_max_ms="1000")
    assert taken(-1000, after_max_ms="1000")
    assert not taken(-1001, after_max_ms="1000")
    assert [taken(age, difference_max_ms="1000") for age in (-1001, -1000, 1000, 1001)] == [False, True, True, False]
    assert taken(5000, before_max_ms="1000", type="LogAppendTime")
