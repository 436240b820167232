"""RUN_STEPS_EXAMPLES counts for every property, also for one with a number of examples of its own."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests import examples


@pytest.mark.parametrize(
    ("said", "usual", "count"),
    [(40, 300, 300), (40, 6, 6), (5, 400, 50), (5, 6, 1), (10, 150, 37), (400, 150, 1500)],
)
def test_the_examples_of_a_property_are_in_proportion(
    monkeypatch: pytest.MonkeyPatch, said: int, usual: int, count: int
) -> None:
    monkeypatch.setattr(examples, "EXAMPLES", said)
    assert examples.examples(usual) == count


def test_no_property_has_a_number_of_its_own() -> None:
    for path in Path(__file__).parent.rglob("*.py"):
        assert not re.findall(r"max_examples=\d+", path.read_text("utf-8")), path
