"""Requests spoiled at random, and late copies at random, for some seconds. Long: `python -m tests.faults`."""

from __future__ import annotations

from pathlib import Path

from tests.faults import late, trouble
from tests.faults.conftest import Behind
from tests.faults.lab import Tally


def test_late_copies_at_random(behind: Behind, tmp_path: Path) -> None:
    tally = Tally("barrage", 1)
    late.barrage(behind.cluster, tmp_path, tally, 12)
    assert tally.faults > 5
    tally.require_right()


def test_requests_spoiled_at_random(behind: Behind, tmp_path: Path) -> None:
    tally = Tally("spoiled", 1)
    trouble.spoiled(behind.cluster, tmp_path, tally, 12, every_s=0.5)
    assert tally.faults > 3
    tally.require_right()


def test_a_stranger_with_a_workers_transactional_id(behind: Behind, tmp_path: Path) -> None:
    tally = Tally("hijack", 1)
    trouble.hijack(behind.cluster, tmp_path, tally, 4)
    assert tally.faults > 0
    tally.require_right()
