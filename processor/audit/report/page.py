"""report.html: one file, no network, the verdict first. The only importer of jinja2.

The template escapes every text from records, and invisible or direction-changing characters are spelled out. The page
may run one script and one style, both named by digest in its own policy; without the script only sorting and filtering
do not work.
"""

from __future__ import annotations

import unicodedata
from base64 import b64encode
from collections.abc import Sequence
from datetime import UTC, datetime
from hashlib import sha256
from itertools import groupby
from pathlib import Path
from typing import Any, Final

import jinja2
import msgspec
from markupsafe import Markup

from processor.audit.judge.range_result import RangeResult
from processor.audit.judge.verdicts import DISAGREES, FindingKind, Verdict
from processor.audit.report import charts, summary
from processor.audit.report.findings import Found, Group
from processor.audit.report.lens import Lens
from processor.audit.report.manifest import ACCOUNTED, PAGE, Manifest, Outcome, not_judged, open_questions
from processor.audit.report.summary import OUTCOMES, Summary

WIDE: Final = 960
NARROW: Final = 320
"""Charts are drawn twice, for a desktop and for a phone; the style shows one of them."""

FEW: Final = 20
"""Findings that are shown above the charts; more are below."""

_PARTITIONS: Final = 200
_FILES: Final = 500
_COVERAGE: Final = ("data", "marker", "aborted", "compacted", "missing", "unknown")
_LAYERS: Final = (*OUTCOMES, "dead_letter")
_TEMPLATES: Final = Path(__file__).parent / "templates"

_HEADLINES: Final = {
    Outcome.PROVEN: "Proven",
    Outcome.DIFFERENT: "Difference found",
    Outcome.UNPROVABLE: "Not provable",
}

VERDICTS: Final = {
    Verdict.EQUAL: "equals what the log implies, byte for byte",
    Verdict.DIFFERENT: "was published, but not as the log implies",
    Verdict.MISSING: "is implied by the log and was not published",
    Verdict.EXTRA: "was published, and the log does not imply it",
    Verdict.DUPLICATE: "was published more than once",
    Verdict.OUT_OF_ORDER: "is out of the order in which records were caused",
    Verdict.UNVERIFIABLE: "cannot be decided from this range",
}

_OFFSETS: Final = {
    "data": "records, read and folded",
    "marker": "transaction markers",
    "aborted": "records of aborted transactions",
    "compacted": "compacted away",
    "missing": "missing",
    "unknown": "without a record, the archive does not say why",
}


def render(manifest: Manifest, folder: Path) -> bytes:
    """Draw the page of a report folder whose tables are in place.

    Args:
        manifest: sealed; its digest of the page itself is neither needed nor shown.

    Raises:
        ReportError: a table is not what the schema says.
    """
    stream_times = {one.partition: one.stream_time for one in manifest.ranges}
    with Lens(folder, [name for name in manifest.files if name != PAGE]) as lens:
        told = summary.summarise(lens, stream_times)
    style = (_TEMPLATES / "report.css").read_text("utf-8").strip()
    script = (_TEMPLATES / "report.js").read_text("utf-8").strip()
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(shown=shown, number=number, when=when, lasted=lasted, words=words)
    page = environment.get_template(
        "report.html.j2"
    ).render(
        policy=_policy(style, script),
        style=Markup(style),  # noqa: S704  both are our own files
        script=Markup(script),  # noqa: S704
        m=manifest,
        s=told,
        headline=_HEADLINES[manifest.verdict],
        tone=manifest.verdict.name.lower(),
        sentence=_sentence(manifest),
        first=_finding(1, told.findings[0]) if manifest.verdict is Outcome.DIFFERENT and told.findings else None,
        covered=_covered(manifest),
        tiles=_tiles(manifest),
        not_judged=not_judged(manifest.about, manifest.ranges),
        questions=open_questions(manifest.about, manifest.ranges)[:50],
        judged=_judged(manifest),
        verdicts={verdict.value: meaning for verdict, meaning in VERDICTS.items()},
        partitions=_partitions(manifest.ranges),
        partitions_total=len(manifest.ranges),
        coverage_kinds=_COVERAGE,
        coverage_meaning=_OFFSETS,
        groups=_groups(told),
        findings_shown=len(told.findings),
        few=told.findings_total <= FEW,
        finding_counts=_finding_counts(manifest),
        layers=_LAYERS,
        over_time=_over_time(told),
        durations=_durations(told),
        anomalies=_lying("Anomalies by kind", told.anomalies, "anomaly"),
        inferred=_lying("Ends inferred, by how", told.inferred, "anomaly"),
        reasons=_lying("Dead letters by reason", told.reasons, "dead_letter"),
        files=sorted((name, file) for name, file in manifest.files.items() if name != PAGE)[:_FILES],
        files_total=sum(name != PAGE for name in manifest.files),
        rules=msgspec.to_builtins(manifest.about.rules),
        unowned=_unowned(manifest),
        in_force=[(one.partition, row) for one in manifest.ranges for row in one.in_force][:_PARTITIONS],
        narrowed={name: ids for name, ids in manifest.about.narrowed.items() if ids},
    )
    return (page.rstrip() + "\n").encode()


