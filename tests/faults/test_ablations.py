"""The registry of safeguards is about the code as it stands; that each is missed is for `make faults` to see."""

from __future__ import annotations

import re

import pytest

from tests.faults.ablations import ROOT, SAFEGUARDS, Safeguard


@pytest.mark.parametrize("safeguard", SAFEGUARDS, ids=lambda safeguard: safeguard.name)
def test_a_safeguard_can_be_taken_out(safeguard: Safeguard) -> None:
    text = (ROOT / safeguard.file).read_text()
    assert text.count(safeguard.text) == 1, (
        f"{safeguard.name}: {safeguard.file} does not have its text exactly once any more: if the safeguard moved, "
        "say in tests/faults/ablations.py how it reads now; if it is gone for good, remove the row"
    )
    for test in safeguard.tests:
        path, _, name = test.partition("::")
        assert (ROOT / path).is_file(), path
        if name:
            assert re.search(rf"def {name.partition('[')[0]}\b", (ROOT / path).read_text()), test


def test_the_page_has_each_of_them() -> None:
    rows = (ROOT / "docs" / "reliability.md").read_text().splitlines()
    for safeguard in SAFEGUARDS:
        (row,) = [row for row in rows if row.startswith(f"| `{safeguard.name}`: {safeguard.title} | ")]
        for test in safeguard.tests:
            assert (test.partition("::")[2] or test) in row, safeguard.name


def test_their_names_are_different() -> None:
    assert len({safeguard.name for safeguard in SAFEGUARDS}) == len(SAFEGUARDS)
