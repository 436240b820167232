"""From effects to records: topics, keys, partitions; and dead letters that no batch can hold."""

from __future__ import annotations

from hashlib import sha256

import pytest

from processor.config import Output, Settings
from processor.core.effects import Checkpoint, DeadLetter, Publish, Reason, Status
from processor.kafka.records import OutRecord
from processor.kafka.trouble import RecordTooLarge
from processor.outputs import OMITTED_BYTES, OMITTED_DIGEST, Outputs

HEADERS = (("runstep-reason", b"not_json"),)


def publish(status: Status) -> Publish:
    return Publish(status, "step_ä", b"{}", 1234, (("runstep-revision", b"0"),), 0, None, ())


def letter(value: bytes | None = b"?", *, timestamp: int = 7, key: bytes | None = b"run") -> DeadLetter:
    return DeadLetter(Reason.NOT_JSON, "", key, value, timestamp, HEADERS, 3)


def test_each_end_has_its_topic_and_the_step_is_the_key() -> None:
    ends = (Status.COMPLETED, Status.FAILED, Status.CANCELLED, Status.EXPIRED)
    out = list(Outputs.of_settings(Settings()).of(4, [publish(status) for status in ends]))
    assert [record.topic for record in out] == [f"run-steps.{status}" for status in ends]
    assert {(r.partition, r.key, r.value, r.timestamp, r.headers) for r in out} == {
        (None, "step_ä".encode(), b"{}", 1234, (("runstep-revision", b"0"),))
    }


def test_an_outcome_without_a_topic_is_switched_off() -> None:
    outputs = Outputs.of_settings(Settings(output=Output(failed="")))
    assert [r.topic for r in outputs.of(0, [publish(Status.EXPIRED), publish(Status.FAILED)])] == ["run-steps.expired"]


def test_a_dead_letter_is_as_it_came() -> None:
    (out,) = Outputs.of_settings(Settings()).of(0, [letter(b"\xff")])
    assert out == OutRecord("run-steps.dead-letter", None, b"run", b"\xff", 7, HEADERS)
    (unkeyed,) = Outputs.of_settings(Settings()).of(0, [letter(None, key=None, timestamp=-1)])
    assert (unkeyed.key, unkeyed.value, unkeyed.timestamp) == (None, None, 0), (
        "a record without a time has none to keep"
    )


def test_a_checkpoint_goes_to_the_partition_of_its_source() -> None:
    outputs = Outputs.of_settings(Settings())
    kept, forgotten = outputs.of(5, [Checkpoint(b"sx", b"state"), Checkpoint(b"sx", None)])
    assert kept == OutRecord("run-step-events.checkpoints", 5, b"sx", b"state", 0, ())
    assert forgotten.value is None


def test_order_is_kept() -> None:
    out = Outputs.of_settings(Settings()).of(0, [letter(b"1"), publish(Status.FAILED), letter(b"2")])
    assert [record.value for record in out] == [b"1", b"{}", b"2"]


def test_a_dead_letter_that_no_batch_holds_leaves_its_value_behind() -> None:
    """With its size and digest, so that the record can be found at its origin and known again."""
    outputs = Outputs.of_settings(Settings())
    large = b"[" * 3_000_000
    small, big, snapshot = outputs.of(0, [letter(b"small"), letter(large), publish(Status.COMPLETED)])
    left = outputs.without_values_over([small, big, snapshot], RecordTooLarge("run-steps.dead-letter", 3_000_100))
    assert left[0] is small
    assert left[2] is snapshot
    assert left[1].value is None
    assert left[1].key == big.key
    assert dict(left[1].headers) == {
        **dict(HEADERS),
        OMITTED_BYTES: b"3000000",
        OMITTED_DIGEST: sha256(large).hexdigest().encode(),
    }


def test_only_dead_letters_may_leave_anything_behind() -> None:
    outputs = Outputs.of_settings(Settings())
    with pytest.raises(RecordTooLarge):
        outputs.without_values_over(
            list(outputs.of(0, [publish(Status.FAILED)])), RecordTooLarge("run-steps.failed", 2_000_000)
        )