def _policy(style: str, script: str) -> str:
    def named(text: str) -> str:
        return f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"

    return (
        f"default-src 'none'; style-src {named(style)}; script-src {named(script)}; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


# --- words --------------------------------------------------------------------------------------------------


def shown(text: object, limit: int = 300) -> str:
    """Text from outside for display: bounded, with invisible and direction-changing characters spelled out."""
    whole = str(text)
    kept = whole if len(whole) <= limit else whole[:limit]
    spelled = "".join(
        c if unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp") else f"\\u{ord(c):04x}"
        for c in kept
    )
    return spelled if len(whole) <= limit else f"{spelled}… ({len(whole):,} characters)"


def number(n: int) -> str:
    """1234567 as 1,234,567."""
    return f"{n:,}"


def words(name: str) -> str:
    """A wire word for a sentence: out_of_order as "out of order"."""
    return name.replace("_", " ")


def when(milliseconds: int | None) -> str:
    """Milliseconds since 1970 as a date and time of UTC; what no calendar holds stays a number."""
    if milliseconds is None:
        return "–"
    moment = _moment(milliseconds)
    if moment is None:
        return f"{milliseconds} ms"
    return f"{moment:%Y-%m-%d %H:%M:%S}.{milliseconds % 1000:03d} UTC"


def _moment(milliseconds: int) -> datetime | None:
    # The first and last days of the calendar are left out: no records have them, and half of datetime fails on them.
    if not -60_000_000_000_000 < milliseconds < 250_000_000_000_000:
        return None
    return datetime.fromtimestamp(milliseconds // 1000, UTC)


def lasted(milliseconds: int) -> str:
    """A duration in its two largest units: 340 ms, 12.4 s, 3 min 4 s, 2 h 5 min, 3 d 4 h."""
    if milliseconds < 1_000:
        return f"{milliseconds} ms"
    if milliseconds < 60_000:
        return f"{milliseconds / 1000:.1f} s"
    seconds = milliseconds // 1000
    for size, unit, below, rest in ((86_400, "d", 3_600, "h"), (3_600, "h", 60, "min"), (60, "min", 1, "s")):
        if seconds >= size:
            first, second = seconds // size, seconds % size // below
            return f"{first:,} {unit} {second} {rest}" if second else f"{first:,} {unit}"
    raise AssertionError("unreachable: a minute or more has a unit")


def _several(n: int, one: str, many: str = "") -> str:
    return f"{n:,} {one if n == 1 else many or one + 's'}"


# --- the verdict --------------------------------------------------------------------------------------------


def _count(manifest: Manifest, *verdicts: Verdict, kind: FindingKind | None = None) -> int:
    return sum(
        n
        for name, own in manifest.counts.items()
        if kind is None or name == kind.value
        for verdict, n in own.items()
        if not verdicts or verdict in {v.value for v in verdicts}
    )


def _unowned(manifest: Manifest) -> list[tuple[str, int, str]]:
    """(Claim of records, their number, the locations of the first)."""
    found = []
    for what, claims in (
        ("source", manifest.about.not_judged.sources),
        ("partition", manifest.about.not_judged.partitions),
    ):
        for claim, number in claims.named.items():
            places = ", ".join(f"{topic}-{p} at {offset}" for topic, p, offset in claims.first.get(claim, ()))
            found.append((f"{what} {claim}", number, places))
    return found


def _sentence(manifest: Manifest) -> str:
    steps = _several(_count(manifest, kind=FindingKind.STEP), "step record")
    letters = _several(_count(manifest, kind=FindingKind.DEAD_LETTER), "dead letter")
    if manifest.verdict is Outcome.PROVEN:
        if not _count(manifest):
            return "Nothing was published for this range, and the log implies nothing."
        return (
            f"All that was published for this range equals what the log implies, byte for byte: {steps} and {letters}."
        )
    if manifest.verdict is Outcome.DIFFERENT:
        wrong = _count(manifest, *DISAGREES)
        return f"{wrong:,} of {steps} and {letters} {'disagrees' if wrong == 1 else 'disagree'} with the log."
    if not manifest.about.verified:
        return "This is what the log implies. What was published is not judged:"
    equal = _several(_count(manifest, Verdict.EQUAL), "record")
    return f"No disagreement was found and {equal} equal what the log implies, but this range does not prove it all:"


def _covered(manifest: Manifest) -> str:
    ranges = manifest.ranges
    partitions = len({one.partition for one in ranges})
    offsets = sum(one.end - one.begin for one in ranges)
    records = sum(one.records for one in ranges)
    text = (
        f"{_several(partitions, 'partition')} of {shown(manifest.about.topic)}, {_several(offsets, 'offset')}, "
        f"{_several(records, 'record')}"
    )
    if redriven := sum(one.redriven for one in ranges):
        text += f" ({redriven:,} of them put back by a redrive of dead letters, as their headers say)"
    stamps = [(one.first_ms, one.last_ms) for one in ranges if one.records]
    if stamps:
        text += f", with record times from {when(min(a for a, _ in stamps))} to {when(max(b for _, b in stamps))}"
    midway = sum(not one.complete for one in ranges)
    if midway == 0:
        return text + ". Every partition from the beginning of its log."
    if midway == len(ranges):
        return text + ". Every range begins in mid-log: what began before it can only be judged in part."
    return text + f". {_several(midway, 'range begins', 'ranges begin')} in mid-log and can only be judged in part."


def _tiles(manifest: Manifest) -> list[tuple[str, str, str]]:
    """(number, what it counts, tone)."""
    wrong, undecided = _count(manifest, *DISAGREES), _count(manifest, Verdict.UNVERIFIABLE)
    hidden = sum(n for kind, n in manifest.coverage.items() if kind not in ACCOUNTED)
    return [
        (number(manifest.coverage.get("data", 0)), "records read and folded", ""),
        (number(_count(manifest, Verdict.EQUAL)), "published as implied", "good" if not wrong else ""),
        (number(wrong), "disagree with the log", "bad" if wrong else ""),
        (number(undecided), "undecided", "open" if undecided else ""),
        (number(hidden), "offsets unaccounted for", "open" if hidden else ""),
    ]


def _judged(manifest: Manifest) -> list[tuple[str, list[tuple[str, int]], int]]:
    """(kind, [(verdict, number)], sum) in the order of the verdicts; kinds that nothing was found of stand too."""
    return [
        (
            kind.value,
            [(verdict.value, manifest.counts.get(kind.value, {}).get(verdict.value, 0)) for verdict in Verdict],
            sum(manifest.counts.get(kind.value, {}).values()),
        )
        for kind in FindingKind
    ]


def _finding_counts(manifest: Manifest) -> list[tuple[str, int]]:
    counts = [(verdict.value, _count(manifest, verdict)) for verdict in Verdict if verdict is not Verdict.EQUAL]
    return [(name, n) for name, n in counts if n]


# --- parts --------------------------------------------------------------------------------------------------


def _partitions(ranges: Sequence[RangeResult]) -> list[dict[str, Any]]:
    return [
        {
            "range": one,
            "strip": charts.strip(
                f"Offsets of partition {one.partition} by kind",
                [(f"c-{kind}", one.coverage.get(kind, 0)) for kind in _COVERAGE],
                width=160,
            ),
            "accounted": sum(n for kind, n in one.coverage.items() if kind in ACCOUNTED),
            "offsets": one.end - one.begin,
        }
        for one in ranges[:_PARTITIONS]
    ]


def _name(found: Found) -> str:
    if not found.identity_1:
        return "a record without evidence"
    return found.identity_1 if found.kind == FindingKind.STEP.value else f"source offset {found.identity_1}"


def _groups(told: Summary) -> list[dict[str, Any]]:
    at = {id(one): number for number, one in enumerate(told.findings, 1)}
    return [
        {
            "row": group,
            "at": number,
            "disagrees": group.verdict in {verdict.value for verdict in DISAGREES},
            "name": _group_name(group),
            "full": [_finding(at[id(one)], one) for one in group.found if one.in_full],
            "brief": [_brief(at[id(one)], one) for one in group.found if not one.in_full],
        }
        for number, group in enumerate(told.groups, 1)
    ]


def _group_name(group: Group) -> str:
    if not group.verdict:
        return "of other causes"
    if group.cause:
        return group.cause
    return VERDICTS[Verdict(group.verdict)] if group.verdict in {v.value for v in Verdict} else group.verdict


def _brief(at: int, found: Found) -> dict[str, Any]:
    """One line of a finding that is not shown in full."""
    of = "" if found.partition < 0 else f"partition {found.partition}, offset {found.cause_offset:,}"
    on = "" if found.topic is None else f"{found.topic}-{found.topic_partition} at {found.topic_offset}"
    hint = found.why or ", ".join(d.path for d in found.differences[:3])
    detail = f"revision {found.identity_2}" if found.kind == FindingKind.STEP.value else found.identity_2
    texts = (words(found.verdict), _name(found), detail if found.identity_1 else "", hint, of, on, _same(found))
    return {"at": at, "texts": [shown(text, 160) for text in texts if text]}


def _same(found: Found) -> str:
    if found.same_topic is None:
        return ""
    what = "a copy of" if found.verdict == Verdict.DUPLICATE.value else "names the same as the equal record"
    return f"{what} {found.same_topic}-{found.same_partition} at {found.same_offset}"


def _finding(at: int, found: Found) -> dict[str, Any]:
    verdict = Verdict(found.verdict) if found.verdict in {v.value for v in Verdict} else None
    is_step = found.kind == FindingKind.STEP.value
    return {
        "at": at,
        "row": found,
        "disagrees": verdict in DISAGREES,
        "name": _name(found),
        "detail": "" if found.identity_1 == "" else f"revision {found.identity_2}" if is_step else found.identity_2,
        "hint": found.why or ", ".join(d.path for d in found.differences[:3]),
        "meaning": VERDICTS[verdict] if verdict is not None else "",
        "is_step": is_step,
        "same": _same(found),
        "more_events": found.events_total - len(found.events),
        "differences": found.differences[:100],
        "more_differences": max(0, len(found.differences) - 100),
    }


def _over_time(told: Summary) -> dict[str, Any]:
    width_ms = told.bar_minutes * 60_000
    long_span = bool(told.minutes) and width_ms * len(told.minutes) > 3 * 86_400_000
    first, last = (_moment(told.minutes[at].begin_ms) for at in (0, -1)) if told.minutes else (None, None)
    one_day = first is not None and last is not None and first.date() == last.date()
    days = f"{first:%Y-%m-%d}" if first is not None and one_day else ""

    def label(begin_ms: int) -> str:
        moment = _moment(begin_ms)
        if moment is None:
            return str(begin_ms)
        if long_span:
            return f"{moment:%Y-%m-%d}"
        return f"{moment:%H:%M}" if one_day else f"{moment:%m-%d %H:%M}"

    bars = [(label(bar.begin_ms), bar.numbers) for bar in told.minutes]
    bars = [  # a day is named once, at its first bar
        (name if at == 0 else "", numbers)
        for name, group in groupby(bars, key=lambda bar: bar[0])
        for at, (_, numbers) in enumerate(group)
    ]
    hints = [
        f"{when(bar.begin_ms)}: "
        + (", ".join(f"{n:,} {words(name)}" for name, n in zip(_LAYERS, bar.numbers, strict=True) if n) or "nothing")
        for bar in told.minutes
    ]
    classes = [f"s-{name}" for name in _LAYERS]
    return {
        "charts": _both("Outcomes over time", bars, classes, hints),
        "width": lasted(width_ms),
        "days": days,
        "totals": [(name, sum(bar.numbers[at] for bar in told.minutes)) for at, name in enumerate(_LAYERS)],
    }


def _durations(told: Summary) -> list[Markup]:
    low = 0
    bars: list[tuple[str, Sequence[int]]] = []
    hints: list[str] = []
    if told.durations and told.durations[0][0] in summary.DURATIONS_MS[1:]:
        low = summary.DURATIONS_MS[summary.DURATIONS_MS.index(told.durations[0][0]) - 1]
    for bound, n in told.durations:
        if bound < 0:
            low = low or summary.DURATIONS_MS[-1]
        bars.append((f"< {_terse(bound)}" if bound > 0 else f"≥ {_terse(low)}", (n,)))
        upto = f"up to {_terse(bound)}" if bound > 0 else "and more"
        hints.append(f"{_terse(low)} {upto}: {_several(n, 'step')}")
        low = bound
    return _both("Steps by duration", bars, ["s-steps"], hints)


def _terse(milliseconds: int) -> str:
    """A round duration for an axis."""
    for size, unit in ((86_400_000, "d"), (3_600_000, "h"), (60_000, "min"), (1_000, "s")):
        if milliseconds >= size:
            return f"{milliseconds // size} {unit}"
    return f"{milliseconds} ms" if milliseconds else "0"


def _both(
    title: str, bars: Sequence[tuple[str, Sequence[int]]], classes: Sequence[str], hints: Sequence[str]
) -> list[Markup]:
    if not any(sum(numbers) for _, numbers in bars):
        return []
    return [charts.stacked(title, bars, classes, width=width, hints=hints) for width in (WIDE, NARROW)]


def _lying(title: str, pairs: Sequence[tuple[str, int]], layer: str) -> list[Markup]:
    rows = [(words(shown(name, 60)), n, f"s-{layer}") for name, n in pairs]
    return [charts.lying(title, rows, width=width) for width in (WIDE // 2 - 20, NARROW)] if rows else []
