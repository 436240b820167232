"""The broker goes away between two questions of a worker's start. At each of them: `python -m tests.faults`."""

from __future__ import annotations

from pathlib import Path

from tests.faults import starts
from tests.faults.conftest import Behind
from tests.faults.lab import Tally


def test_an_outage_during_a_start_is_told_as_one(behind: Behind, tmp_path: Path) -> None:
    tally = Tally("start", 1)
    starts.outages(behind.cluster, tmp_path, tally, 0, requests=(1, 6, 12, 15, 20, 26))
    assert tally.faults == 6
    tally.require_right()
