"""Samples of the newest records: keying of the source, clocks of the producers, versions of the workers."""

from __future__ import annotations

import time
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import aclosing
from typing import Final

from processor.core.effects import FOLD_VERSION, Record, Rejected
from processor.core.events import decode
from processor.core.headers import RULES, VERSION
from processor.core.wire_types import RunEnd, StepDelta, StepObject
from processor.doctor.findings import Finding, Light
from processor.doctor.group import reader_of
from processor.doctor.subject import Subject, outcomes_of
from processor.kafka.records import partition_of

KEYING, CLOCKS, WORKERS = "keying", "clocks", "workers"
SAMPLE_RECORDS: Final = 2000
"""Sample size per partition, of the newest records."""
_NO_PROGRESS_S: Final = 15.0
_AHEAD_S: Final = 10.0
_FEW: Final = 20
"""With fewer keys a hash cannot be told from chance."""


async def check_source(subject: Subject) -> list[Finding]:
    """Whether a run stands on two partitions, by which hash keys are spread, and whether timestamps are ahead."""
    topic = subject.settings.source.topic
    if topic not in subject.facts:
        return []
    found = await _newest(subject, topic, SAMPLE_RECORDS)
    if not any(found.values()):
        return [Finding(KEYING, Light.GREEN, f"topic {topic}", "is empty: nothing to sample")]
    return [*keying(topic, subject.facts[topic].partitions, found), *_clocks(subject, topic, found)]


def keying(topic: str, partitions: int, found: Mapping[int, Iterable[Record]]) -> Iterator[Finding]:
    """Check the keys of a sample. `found`: its records by partition."""
    places: defaultdict[tuple[str, str], set[int]] = defaultdict(set)
    keys: defaultdict[bytes, set[int]] = defaultdict(set)
    unkeyed = total = 0
    for partition, records in found.items():
        for record in records:
            total += 1
            unkeyed += record.key is None
            if record.key is not None:
                keys[record.key].add(partition)
            for one in _runs_and_steps(record):
                places[one].add(partition)
    name = f"topic {topic}"
    split = sorted(one for one, where in places.items() if len(where) > 1)
    if split:
        kind, own_id = split[0]
        where = ", ".join(map(str, sorted(places[split[0]])))
        yield Finding(
            KEYING,
            Light.RED,
            name,
            f"{len(split)} of {len(places)} runs and steps in the sample stand on several partitions "
            f"({kind} {own_id}: {where}): their steps come out in pieces",
            "key every event by its run id, in all producers with one hash (`run-steps publish` does); partitions that "
            "were added while runs were open do the same",
        )
    if unkeyed and partitions > 1:
        yield Finding(
            KEYING,
            Light.RED if unkeyed * 2 > total else Light.YELLOW,
            name,
            f"{unkeyed} of {total} sampled records have no key",
            "key every event by its run id",
        )
    yield from _hashes(name, partitions, keys)
    if not split:
        yield Finding(KEYING, Light.GREEN, name, f"{len(places)} runs and steps sampled, each on one partition")


def _hashes(name: str, partitions: int, keys: Mapping[bytes, set[int]]) -> Iterator[Finding]:
    if partitions < 2 or len(keys) < _FEW:
        return
    fit = {
        hash_name: sum(len(where) == 1 and place(key, partitions) in where for key, where in keys.items()) / len(keys)
        for hash_name, place in _HASHES.items()
    }
    best = max(fit, key=lambda hash_name: fit[hash_name])
    if fit[best] == 1:
        light = Light.GREEN if best == _JAVA else Light.YELLOW
        remedy = "" if best == _JAVA else "producers with another hash put the same run elsewhere: set all to murmur2"
        yield Finding(KEYING, light, name, f"keys are spread by {best}", remedy)
    else:
        told = ", ".join(f"{share:.0%} by {hash_name}" for hash_name, share in sorted(fit.items()))
        yield Finding(
            KEYING,
            Light.YELLOW,
            name,
            f"no one hash explains where the keys stand ({told})",
            "several producers with different hashes, a partition count that was changed, or partitions that are "
            "chosen by hand: see that all events of a run share one",
        )


def _crc32(key: bytes, partitions: int) -> int:
    return zlib.crc32(key) % partitions


def _fnv1a(key: bytes, partitions: int) -> int:
    number = 0x811C9DC5
    for byte in key:
        number = (number ^ byte) * 0x01000193 & 0xFFFFFFFF
    signed = number - (1 << 32) if number >> 31 else number
    return abs(signed) % partitions


