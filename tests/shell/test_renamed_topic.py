"""An outcome topic that was renamed at rest: how docs/auditors-guide.md says that it is audited."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import pytest
from msgspec.structs import replace as changed

from processor.archives import ArchivedRecord
from processor.archives.jsonl import encode_line
from processor.audit.replay.command import replay
from processor.audit.replay.options import Options
from processor.audit.replay.outcome import Replayed
from processor.audit.report.manifest import Outcome
from processor.config.settings import Settings
from processor.core import headers as evidence
from tests.shell.mutations import OUTCOMES
from tests.shell.test_audit_captures import Captured
from tests.shell.test_replay import settings

CHANGE: Final = 60
"""The source offset, on each partition, from which on steps are published under the new name."""
OLD, NEW = OUTCOMES["completed"], "out.done"
FURTHER: Final = 10**12
RENAMED: Final = settings().model_copy(update={"output": settings().output.model_copy(update={"completed": NEW})})


def _cause(record: ArchivedRecord) -> int:
    headers = dict(record.headers)
    if mark := headers.get(evidence.CLOCK_MARK):
        return int(mark.partition(b"@")[2]) - 1
    return int(headers[evidence.LAST_OFFSET] or b"")


class Renamed:
    """The source, and the output as it stands on the topics: JSON lines."""

    def __init__(self, folder: Path) -> None:
        there = Captured(folder)
        self.source, self.lines, ends = folder / "source", list[bytes](), dict[tuple[str, int], int]()
        for record in there.published():
            topic = NEW if record.topic == OLD and _cause(record) >= CHANGE else record.topic
            offset = ends.get((topic, record.partition), 0)
            ends[topic, record.partition] = offset + 1
            self.lines.append(encode_line(changed(record, topic=topic, offset=offset)))
        self.published = folder / "published.jsonl"

    def audit(self, of: Settings, **options: Any) -> Replayed:
        self.published.write_bytes(b"".join(self.lines))
        asked = Options(archives=(str(self.source),), published=(str(self.published),), **options)
        return replay(asked, of, lambda: pytest.fail("no broker is asked"), lambda _: None)


@pytest.fixture
def renamed(tmp_path: Path) -> Renamed:
    return Renamed(tmp_path)


def test_each_name_is_audited_over_its_own_range(renamed: Renamed) -> None:
    assert renamed.audit(settings(), end=str(CHANGE)).verdict is Outcome.PROVEN
    assert renamed.audit(RENAMED, start=str(CHANGE)).verdict is Outcome.UNPROVABLE
    assert renamed.audit(RENAMED).verdict is Outcome.DIFFERENT  # what stands under the old name is missing


def test_archives_of_both_names_laid_end_to_end_prove_the_whole(renamed: Renamed) -> None:
    lines = list(map(json.loads, renamed.lines))
    old = [one | {"topic": NEW} for one in lines if one["topic"] == OLD]
    new = [one | {"offset": one["offset"] + FURTHER} for one in lines if one["topic"] == NEW]
    rest = [one for one in lines if one["topic"] not in (OLD, NEW)]
    assert old
    assert new
    renamed.lines = [json.dumps(one).encode() + b"\n" for one in (*old, *new, *rest)]
    assert renamed.audit(RENAMED).verdict is Outcome.PROVEN
    renamed.lines.pop(0)
    assert renamed.audit(RENAMED).verdict is not Outcome.PROVEN
