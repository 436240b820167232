"""The check of a bench against the recorded one: what it finds, and what it leaves alone."""

from __future__ import annotations

from typing import Any

import pytest

from tests.bench.check import worse


def row(name: str, unit: str, **ratio_to: float) -> dict[str, Any]:
    return {"name": name, "unit": unit, "ratio_to": ratio_to}


@pytest.mark.parametrize(
    ("unit", "before", "after", "found"),
    [
        ("events/CPU-s", 0.30, 0.25, 0),
        ("events/CPU-s", 0.30, 0.20, 1),
        ("events/CPU-s", 0.30, 0.90, 0),
        ("us", 1.0, 1.3, 0),
        ("us", 1.0, 1.5, 1),
        ("us", 1.0, 0.2, 0),
    ],
)
def test_a_fall_is_found_whichever_way_is_down(unit: str, before: float, after: float, found: int) -> None:
    assert len(list(worse([row("a", unit, loop=before)], [row("a", unit, loop=after)]))) == found


def test_only_what_both_have_is_compared() -> None:
    recorded = [row("a", "us", loop=1.0), row("gone", "us", loop=1.0)]
    now = [row("a", "us", other=9.0), row("new", "us", loop=9.0), row("plain", "us")]
    assert list(worse(recorded, now)) == []
