"""The doctor's judgements without a broker: what a sample says of keys, which permissions a worker needs."""

from __future__ import annotations

import re
import zlib
from pathlib import Path

import pytest

from processor.config.settings import Settings
from processor.core.effects import LogRecord
from processor.doctor.findings import Finding, Light, worst
from processor.doctor.group import _positions
from processor.doctor.permissions import Need, needed
from processor.doctor.samples import keying
from processor.kafka.records import partition_of
from tests.faults.service import created

PAGE = Path(__file__).parents[2] / "docs" / "operations.md"
PARTITIONS = 7


def test_a_group_without_offsets_whose_outcomes_hold_records_is_red() -> None:
    """A start ends with 65 on it; the doctor said "has committed nothing yet", green."""
    (first,) = _positions("group g", {}, {0: 0}, {0: 9})
    assert first.light is Light.GREEN
    (gone,) = _positions("group g", {}, {0: 0}, {0: 9}, ["out.completed", "out.failed"])
    assert gone.light is Light.RED
    assert "out.completed, out.failed hold records" in gone.what
    assert "run-steps reset" in gone.remedy


def test_the_permissions_are_those_of_the_page() -> None:
    """One table for people, one for the program."""
    rows = re.findall(
        r"^\| (topic|group|transactional_id) \| `(\S+)` \| (\w+) \| ([A-Z_, ]+) \|$", PAGE.read_text(), re.M
    )
    page = {Need(kind, name, pattern, one) for kind, name, pattern, ops in rows for one in ops.split(", ")}
    assert len(page) == 17
    assert set(needed(Settings())) == page


def sample(place: dict[str, int], unkeyed: bool = False) -> list[Finding]:
    """Findings of a record per run: run id -> partition."""
    found: dict[int, list[LogRecord]] = {partition: [] for partition in range(PARTITIONS)}
    for run, partition in place.items():
        value = created(f"step_{run}", run_id=run)
        found[partition].append(LogRecord(len(found[partition]), 0, None if unkeyed else run.encode(), value))
    return list(keying("in", PARTITIONS, found))


def fnv1a_of_sarama(key: bytes) -> int:
    """As hash/fnv New32a and Sarama's hash partitioner do it, on known values."""
    return {b"": 0x811C9DC5, b"a": 0xE40C292C, b"foobar": 0xBF9CF968}[key]


RUNS = [f"run_{number}" for number in range(60)]
HASHES = {
    "murmur2": lambda key: partition_of(key, PARTITIONS),
    "CRC-32": lambda key: zlib.crc32(key) % PARTITIONS,
}


@pytest.mark.parametrize("name", HASHES)
def test_the_hash_of_the_keys_is_named(name: str) -> None:
    findings = sample({run: HASHES[name](run.encode()) for run in RUNS})
    assert any(f"keys are spread by {name}" in finding.what for finding in findings)
    assert worst(findings) is (Light.GREEN if name == "murmur2" else Light.YELLOW)


def test_keys_of_two_hashes_are_told() -> None:
    """Half of the producers use another client library, and no run is split yet."""
    mixed = {run: HASHES["murmur2" if number % 2 else "CRC-32"](run.encode()) for number, run in enumerate(RUNS)}
    findings = sample(mixed)
    assert any("no one hash explains" in finding.what for finding in findings)
    assert worst(findings) is Light.YELLOW


def test_the_fnv_hash_has_its_known_values() -> None:
    from processor.doctor.samples import _fnv1a

    for key in (b"", b"a", b"foobar"):
        number = fnv1a_of_sarama(key)
        signed = number - (1 << 32) if number >> 31 else number
        assert _fnv1a(key, 1 << 40) == abs(signed)


def test_records_without_a_key_are_told() -> None:
    findings = sample({run: number % PARTITIONS for number, run in enumerate(RUNS)}, unkeyed=True)
    assert any("60 of 60 sampled records have no key" in finding.what for finding in findings)
    assert worst(findings) is Light.RED


def test_a_run_on_two_partitions_is_red() -> None:
    value = created("step_1", run_id="run_1")
    found = {0: [LogRecord(0, 0, b"a", value)], 1: [LogRecord(0, 0, b"b", value)]}
    findings = list(keying("in", 2, found))
    assert worst(findings) is Light.RED
    assert "run run_1: 0, 1" in findings[0].what
