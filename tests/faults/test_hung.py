"""A broker of three hangs, and the workers go on with the others.

The long form: `python -m tests.faults --only hung`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults import hung
from tests.faults.cluster import Cluster
from tests.faults.lab import Tally


@pytest.mark.parametrize("role", ["source", "group"])
def test_a_hung_broker(three: Cluster, tmp_path: Path, figures: Callable[[str], None], role: str) -> None:
    tally = Tally(f"hung-{role}", 1)
    hung.hung(three, tmp_path, tally, (role,))
    figures(f"longest time in which a partition did not move: {tally.recoveries_s[0]} s")
    tally.require_right()
    assert tally.recoveries_s[0] <= hung.WITHIN_S
