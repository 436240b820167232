"""The short form of the trial (`make trial`): forgeries leave a trace, and honest worlds are not accused."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path

from processor.archives import ArchivedRecord, Recorder
from processor.audit.report.manifest import Outcome
from tests.capture_files import captured, write_capture
from tests.shell.mutations import world
from tests.shell.test_replay import Archived
from tests.trial.__main__ import judged, table, tried
from tests.trial.adversary import KINDS
from tests.trial.honest_worlds import WORLDS


def test_no_forgery_is_proven_without_a_trace(tmp_path: Path) -> None:
    forgeries = list(tried(48, seed=5, work=tmp_path, per_world=16))
    assert {one.kind for one in forgeries} == set(KINDS)
    unseen = [one for one in forgeries if one.how in ("unseen", "accused")]
    assert not unseen, table(forgeries, [])


def test_no_honest_world_is_accused(tmp_path: Path) -> None:
    worlds = list(judged(2 * len(WORLDS), seed=5, work=tmp_path))
    wrong = [one for one in worlds if not one.is_right]
    assert not wrong, wrong
    assert {one.outcome for one in worlds} == {"proven", "unprovable"}


def test_a_forgery_is_found_in_archives_of_every_format(tmp_path: Path) -> None:
    """JSON lines, Parquet and Capture, through the whole replay."""
    archived = Archived(tmp_path, seed=6)
    found = {}
    for suffix in (".jsonl", ".parquet", ".avro"):
        forged = [
            ArchivedRecord(topic, p, at, r.timestamp, r.key, r.value if at or topic == "dead" else b"{}", r.headers)
            for (topic, p), log in sorted(world(6, runs=20).topics.items())
            for at, r in enumerate(log)
        ]
        if suffix == ".avro":
            for (topic, partition), log in groupby(forged, key=lambda r: (r.topic, r.partition)):
                write_capture(tmp_path / suffix, topic, partition, [captured(record) for record in log], "deflate")
        else:
            with Recorder(tmp_path / suffix, files=suffix) as recorder:
                for record in forged:
                    recorder.write(record)
        result = archived.audit(published=(str(tmp_path / suffix),))
        assert result.verdict is Outcome.DIFFERENT
        found[suffix] = result.counts, [finding.identity for finding in result.first]
    assert found[".jsonl"] == found[".parquet"] == found[".avro"]
