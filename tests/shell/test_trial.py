"""The short form of the trial (`make trial`): forgeries leave a trace, and honest worlds are not accused."""

from __future__ import annotations

from pathlib import Path

from processor.archives import ArchivedRecord, Recorder
from processor.audit.report.manifest import Outcome
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


def test_a_forgery_is_found_in_parquet_as_in_memory(tmp_path: Path) -> None:
    """Archives of other formats, through the whole replay."""
    archived = Archived(tmp_path, seed=6)
    found = {}
    for suffix in (".jsonl", ".parquet"):
        with Recorder(tmp_path / suffix, files=suffix) as recorder:
            for (topic, partition), log in sorted(world(6, runs=20).topics.items()):
                for at, r in enumerate(log):
                    value = r.value if at or topic == "dead" else b"{}"
                    recorder.write(ArchivedRecord(topic, partition, at, r.timestamp, r.key, value, r.headers))
        result = archived.audit(published=(str(tmp_path / suffix),))
        assert result.verdict is Outcome.DIFFERENT
        found[suffix] = result.counts, [finding.identity for finding in result.first]
    assert found[".jsonl"] == found[".parquet"]
