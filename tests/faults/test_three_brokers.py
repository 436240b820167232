"""Three brokers, and the one with a role dies, or hangs. All roles, pauses and chance: `python -m tests.faults`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults import brokers
from tests.faults.conftest import Behind, behind_proxy
from tests.faults.lab import Tally


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Behind]:
    """Three brokers behind a proxy."""
    yield from behind_proxy(tmp_path_factory.mktemp("three"), nodes=3)


def test_the_transaction_coordinator_dies(three: Behind, tmp_path: Path) -> None:
    tally = Tally("coordinator", 1)
    brokers.kills(three.cluster, tmp_path, tally, 0, roles=("transactions",))
    assert tally.faults == 1
    tally.require_right()


def test_the_group_coordinator_hangs(three: Behind, tmp_path: Path, figures: Callable[[str], None]) -> None:
    tally = Tally("hung", 1)
    brokers.hung(three.cluster, tmp_path, tally, 0, roles=("group",), is_short=True)
    figures(tally.notes[0])
    assert tally.faults == 1
    tally.require_right()
