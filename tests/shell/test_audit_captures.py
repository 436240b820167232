"""An audit of archives that keep less than the topic: Event Hubs Capture has times of arrival and one header of each
name, and Spark leaves headers out unless it is told to keep them.

What these leave open is not provable; what they cannot explain is a difference.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from processor.archives import (
    CAPTURE,
    ArchivedRecord,
    ArchiveError,
    Gap,
    GapKind,
    Recorder,
    holds_arrivals,
    lacks_headers,
)
from processor.archives.jsonl import encode_line
from processor.audit.judge.verdicts import DISAGREES, Verdict
from processor.audit.reconcile.command import reconcile
from processor.audit.replay.archive_ranges import Archives
from processor.audit.replay.command import replay
from processor.audit.replay.options import Options
from processor.audit.replay.outcome import Replayed
from processor.audit.report.manifest import Outcome
from processor.core import headers as evidence
from processor.core.effects import LogRecord
from processor.errors import CorruptLog
from processor.kafka.client_config import Connection
from tests.capture_files import captured, write_capture
from tests.shell.mutations import DEAD, OUTCOMES, SOURCE
from tests.shell.test_replay import settings
from tests.trial.honest_worlds import Worker

LATE_MS = 1_300
Change = Callable[[LogRecord], LogRecord]


class Captured:
    """What a worker read and published, each on its topics (as JSON lines), and as a capture of them."""

    def __init__(self, folder: Path) -> None:
        worker = Worker(11)
        worker.gaps, worker.repeats = 0.0, 0.5
        worker.work()
        self.folder, self.topics = folder, worker.made.topics
        self.source = [r for log in worker.made.logs.values() for r in log if isinstance(r, ArchivedRecord)]
        self._kept(folder / "source", self.source)
        _capture(folder / "captured", self.source)

    def audit(self, *, source: str, output: str = "out", **options: Any) -> Replayed:
        published = list(self.published())
        if not (self.folder / output).exists():
            (_capture if output == "captured-out" else self._kept)(self.folder / output, published)
        archives = options.pop("archives", (str(self.folder / source),))
        asked = Options(archives=archives, published=(str(self.folder / output),), **options)
        return replay(asked, settings(), _no_broker, lambda _: None)

    def published(self) -> Iterator[ArchivedRecord]:
        for (topic, partition), log in sorted(self.topics.items()):
            for offset, r in enumerate(log):
                yield ArchivedRecord(topic, partition, offset, r.timestamp, r.key, r.value, r.headers)

    def change(self, change: Change, *, dead: bool = False) -> str:
        """Change the first record of that kind that can be; returns its key, or the source offset of a letter."""
        for (topic, _), log in sorted(self.topics.items()):
            for at, record in enumerate(log):
                changed = change(record) if (topic == DEAD) is dead else record
                if changed != record:
                    log[at] = changed
                    name = dict(record.headers).get(evidence.SOURCE_OFFSET) if dead else record.key
                    return (name or b"").decode()
        raise AssertionError("nothing to change")

    @staticmethod
    def _kept(folder: Path, records: list[ArchivedRecord]) -> None:
        with Recorder(folder, files=".jsonl") as recorder:
            for record in records:
                recorder.write(record)


def _capture(folder: Path, records: list[ArchivedRecord]) -> None:
    by_place: dict[tuple[str, int], list[ArchivedRecord]] = {}
    for record in records:
        by_place.setdefault((record.topic, record.partition), []).append(record)
    for (topic, partition), log in by_place.items():
        arrived = [msgspec.structs.replace(r, timestamp=r.timestamp + LATE_MS * (r.offset % 3 > 0)) for r in log]
        write_capture(folder, topic, partition, [captured(r) for r in arrived], "deflate")


def _no_broker() -> Connection:
    raise AssertionError("no broker is needed")


@pytest.fixture
def there(tmp_path: Path) -> Captured:
    return Captured(tmp_path)


KEPT = [("captured", "out"), ("source", "captured-out"), ("captured", "captured-out")]


@pytest.mark.parametrize(("source", "output"), KEPT)
def test_what_a_capture_does_not_keep_is_not_provable(there: Captured, source: str, output: str) -> None:
    assert there.audit(source="source", output="whole").verdict is Outcome.PROVEN
    found = there.audit(source=source, output=output)
    assert found.verdict is Outcome.UNPROVABLE, found.first
    assert found.exit_code == 4
    assert any("Event Hubs Capture" in finding.why for finding in found.first)
    assert found.counts["dead_letter"].get("unverifiable", 0) > 0


def _disagreeing(found: Replayed) -> list[tuple[Verdict, str]]:
    return [(one.verdict, one.identity[0]) for one in found.first if one.verdict in DISAGREES]


def _lie(record: LogRecord) -> LogRecord:
    """Another text in a step that ended by an event of its own, with the digest of it."""
    headers = dict(record.headers)
    snapshot = json.loads(record.value or b"")
    if evidence.INFERRED in headers or "inferred_times" in snapshot or headers[evidence.REVISION] != b"0":
        return record
    value = json.dumps({**snapshot, "assistant_id": "another"}, sort_keys=True, separators=(",", ":")).encode()
    return _with(msgspec.structs.replace(record, value=value), evidence.DIGEST, sha256(value).hexdigest().encode())


def _with(record: LogRecord, name: str, content: bytes) -> LogRecord:
    return msgspec.structs.replace(
        record, headers=tuple((n, content if n == name else held) for n, held in record.headers)
    )


@pytest.mark.parametrize(("source", "output"), KEPT)
def test_another_content_is_a_difference(there: Captured, source: str, output: str) -> None:
    step_id = there.change(_lie)
    found = there.audit(source=source, output=output)
    assert found.verdict is Outcome.DIFFERENT
    assert _disagreeing(found) == [(Verdict.DIFFERENT, step_id)]


@pytest.mark.parametrize(("source", "output"), KEPT)
def test_another_value_of_a_dead_letter_is_a_difference(there: Captured, source: str, output: str) -> None:
    offset = there.change(lambda r: msgspec.structs.replace(r, value=b"{}"), dead=True)
    found = there.audit(source=source, output=output)
    assert _disagreeing(found) == [(Verdict.DIFFERENT, offset)]


def test_another_header_of_a_dead_letter_is_a_difference_where_the_source_is_whole(there: Captured) -> None:
    """A capture of the output keeps one header of each name, and changes none."""

    def change(record: LogRecord) -> LogRecord:
        names = [name for name, _ in record.headers]
        own = [name for name in names[: names.index(evidence.REASON)] if names.count(name) == 1]
        return _with(record, own[0], b"another") if own else record

    offset = there.change(change, dead=True)
    assert _disagreeing(there.audit(source="source", output="captured-out")) == [(Verdict.DIFFERENT, offset)]


def test_a_digest_that_is_not_the_value_s_is_a_difference(there: Captured) -> None:
    """Times in the value may be others, and so may its digest: but not another one than the value's."""
    there.change(lambda r: _with(r, evidence.DIGEST, b"0" * 64))
    assert there.audit(source="captured").verdict is Outcome.DIFFERENT


