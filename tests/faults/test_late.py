"""One request of the worker reaches the broker twice, the second time late: nothing is lost, nothing doubled.

The long forms, with kills and random moments: `python -m tests.faults`.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults import late
from tests.faults.conftest import Behind
from tests.faults.lab import Tally


@pytest.mark.parametrize("name", ["claim", "offsets-inside", "end-inside", "end-slow-produce", "produce-inside"])
def test_a_late_copy(behind: Behind, tmp_path: Path, name: str) -> None:
    tally = Tally(name, 1)
    late.aimed(behind.cluster, tmp_path, tally, late.AIMS[name], with_replay=False)
    assert tally.faults == 1
    tally.require_right()


@pytest.mark.parametrize("name", ["offsets-inside", "end-slow-produce", "add-offsets"])
def test_a_late_copy_of_a_classic_transaction(behind_classic: Behind, tmp_path: Path, name: str) -> None:
    tally = Tally(name, 2)
    late.aimed(behind_classic.cluster, tmp_path, tally, late.AIMS[name], with_replay=False)
    assert tally.faults == 1
    tally.require_right()
