"""Findings on the page: grouped by verdict and cause, and what each extra record is beside."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from processor.audit.judge.verdicts import Difference, Finding, FindingKind, Verdict
from processor.audit.report import findings
from processor.audit.report.findings import findings_of, grouped
from processor.audit.report.lens import Lens
from processor.audit.report.tables import Tables
from tests.shell.reports import make


def lens_of(folder: Path, *found: Finding) -> Lens:
    tables = Tables(folder / "tables", 0)
    for finding in found:
        tables.finding(finding)
    return Lens(folder, [f"tables/{name}" for name in tables.close()])


def step(
    number: int, verdict: Verdict, why: str = "", *, of: str = "", at: int | None = None, paths: tuple[str, ...] = ()
) -> Finding:
    place = ("out", 1, number if at is None else at)
    fields = tuple(Difference(path, "1", "2") for path in paths)
    return Finding(verdict, FindingKind.STEP, 0, (of or f"s{number}", "0"), number, number, place, why, fields)


def test_findings_are_grouped_by_verdict_and_cause(tmp_path: Path) -> None:
    """Numbers and positions in lists make no group of their own; disagreements come first, then the largest."""
    extra = [step(n, Verdict.EXTRA, f"the log ends at {n}") for n in range(3)]
    changed = [step(n, Verdict.DIFFERENT, paths=("value.b[3].c", f"value.b[{n}].c", "key")) for n in range(5)]
    open_ones = [step(n, Verdict.UNVERIFIABLE, "it began before") for n in range(9)]
    moved = [step(n, Verdict.OUT_OF_ORDER, f"step x{n} is before it") for n in range(2)]
    with lens_of(tmp_path, *open_ones, *extra, *changed, *moved, step(99, Verdict.EQUAL)) as lens:
        groups = grouped(lens, findings_of(lens))
    assert [(group.verdict, group.cause, group.total, len(group.found)) for group in groups] == [
        ("different", "key, value.b[].c", 5, 5),
        ("extra", "the log ends at N", 3, 3),
        ("out_of_order", "", 2, 2),
        ("unverifiable", "it began before", 9, 9),
    ]


def test_an_extra_record_names_the_equal_one_beside_it(tmp_path: Path) -> None:
    found = [
        step(1, Verdict.EQUAL, of="s", at=7),
        step(1, Verdict.EXTRA, "the log does not imply it", of="s", at=8),
        step(2, Verdict.EXTRA, "the log does not imply it", of="alone", at=9),
        step(3, Verdict.DIFFERENT, of="s", paths=("key",)),
    ]
    with lens_of(tmp_path, *found) as lens:
        rows = {(one.identity_1, one.verdict): one for one in findings_of(lens)}
    beside = rows["s", "extra"]
    assert (beside.same_topic, beside.same_partition, beside.same_offset) == ("out", 1, 7)
    assert rows["alone", "extra"].same_topic is None
    assert rows["s", "different"].same_topic is None


def test_causes_without_end_become_one_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(findings, "GROUPS", 3)
    with lens_of(tmp_path, *(step(n, Verdict.EXTRA, "because " + "x" * n) for n in range(10))) as lens:
        groups = grouped(lens, findings_of(lens))
    assert [(group.verdict, group.total, len(group.found)) for group in groups] == [
        ("extra", 1, 1), ("extra", 1, 1), ("extra", 1, 1), ("", 7, 7),
    ]  # fmt: skip


def test_of_many_findings_the_first_of_each_group_are_shown_in_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(findings, "ALL_IN_FULL", 10)
    monkeypatch.setattr(findings, "IN_FULL", 4)
    wrong = (Verdict.EXTRA,) * 30 + (Verdict.UNVERIFIABLE,) * 30
    make(tmp_path / "r", partitions=1, steps=60, wrong=wrong)
    page = (tmp_path / "r" / "report.html").read_text("utf-8")
    assert page.count('<details class="finding"') == 10
    assert page.count('<li id="finding-') == 50
    assert page.count('<span class="badge undecided">unverifiable</span><span>') == 4
    assert sorted(int(n) for n in re.findall(r'id="finding-(\d+)"', page)) == list(range(1, 61))
    assert page.index('id="time"') < page.index('id="each"'), "charts stay above many findings"


def test_few_findings_stand_above_the_charts_and_none_leave_the_page_as_it_is(tmp_path: Path) -> None:
    make(tmp_path / "few", partitions=1, steps=12, wrong=(Verdict.EXTRA,) * 5)
    page = (tmp_path / "few" / "report.html").read_text("utf-8")
    assert page.index('id="finding-1"') < page.index('id="time"')
    make(tmp_path / "none", partitions=1, steps=12)
    page = (tmp_path / "none" / "report.html").read_text("utf-8")
    assert 'class="group"' not in page
    assert 'id="each"' not in page