def test_a_step_that_is_gone_is_missing_and_one_that_is_there_again_is_extra(there: Captured) -> None:
    place, at = next(
        (place, at)
        for place, log in sorted(there.topics.items())
        for at, r in enumerate(log)
        if place[0] != DEAD and _lie(r) != r and r.timestamp % 1000
    )
    record = there.topics[place].pop(at)
    found = there.audit(source="captured", output="without")
    assert _disagreeing(found) == [(Verdict.MISSING, (record.key or b"").decode())]
    there.topics[place] += [record, record]
    found = there.audit(source="captured", output="twice")
    assert {verdict for verdict, _ in _disagreeing(found)} <= {Verdict.EXTRA, Verdict.DUPLICATE}
    assert found.verdict is Outcome.DIFFERENT


@pytest.mark.parametrize(("is_off", "verdict"), [(False, Outcome.DIFFERENT), (True, Outcome.UNPROVABLE)])
def test_an_outcome_that_is_not_published_hides_ends(there: Captured, is_off: bool, verdict: Outcome) -> None:
    """A step that is not there may have been remembered from an end that was not published."""
    assert all(topic != OUTCOMES["cancelled"] for topic, _ in there.topics)
    place, at = next(
        (place, at)
        for place, log in sorted(there.topics.items())
        for at, r in enumerate(log)
        if place[0] == OUTCOMES["completed"] and _lie(r) != r
    )
    del there.topics[place][at]
    cancelled = "" if is_off else OUTCOMES["cancelled"]
    output = settings().output.model_copy(update={"cancelled": cancelled})
    asked = settings().model_copy(update={"output": output})
    there._kept(there.folder / "out", list(there.published()))
    options = Options(archives=(str(there.folder / "captured"),), published=(str(there.folder / "out"),))
    found = replay(options, asked, _no_broker, lambda _: None)
    assert found.verdict is verdict, found.first


