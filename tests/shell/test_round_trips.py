"""Whatever a broker accepts as a record comes through fold, dead letter, archive and reader to the byte."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processor.archives import ArchivedRecord, Recorder, read
from processor.core.effects import DeadLetter, LogRecord
from processor.core.header_names import name_bytes, name_text
from processor.core.partition import PartitionState
from processor.core.rules import Rules
from tests.examples import examples

_int64 = st.integers(-(1 << 63), (1 << 63) - 1) | st.sampled_from([-(1 << 63), -5, -1, 0, (1 << 63) - 1])
_content = st.none() | st.binary(max_size=40) | st.just(b"k" * 1_000_000)
_names = st.binary(max_size=12) | st.sampled_from([b"a", b"\xff", b"", b"ce_type", b"ce_specversion", b"content-type"])
_headers = st.lists(st.tuples(_names, st.none() | st.binary(max_size=20)), max_size=5)


def _is_ours(name: bytes) -> bool:
    return name.startswith((b"runstep-", b"source-runstep-"))


@pytest.mark.parametrize("kind", [".jsonl", ".jsonl.gz", ".parquet"])
@given(key=_content, value=_content, timestamp=_int64, headers=_headers)
@settings(max_examples=examples(25))
def test_a_record_comes_back_as_it_was_written(
    tmp_path_factory: pytest.TempPathFactory,
    kind: str,
    key: bytes | None,
    value: bytes | None,
    timestamp: int,
    headers: list[tuple[bytes, bytes | None]],
) -> None:
    record = LogRecord(7, timestamp, key, value, tuple((name_text(name), content) for name, content in headers))
    effects = PartitionState("in", 0, Rules(), next_offset=7, live_from=7).apply([record])
    letters = [effect for effect in effects if isinstance(effect, DeadLetter)]
    assert len(letters) <= bool(value), "without a value there is nothing to refuse"
    written = [ArchivedRecord("in", 0, 7, timestamp, key, value, record.headers)]
    for letter in letters:
        assert (letter.key, letter.value, letter.timestamp) == (key, value, timestamp)
        own = [(name_bytes(name), content) for name, content in letter.headers]
        assert [pair for pair in own if not _is_ours(pair[0])] == [pair for pair in headers if not _is_ours(pair[0])]
        written.append(ArchivedRecord("dead", 2, 0, timestamp, letter.key, letter.value, tuple(letter.headers)))
    folder: Path = tmp_path_factory.mktemp("archive") / "a"
    with Recorder(folder, files=kind) as recorder:
        for item in written:
            recorder.write(item)
    assert sorted(read(folder), key=repr) == sorted(written, key=repr)