_JAVA: Final = "murmur2 (Java's clients)"
_HASHES: Final[Mapping[str, Callable[[bytes, int], int]]] = {
    _JAVA: partition_of,
    "CRC-32 (librdkafka's default)": _crc32,
    "FNV-1a (Sarama's default)": _fnv1a,
}


def _runs_and_steps(record: Record) -> set[tuple[str, str]]:
    """The ids of runs and steps that a record's events name."""
    decoded = decode(record.value, record.headers)
    if isinstance(decoded, Rejected):
        return set()
    found: set[tuple[str, str]] = set()
    for event in decoded.events:
        if isinstance(event, StepObject | StepDelta):
            found.add(("step", event.step_id))
        if isinstance(event, StepObject) and isinstance(event.data.get("run_id"), str):
            found.add(("run", event.data["run_id"]))
        if isinstance(event, RunEnd):
            found.add(("run", event.run_id))
    return found


def _clocks(subject: Subject, topic: str, found: Mapping[int, Iterable[Record]]) -> Iterator[Finding]:
    """Kafka tells no broker's clock: what can be seen is a record that is dated ahead of ours."""
    newest = max(record.timestamp for records in found.values() for record in records)
    ahead_s = newest / 1000 - time.time()
    grace_s = subject.settings.steps.grace_s
    if ahead_s > _AHEAD_S:
        yield Finding(
            CLOCKS,
            Light.RED if ahead_s > grace_s else Light.YELLOW,
            f"topic {topic}",
            f"its newest record is dated {ahead_s:.0f} s ahead of this machine's clock: deadlines fire too early",
            "set the clocks (NTP) of the producers and of this machine; message.timestamp.after.max.ms refuses such",
        )
    else:
        yield Finding(CLOCKS, Light.GREEN, f"topic {topic}", f"no record is dated more than {_AHEAD_S:.0f} s ahead")


async def check_workers(subject: Subject) -> list[Finding]:
    """Fold version and rules of the newest published steps: Kafka tells no client's version to another client."""
    mine = subject.settings.rules().digest()
    versions: Counter[str] = Counter()
    rules: Counter[str] = Counter()
    for topic in sorted(outcomes_of(subject.settings) & subject.facts.keys()):
        for records in (await _newest(subject, topic, 2)).values():
            for record in records[-1:]:
                headers = dict(record.headers)
                versions[(headers.get(VERSION) or b"?").decode("ascii", "replace")] += 1
                rules[(headers.get(RULES) or b"?").decode("ascii", "replace")] += 1
    if not versions:
        return [Finding(WORKERS, Light.GREEN, "published steps", "none to sample")]
    findings: list[Finding] = []
    if set(versions) != {str(FOLD_VERSION)}:
        findings.append(
            Finding(
                WORKERS,
                Light.YELLOW,
                "published steps",
                f"the newest are of fold version {', '.join(sorted(versions))}, this program is {FOLD_VERSION}",
                "workers of another version run, or none has published since an upgrade: finish the upgrade",
            )
        )
    if set(rules) != {mine}:
        findings.append(
            Finding(
                WORKERS,
                Light.YELLOW,
                "published steps",
                f"the newest are of other rules ({', '.join(sorted(rules))}) than these settings give ({mine})",
                "compare the settings of the workers with this file: docs/semantics.md lists those that are rules",
            )
        )
    return findings or [
        Finding(WORKERS, Light.GREEN, "published steps", f"fold version {FOLD_VERSION}, rules {mine}, as here")
    ]


async def _newest(subject: Subject, topic: str, count: int) -> dict[int, list[Record]]:
    """The last records of each partition of a topic, at most `count` offsets of each."""
    partitions = subject.leaders(topic)
    found: dict[int, list[Record]] = {partition: [] for partition in partitions}
    async with reader_of(subject, topic) as reader:
        begins, ends = await reader.begin_offsets(partitions), await reader.stable_end_offsets(partitions)
        # A transaction's marker takes an offset, too: of few offsets none may be a record.
        starts = {p: max(begins[p], ends[p] - max(count, 10)) for p in partitions}
        async with aclosing(reader.read_to(starts, ends, _NO_PROGRESS_S)) as reading:
            async for partition, records in reading:
                found[partition] += records
    return found