def test_what_is_recorded_from_a_capture_is_told_to_be(there: Captured, tmp_path: Path) -> None:
    """Else an audit of the recording would call different what the capture could not tell."""
    recorded = tmp_path / "recorded"
    there.audit(source="captured", record=str(recorded))
    assert holds_arrivals(recorded)
    assert not holds_arrivals(tmp_path / "source")
    assert there.audit(source="recorded").verdict is Outcome.UNPROVABLE


def test_a_recording_that_goes_on_from_a_capture_is_told_to_be(there: Captured, tmp_path: Path) -> None:
    recorded = tmp_path / "recorded"
    end = str(len([r for r in there.source if r.partition == 0]) // 2)
    there.audit(source="source", record=str(recorded), end=end)
    assert not holds_arrivals(recorded)
    there.audit(source="captured", record=str(recorded))
    assert holds_arrivals(recorded)
    assert there.audit(source="recorded").verdict is Outcome.UNPROVABLE


@pytest.mark.parametrize("kind", ["captured", "without"])
@pytest.mark.parametrize("name", ["a", "z"])
@pytest.mark.parametrize("order", [1, -1])
def test_of_the_same_offsets_the_archive_is_read_that_keeps_more(
    there: Captured, kind: str, name: str, order: int
) -> None:
    """Whatever the names of the archives and the order in which they are given."""
    _spark(there.folder / "without", there.source, headers=False)
    (there.folder / "source").rename(there.folder / name)
    both = (str(there.folder / kind), str(there.folder / name))[::order]
    assert there.audit(source="", archives=both).verdict is Outcome.PROVEN


@pytest.mark.parametrize("kind", ["captured", "without"])
def test_where_archives_overlap_the_one_is_read_that_keeps_more(there: Captured, kind: str, tmp_path: Path) -> None:
    _spark(there.folder / "without", there.source, headers=False)
    own = [r for r in there.source if r.partition == 0]
    low, high, end = own[9].offset, own[19].offset, own[-1].offset + 1
    Captured._kept(tmp_path / "some", [r for r in own if low <= r.offset < high])
    both = [str(tmp_path / "some"), str(tmp_path / kind)]
    laid = Archives(both, SOURCE, CAPTURE).laid(0, 0, end)
    parts = [(Path(part.path).name, part.begin, part.end) for part in laid.parts]
    assert parts == [(kind, 0, low), ("some", low, high), (kind, high, end)]


@pytest.mark.parametrize("name", ["a", "z"])
def test_of_the_same_offsets_the_archive_is_read_that_names_markers(there: Captured, name: str) -> None:
    """What another program exported says nothing of offsets without a record: read first, each would be a hole."""
    key = (SOURCE, 0)
    with Recorder(there.folder / "ours", files=".jsonl") as ours, (there.folder / f"{name}.jsonl").open("wb") as other:
        for at in range(0, 600, 2):
            record = ArchivedRecord(*key, at, at, b"k", b"{}", ())
            if at:
                ours.write(Gap(*key, at - 1, at - 1, GapKind.MARKER))
            ours.write(record)
            other.write(encode_line(record))
    laid = Archives([str(there.folder / f"{name}.jsonl"), str(there.folder / "ours")], SOURCE, CAPTURE).laid(0, 0, 599)
    assert [(Path(part.path).name, part.begin, part.end) for part in laid.parts] == [("ours", 0, 599)]


def test_a_capture_with_another_value_contradicts_the_other_archive(there: Captured) -> None:
    changed = [msgspec.structs.replace(there.source[0], value=b"{}"), *there.source[1:]]
    _capture(there.folder / "another", changed)
    with pytest.raises(CorruptLog, match="offset 0 differs"):
        there.audit(source="", archives=(str(there.folder / "another"), str(there.folder / "source")))


def _spark(folder: Path, records: list[ArchivedRecord], *, headers: bool) -> Path:
    """The files of Spark's Kafka source, with `includeHeaders` or, as by default, without."""
    columns: dict[str, Any] = {
        "topic": [r.topic for r in records],
        "partition": pa.array([r.partition for r in records], pa.int32()),
        "offset": [r.offset for r in records],
        "timestamp": pa.array([r.timestamp for r in records], pa.timestamp("ms", "UTC")),
        "timestampType": pa.array([0 for _ in records], pa.int32()),
        "key": pa.array([r.key for r in records], pa.binary()),
        "value": pa.array([r.value for r in records], pa.binary()),
    }
    if headers:
        kind = pa.list_(pa.struct([("key", pa.string()), ("value", pa.binary())]))
        own = [[{"key": name, "value": content} for name, content in r.headers] for r in records]
        columns["headers"] = pa.array(own, kind)
    folder.mkdir()
    pq.write_table(pa.table(columns), folder / "part-0.parquet")
    return folder


def test_a_source_without_headers_is_not_provable_where_it_disagrees(there: Captured) -> None:
    _spark(there.folder / "with", there.source, headers=True)
    _spark(there.folder / "without", there.source, headers=False)
    assert there.audit(source="with").verdict is Outcome.PROVEN
    found = there.audit(source="without")
    assert found.verdict is Outcome.UNPROVABLE, found.first
    assert all("no headers" in finding.why for finding in found.first)
    there.change(_lie)
    assert there.audit(source="without", output="changed").verdict is Outcome.UNPROVABLE


def test_an_archive_without_headers_and_another_of_the_same_offsets_agree(there: Captured) -> None:
    _spark(there.folder / "without", there.source, headers=False)
    both = (str(there.folder / "without"), str(there.folder / "source"))
    assert there.audit(source="", archives=both).verdict in (Outcome.PROVEN, Outcome.UNPROVABLE)
    late = [msgspec.structs.replace(there.source[0], timestamp=there.source[0].timestamp + 1), *there.source[1:]]
    _spark(there.folder / "another", late, headers=False)
    with pytest.raises(CorruptLog, match="offset 0 differs"):
        there.audit(source="", archives=(str(there.folder / "another"), str(there.folder / "source")))


def test_what_is_recorded_without_headers_is_told_to_be(there: Captured, tmp_path: Path) -> None:
    """Else an audit of the recording would call different what the headers may explain."""
    _spark(there.folder / "without", there.source, headers=False)
    recorded = tmp_path / "recorded"
    there.audit(source="without", record=str(recorded))
    assert lacks_headers(recorded)
    assert not lacks_headers(tmp_path / "source")
    assert there.audit(source="recorded").verdict is Outcome.UNPROVABLE


def test_an_output_without_headers_is_refused(there: Captured) -> None:
    """Its records would all be extra, and what the log implies missing."""
    folder = _spark(there.folder / "without", list(there.published()), headers=False)
    with pytest.raises(ArchiveError, match="no column `headers`"):
        there.audit(source="source", output="without")
    (there.folder / "list.json").write_text('[{"id": "step_1", "object": "thread.run.step", "status": "completed"}]')
    with pytest.raises(ArchiveError, match="no column `headers`"):
        reconcile([there.folder / "list.json"], settings(), _no_broker, published=[folder])


def test_one_file_of_a_folder_is_enough(there: Captured) -> None:
    _spark(there.folder / "with", there.source, headers=True)
    without = _spark(there.folder / "without", there.source, headers=False)
    assert not lacks_headers(there.folder / "with")
    (without / "part-0.parquet").rename(there.folder / "with" / "part-1.parquet")
    assert lacks_headers(there.folder / "with")
    (there.folder / "captured" / "more.jsonl").write_bytes(b"")
    assert holds_arrivals(there.folder / "captured")
