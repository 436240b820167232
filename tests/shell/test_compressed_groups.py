"""A worker keeps its ended steps compressed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processor.kafka.compressed_groups import COMPRESSED, compress, decompress
from tests.shell.test_changed_settings import LOG
from tests.shell.test_worker import World, living


@given(st.one_of(st.binary(max_size=2_000), st.binary(min_size=1, max_size=50).map(lambda piece: piece * 8_000)))
def test_what_was_compressed_comes_back(content: bytes) -> None:
    assert decompress(compress(content)) == content


def test_steps_that_look_alike_become_small() -> None:
    steps = b"".join(b'{"id":"step_%d","object":"thread.run.step","status":"completed"}' % n for n in range(500))
    assert len(compress(steps)) < len(steps) / 3


async def test_the_partitions_of_a_worker_compress(monkeypatch: pytest.MonkeyPatch) -> None:
    async with living(World({0: LOG}), monkeypatch) as life:
        await life.assign(0)
        await life.applied()
        assert [owned.state._grouping for owned in life.worker._owned.values()] == [COMPRESSED]
        await life.finished()
