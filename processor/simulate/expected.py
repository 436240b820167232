"""Expected result: filled by the generator from its plan, kept in a file, and compared with the published records.

Nothing here folds events or uses the core: it checks worker and replay independently.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

REVISION: Final = "revision"
INFERRED: Final = "inferred"
ANOMALIES: Final = "anomalies"
REASON: Final = "reason"
SOURCE_PARTITION: Final = "source-partition"
PREFIX: Final = "runstep-"
"""Header names are matched without this prefix."""

_text = json.JSONEncoder(sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode


class Outcome(NamedTuple):
    """One snapshot that must be published, once."""

    status: str
    snapshot_text: str
    """The snapshot as JSON with sorted keys: a tenth of the memory of the object."""
    inferred: str | None
    anomalies: tuple[str, ...]
    partition: int
    """The source partition."""

    @property
    def snapshot(self) -> dict[str, Any]:
        """The whole published object."""
        found: dict[str, Any] = json.loads(self.snapshot_text)
        return found


class Letter(NamedTuple):
    """One record that must be set aside."""

    reason: str
    sha256: str
    """SHA-256 of the value, in hexadecimal."""
    partition: int


class Expected:
    """The expected result of a log.

    `steps`: (step id, revision) -> `Outcome`. `letters`: a multiset of `Letter`. `counts`: how often each
    thing happens, under `published.<status>`, `inferred.<how>`, `amended`, `dead_letter.<reason>`, `ignored`,
    `tombstone`, `unknown_event`, `duplicate`, `repeated`, and `records`.
    """

    def __init__(self) -> None:
        self.steps: dict[tuple[str, int], Outcome] = {}
        self.letters: Counter[Letter] = Counter()
        self.counts: Counter[str] = Counter()

    def publish(
        self,
        step_id: str,
        revision: int,
        snapshot: Mapping[str, Any],
        *,
        partition: int,
        inferred: str | None = None,
        anomalies: Iterable[str] = (),
    ) -> None:
        """Expect one snapshot on the topic of its status."""
        assert (step_id, revision) not in self.steps, (step_id, revision)
        status = snapshot["status"]
        self.steps[step_id, revision] = Outcome(status, _text(snapshot), inferred, tuple(sorted(anomalies)), partition)
        self.counts[f"published.{status}"] += 1
        if inferred:
            self.counts[f"inferred.{inferred}"] += 1
        if revision:
            self.counts["amended"] += 1

    def set_aside(self, reason: str, value: bytes, partition: int) -> None:
        """Expect one dead letter."""
        self.letters[Letter(reason, hashlib.sha256(value).hexdigest(), partition)] += 1
        self.counts[f"dead_letter.{reason}"] += 1


def write_expected(expected: Expected, path: Path) -> None:
    """Write one JSON object per line: the snapshots, the dead letters, and last the counts."""
    with path.open("w", encoding="utf-8") as out:
        for (step_id, revision), o in expected.steps.items():
            head = {
                "step_id": step_id,
                "revision": revision,
                "status": o.status,
                "inferred": o.inferred,
                "anomalies": o.anomalies,
                "partition": o.partition,
            }
            out.write(f'{_text(head)[:-1]},"snapshot":{o.snapshot_text}}}\n')
        for letter, times in expected.letters.items():
            out.write(_text({"dead_letter": letter._asdict(), "times": times}) + "\n")
        out.write(_text({"counts": expected.counts}) + "\n")


def read_expected(path: Path) -> Expected:
    """Read what `write_expected` wrote."""
    expected = Expected()
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            if "counts" in row:
                expected.counts.update(row["counts"])
            elif "dead_letter" in row:
                expected.letters[Letter(**row["dead_letter"])] = row["times"]
            else:
                expected.steps[row["step_id"], row["revision"]] = Outcome(
                    row["status"],
                    _text(row["snapshot"]),
                    row["inferred"],
                    tuple(row["anomalies"]),
                    row["partition"],
                )
    return expected


class Difference(NamedTuple):
    """One difference between the output and the expected result."""

    kind: str
    """missing, extra, twice, status, key, content, inferred, anomalies, partition, unreadable, dead_letter_missing
    or dead_letter_extra."""
    subject: str
    detail: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.subject}: {self.detail}"


def compare(
    expected: Expected,
    published: Iterable[Any],
    dead_letters: Iterable[Any],
    statuses: Mapping[str, str] | None = None,
) -> list[Difference]:
    """Compare the output with the expected result; an empty list: no difference.

    Args:
        expected: of a generator that has been iterated to its end.
        published: records with `key`, `value`, `headers`, and `status` or `topic`.
        dead_letters: records with `value`, `headers`, and the reason in a header or as `reason`.
        statuses: topic -> status. Without it a topic's status is what follows its last dot.

    Order does not matter. The source partition is compared where a record names it in a header.
    """
    seen: set[tuple[str, int]] = set()
    found: list[Difference] = []
    for record in published:
        found += _judge(expected, record, seen, statuses or {})
    for step in expected.steps:
        if step not in seen:
            found.append(Difference("missing", _name(*step), f"never published as {expected.steps[step].status}"))
    return found + _compare_letters(expected, dead_letters)


def _judge(
    expected: Expected, record: Any, seen: set[tuple[str, int]], statuses: Mapping[str, str]
) -> Iterator[Difference]:
    headers = _headers(record)
    try:
        snapshot = json.loads(record.value)
        step_id, revision = snapshot["id"], int(headers.get(REVISION, "0"))
    except (ValueError, KeyError, TypeError) as error:
        yield Difference("unreadable", repr(record.key)[:80], f"{type(error).__name__} in the value or the revision")
        return
    name = _name(step_id, revision)
    wanted = expected.steps.get((step_id, revision))
    if wanted is None:
        yield Difference("extra", name, "not expected at all")
        return
    if (step_id, revision) in seen:
        yield Difference("twice", name, "published more than once")
        return
    seen.add((step_id, revision))
    if (key := record.key) != step_id.encode():
        yield Difference("key", name, f"is keyed {key!r:.80}")
    if (status := _status(record, statuses)) != wanted.status:
        yield Difference("status", name, f"{wanted.status} is expected (got {status})")
    if _text(snapshot) != wanted.snapshot_text:
        yield Difference("content", name, _first_difference(wanted.snapshot, snapshot, "$"))
    if (inferred := headers.get(INFERRED)) != wanted.inferred:
        yield Difference("inferred", name, f"{wanted.inferred} is expected (got {inferred})")
    anomalies = tuple(a for a in headers.get(ANOMALIES, "").split(",") if a)
    if anomalies != wanted.anomalies:
        yield Difference("anomalies", name, f"{list(wanted.anomalies)} is expected (got {list(anomalies)})")
    if (partition := headers.get(SOURCE_PARTITION)) is not None and partition != str(wanted.partition):
        yield Difference("partition", name, f"{wanted.partition} is expected (got {partition})")


def _compare_letters(expected: Expected, dead_letters: Iterable[Any]) -> list[Difference]:
    """Compare as multisets of (reason, digest); the partition counts only where every letter names its own."""
    got: Counter[tuple[str, str]] = Counter()
    for record in dead_letters:
        reason = getattr(record, "reason", None) or _headers(record).get(REASON, "")
        got[str(reason), hashlib.sha256(record.value or b"").hexdigest()] += 1
    wanted: Counter[tuple[str, str]] = Counter()
    for letter, times in expected.letters.items():
        wanted[letter.reason, letter.sha256] += times
    return [
        Difference(kind, reason, f"{times} of the value with SHA-256 {digest}")
        for kind, rest in (("dead_letter_missing", wanted - got), ("dead_letter_extra", got - wanted))
        for (reason, digest), times in rest.items()
    ]


def _headers(record: Any) -> dict[str, str]:
    return {n.removeprefix(PREFIX): (v or b"").decode("utf-8", "replace") for n, v in record.headers}


def _status(record: Any, statuses: Mapping[str, str]) -> str:
    if (status := getattr(record, "status", None)) is not None:
        return str(status)
    topic: str = record.topic
    return statuses.get(topic) or topic.rpartition(".")[2]


def _name(step_id: str, revision: int) -> str:
    return f"{step_id} revision {revision}"


def _first_difference(wanted: Any, got: Any, path: str) -> str:
    """First difference of two JSON values, in the order of their keys."""
    if isinstance(wanted, dict) and isinstance(got, dict):
        for key in sorted(wanted.keys() | got.keys()):
            if key not in got:
                return f"{path}.{key} is missing ({_short(wanted[key])} is expected)"
            if key not in wanted:
                return f"{path}.{key} is not expected (got {_short(got[key])})"
            if _text(wanted[key]) != _text(got[key]):
                return _first_difference(wanted[key], got[key], f"{path}.{key}")
    if isinstance(wanted, list) and isinstance(got, list):
        for i, (a, b) in enumerate(zip(wanted, got, strict=False)):
            if _text(a) != _text(b):
                return _first_difference(a, b, f"{path}[{i}]")
        return f"{path}: {len(wanted)} entries are expected (got {len(got)})"
    return f"{path}: {_short(wanted)} is expected (got {_short(got)})"


def _short(value: Any) -> str:
    text = _text(value)
    return text if len(text) <= 120 else f"{text[:117]}... ({len(text)} characters)"
