"""Consumer group: state, members, committed offsets against the log."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from processor.doctor.findings import Finding, Light
from processor.doctor.subject import Subject, outcomes_of
from processor.errors import BrokerRefused
from processor.kafka.consumer import Committed
from processor.kafka.inspection import GroupView
from processor.kafka.partition_reader import PartitionReader

AREA = "group"
TRANSACTIONS = "transactions"
_SLOW_S = 60.0
"""A transaction that is open for longer delays readers noticeably; ours time out after 15 s."""
_HANGING_S = 900.0
"""Kafka's transaction.max.timeout.ms by default: the coordinator has ended, or forgotten, every older one."""

_STATES = {"": "is not there", "Dead": "is not there"}


async def check_group(subject: Subject) -> list[Finding]:
    """State and members; each partition's committed offset between the begin and the end of its log."""
    settings = subject.settings
    group_id, topic = settings.source.group_id, settings.source.topic
    view = await subject.inspector.group(group_id)
    name = f"group {group_id}"
    if view.is_forbidden:
        return [Finding(AREA, Light.YELLOW, name, "may not be described", "see permissions")]
    findings = [*_state(name, view, f"{settings.transactional_id_prefix}.")]
    leaders = subject.leaders(topic)
    if not leaders:
        return findings
    committed = await subject.inspector.group_offsets(group_id)
    async with reader_of(subject, topic) as reader:
        begins = await reader.begin_offsets(leaders)
        ends = await reader.end_offsets(leaders)
    own = {p: place for (name_, p), place in committed.items() if name_ == topic and place.offset >= 0}
    written = [] if own else await _written(subject)
    return [*findings, *_positions(name, own, begins, ends, written)]


async def _written(subject: Subject) -> list[str]:
    """The outcome topics that hold, or held, records, of those that may be looked at."""
    found = []
    for topic in sorted(outcomes_of(subject.settings)):
        with contextlib.suppress(BrokerRefused):
            async with reader_of(subject, topic) as reader:
                if any((await reader.end_offsets(subject.leaders(topic))).values()):
                    found.append(topic)
    return found


def _state(name: str, view: GroupView, prefix: str) -> Iterator[Finding]:
    members = Counter(f"{member.client_id} at {member.host.lstrip('/')}" for member in view.members)
    told = ", ".join(f"{number} x {who}" if number > 1 else who for who, number in sorted(members.items()))
    if view.protocol_type not in ("", "consumer"):
        yield Finding(
            AREA, Light.RED, name, f"is of another kind ({view.protocol_type})", "choose another source.group_id"
        )
    elif view.state in ("PreparingRebalance", "CompletingRebalance"):
        yield Finding(
            AREA, Light.YELLOW, name, f"rebalances ({told})", "ask again; if it goes on, look for restarting workers"
        )
    else:
        yield Finding(AREA, Light.GREEN, name, f"{_STATES.get(view.state, view.state)}; members: {told or 'none'}")
    strangers = sorted({m.client_id for m in view.members if not m.client_id.startswith(prefix)})
    if strangers:
        yield Finding(
            AREA,
            Light.YELLOW,
            name,
            f"has members whose client id does not begin with {prefix} ({', '.join(strangers[:5])})",
            "workers of other settings or versions, or another program: one group is for one processor",
        )


def _positions(
    name: str,
    committed: Mapping[int, Committed],
    begins: Mapping[int, int],
    ends: Mapping[int, int],
    written: Sequence[str] = (),
) -> Iterator[Finding]:
    if not committed and written:
        yield Finding(
            AREA,
            Light.RED,
            name,
            f"has no committed offset, and is not new: {', '.join(written)} hold records; a start ends with 65",
            "name the group of before, or set its offsets: run-steps reset (docs/operations.md, Beginning anew)",
        )
        return
    if not committed:
        yield Finding(AREA, Light.GREEN, name, "has committed nothing yet")
        return
    lost = [p for p, place in sorted(committed.items()) if place.offset < begins.get(p, 0)]
    beyond = [p for p, place in sorted(committed.items()) if place.offset > ends.get(p, place.offset)]
    missing = [p for p in sorted(begins) if p not in committed]
    for partition in lost[:10]:
        yield Finding(
            AREA,
            Light.RED,
            f"{name} partition {partition}",
            f"goes on at {committed[partition].offset}, and the log begins at {begins[partition]}: records are lost",
            f"restore the topic, or: run-steps reset --partition {partition} --to earliest --yes",
        )
    for partition in beyond[:10]:
        yield Finding(
            AREA,
            Light.RED,
            f"{name} partition {partition}",
            f"goes on at {committed[partition].offset}, and the log ends at {ends[partition]}: it is another log",
            f"was the topic created again? run-steps reset --partition {partition} --to earliest --yes",
        )
    if missing:
        yield Finding(
            AREA,
            Light.YELLOW,
            name,
            f"has no offset for partitions {', '.join(map(str, missing[:10]))} though it has for others",
            "partitions that were added begin at source.start; if they were not added, offsets were lost: "
            "docs/operations.md, Beginning anew",
        )
    if not lost and not beyond:
        lags = [ends[p] - place.offset for p, place in committed.items() if p in ends]
        yield Finding(AREA, Light.GREEN, name, f"lag {sum(lags)} offsets, {max(lags, default=0)} on one partition")


async def check_transactions(subject: Subject) -> list[Finding]:
    """Open transactions on every topic, and the command that ends those that hang."""
    findings: list[Finding] = []
    seen = 0
    for topic in sorted(subject.facts):
        leaders = subject.leaders(topic)
        async with reader_of(subject, topic) as reader:
            ends, stable = await reader.end_offsets(leaders), await reader.stable_end_offsets(leaders)
        held = {p: leader for p, leader in leaders.items() if stable[p] < ends[p]}
        if not held:
            continue
        try:
            open_ones = await subject.inspector.open_transactions(topic, held)
        except BrokerRefused as error:
            at = ", ".join(map(str, sorted(held)[:10]))
            findings.append(
                Finding(
                    TRANSACTIONS,
                    Light.YELLOW,
                    f"topic {topic}",
                    f"a transaction is open on partitions {at}; whose, we may not ask",
                    f"grant READ on it for this check ({error.message})",
                )
            )
            continue
        for one in open_ones:
            seen += 1
            age_s = time.time() - one.last_timestamp_ms / 1000
            if age_s < _SLOW_S:
                continue
            findings.append(
                Finding(
                    TRANSACTIONS,
                    Light.RED if age_s >= _HANGING_S else Light.YELLOW,
                    f"topic {topic} partition {one.partition}",
                    f"producer {one.producer_id} holds a transaction open from offset {one.first_offset}, its last "
                    f"record is {age_s:.0f} s old: readers wait there",
                    f"end the producer; if it is gone: kafka-transactions.sh --bootstrap-server {subject.bootstrap} "
                    f"abort --topic {topic} --partition {one.partition} --start-offset {one.first_offset}",
                )
            )
    return findings or [Finding(TRANSACTIONS, Light.GREEN, "all topics", f"none hangs ({seen} open at the moment)")]


def reader_of(subject: Subject, topic: str) -> PartitionReader:
    return PartitionReader(
        subject.connection,
        topic=topic,
        client_id=f"{subject.settings.kafka.client_id}.doctor",
        isolation="read_committed",
    )
