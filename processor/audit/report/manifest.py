"""manifest.json: what was audited, under which rules, with which result, and the digest of every byte of evidence.

Two digests, both SHA-256 over JSON with sorted keys as Python's `json.dumps(_, sort_keys=True)` writes it:
`evidence` over all but the page, the time of making, where the records were read from (`HOW_READ`) and the digests
themselves, so that two auditors of the same log get the same one; `root` over all but itself, so that nothing in the
folder can change unseen. The rules are in docs/auditors-guide.md, with a program of its own that checks them.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import Any, Final

import msgspec

from processor.audit.judge.not_judged import Claims, NotJudged
from processor.audit.judge.range_result import RangeResult
from processor.audit.judge.split import Split
from processor.audit.judge.verdicts import DISAGREES, Verdict
from processor.audit.report.tables import FileDigest, digest_of
from processor.core.rules import Rules
from processor.errors import RunStepsError

FORMAT: Final = 2
NAME: Final = "manifest.json"
PAGE: Final = "report.html"
SIGNATURE: Final = "signature.dsse.json"
"""Over manifest.json, so the manifest cannot name it (`signature`)."""
HOW_READ: Final = ("source", "reading")
"""Fields of `About` on how the records were read: read from other files, they are the same evidence."""
CAPTURED: Final = "archives of Event Hubs Capture"
HEADLESS: Final = "archives without headers"
LOSSY: Final = {
    CAPTURED: "other times and fewer headers than the topic",
    HEADLESS: "less than the topic",
}
"""Words of `About.source` for archives that hold other bytes than the topic, and what these keep of it."""
_MAX_BYTES: Final = 256 << 20
_NAMED: Final = 5
"""How many steps, and how many runs, a sentence names."""

ACCOUNTED: Final = frozenset({"data", "marker", "aborted"})
"""Kinds of offsets that hide nothing: a record that was read, a transaction marker, an aborted record."""

UNACCOUNTED: Final = {
    "compacted": "compacted away",
    "missing": "missing",
    "unknown": "of unknown kind (the archive does not say why they hold no record)",
}


class ReportError(RunStepsError):
    """A folder cannot be read as a report."""

    exit_code = 65


class Outcome(StrEnum):
    """The verdict over all."""

    PROVEN = "proven"
    DIFFERENT = "difference found"
    UNPROVABLE = "not provable"


class About(msgspec.Struct, frozen=True, kw_only=True):
    """Options and inputs of a replay. Nothing in it may depend on the machine or the time.

    `source` says in words where the records came from; `narrowed` holds the ids that `--steps`, `--runs`, `--threads`
    named; `notes` are sentences that a reader must know ("an open transaction begins at offset 17 of partition 0");
    `reading` are those that say how the records were read, and are no part of the evidence;
    `verified` is False where published records were not compared; `sole_source` where other sources may be published to
    the same topics; `not_judged` are records there that belong to no range; `held` are (topic, partition, offset) from
    which on an open transaction held output back; `split` are runs and steps on more than one partition of the source.
    """

    program: str
    fold_version: int
    topic: str
    source: str
    rules: Rules
    outcome_topics: dict[str, str]
    dead_letter: str
    output_partitions: dict[str, int] = {}
    narrowed: dict[str, list[str]] = {}
    notes: list[str] = []
    reading: list[str] = []
    verified: bool = True
    sole_source: bool = False
    not_judged: NotJudged = NotJudged()
    held: list[tuple[str, int, int]] = []
    split: Split = Split()


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """manifest.json as it stands on the disk."""

    format: int
    about: About
    rules_digest: str
    ranges: list[RangeResult]
    counts: dict[str, dict[str, int]]
    coverage: dict[str, int]
    verdict: Outcome
    files: dict[str, FileDigest]
    created: str | None = None
    evidence: str = ""
    root: str = ""

    def sealed(self) -> Manifest:
        """Copy the manifest, with `evidence` and `root` computed from its other fields."""
        plain = msgspec.to_builtins(self)
        plain["evidence"] = _evidence(plain)
        return msgspec.structs.replace(self, evidence=plain["evidence"], root=_root(plain))


def lossy_kinds(*, is_captured: bool, is_headless: bool) -> list[str]:
    """The words of `LOSSY` for archives that are so."""
    return [kind for kind, is_so in ((CAPTURED, is_captured), (HEADLESS, is_headless)) if is_so]


def lossy(source: str) -> list[str]:
    """The kinds of archives that hold other bytes than the topic, in an `About.source`: digests of one are not those of
    the other."""
    return [kind for kind in LOSSY if kind in source]


def compose(
    about: About, ranges: Iterable[RangeResult], files: Mapping[str, FileDigest], *, created: str | None
) -> Manifest:
    """Sum up the ranges and seal. `created` is the one thing the input does not decide: None leaves it out."""
    ordered = sorted(ranges, key=lambda r: (r.partition, r.begin))
    counts, coverage = total_counts(ordered), total_coverage(ordered)
    return Manifest(
        format=FORMAT,
        about=about,
        rules_digest=about.rules.digest(),
        ranges=ordered,
        counts=counts,
        coverage=coverage,
        verdict=outcome(about, ordered),
        files=dict(files),
        created=created,
    ).sealed()


def total_counts(ranges: Iterable[RangeResult]) -> dict[str, dict[str, int]]:
    totals: dict[str, Counter[str]] = {}
    for one in ranges:
        for kind, verdicts in one.counts.items():
            totals.setdefault(kind, Counter()).update(verdicts)
    return {kind: dict(verdicts) for kind, verdicts in totals.items()}


def total_coverage(ranges: Iterable[RangeResult]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for one in ranges:
        total.update(one.coverage)
    return dict(total)


def outcome(about: About, ranges: Sequence[RangeResult]) -> Outcome:
    """A disagreement outweighs all. `open_questions` says what else keeps a report from being a proof."""
    counts = total_counts(ranges)
    met = {verdict for verdicts in counts.values() for verdict, n in verdicts.items() if n}
    if met & {verdict.value for verdict in DISAGREES}:
        return Outcome.DIFFERENT
    return Outcome.UNPROVABLE if open_questions(about, ranges) else Outcome.PROVEN


def open_questions(about: About, ranges: Sequence[RangeResult]) -> list[str]:
    """Reasons, in words, why a report without a disagreement is no proof; empty if it is one."""
    found: list[str] = []
    if not about.verified:
        found.append("The published records were not compared.")
    if not any(one.end > one.begin for one in ranges):
        found.append("The range is empty.")
    if about.held:
        where = ", ".join(f"{topic}-{partition}" for topic, partition, _ in about.held[:10])
        found.append(f"What an open transaction holds back on the output topics was not read ({where}).")
    if about.narrowed and not any(sum(verdicts.values()) for verdicts in total_counts(ranges).values()):
        found.append("Nothing in the range has one of the ids that were asked for.")
    for kind, n in sorted(total_coverage(ranges).items()):
        if n and kind not in ACCOUNTED:
            found.append(f"{n:,} {'offset is' if n == 1 else 'offsets are'} {UNACCOUNTED.get(kind, kind)}.")
    for kind, verdicts in sorted(total_counts(ranges).items()):
        n = verdicts.get(Verdict.UNVERIFIABLE.value, 0)
        if n:
            noun = kind.replace("_", " ") + ("" if n == 1 else "s")
            found.append(f"{n:,} {noun} cannot be verified from this range; the findings say why.")
    foreign: Counter[str] = Counter()
    for one in ranges:
        foreign.update(one.foreign)
    found += [f"{n:,} published record{' was' if n == 1 else 's were'} {what}." for what, n in sorted(foreign.items())]
    for one in ranges:
        found += [f"Partition {one.partition}: {what}" for what in one.trouble]
    return found


def not_judged(about: About, ranges: Sequence[RangeResult]) -> list[str]:
    """Records on the output topics that the verdict does not cover, in words; empty if it covers all.

    A record may claim what it likes: what is let go because of its claim is said wherever the verdict is.
    """
    found: list[str] = []
    behind = sum(one.caused_behind for one in ranges)
    before = sum(one.out_of_range for one in ranges) - behind
    if before:
        found.append(f"{_records(before)} a cause before the range.")
    if behind:
        found.append(f"{_records(behind)} a cause behind the range.")
    if n := sum(one.unbounded_marks for one in ranges):
        found.append(
            f"{_records(n)} a clock mark at the end of the range: they equal what it gives, but what follows there was "
            "not read, and could contradict the mark."
        )
    if n := about.not_judged.sources.total():
        found.append(f"{_records(n)} another source: {_listed(about.not_judged.sources)}.")
    if n := about.not_judged.partitions.total():
        found.append(f"{_records(n)} a partition that was not audited: {_listed(about.not_judged.partitions)}.")
    if about.split:
        found.append(_split(about.split))
    return found


def _split(split: Split) -> str:
    kinds = (("step", split.steps, split.first_steps), ("run", split.runs, split.first_runs))
    counted = [f"{n:,} {kind}{'' if n == 1 else 's'}" for kind, n, _ in kinds if n]
    named = [
        f"{kind} {name:.100} on {', '.join(map(str, partitions))}"
        for kind, _, first in kinds
        for name, partitions in list(first.items())[:_NAMED]
    ]
    stand = "stands" if split.steps + split.runs == 1 else "stand"
    return (
        f"{' and '.join(counted)} {stand} on more than one partition of the source: each partition is judged for "
        "itself, so such a step has a life and an end on each, and they may contradict each other "
        f"({'; '.join(named)})."
    )


def _records(n: int) -> str:
    return f"{n:,} published record{' names' if n == 1 else 's name'}"


def _listed(claims: Claims, most: int = 10) -> str:
    """Claims and their numbers, for a sentence."""
    listed = [f"{claim} ({n:,})" for claim, n in list(claims.named.items())[:most]]
    rest = claims.total() - sum(list(claims.named.values())[:most])
    return ", ".join(listed) + (f", and {rest:,} records that name more" if rest else "")


def encoded(manifest: Manifest) -> bytes:
    """The bytes of manifest.json: there is only one way to write it, so a changed space is found as well."""
    return (json.dumps(msgspec.to_builtins(manifest), sort_keys=True, indent=1) + "\n").encode()


def _evidence(plain: Mapping[str, Any]) -> str:
    kept = {name: part for name, part in plain.items() if name not in ("evidence", "root", "created")}
    kept["files"] = {name: file for name, file in plain["files"].items() if name != PAGE}
    kept["about"] = {name: part for name, part in plain["about"].items() if name not in HOW_READ}
    return sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


def _root(plain: Mapping[str, Any]) -> str:
    kept = {name: part for name, part in plain.items() if name != "root"}
    return sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


def write(folder: Path, manifest: Manifest) -> None:
    """Put manifest.json into `folder`, whole or not at all."""
    part = folder / f".{NAME}.part"
    part.write_bytes(encoded(manifest))
    part.replace(folder / NAME)


def read(folder: Path) -> Manifest:
    """Read the manifest of a report folder.

    Raises:
        ReportError: there is none, or it is not of a form that this program knows.
    """
    path = folder / NAME
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise ReportError(f"{path}: {error.strerror}", hint="name the folder that `replay` has written") from None
    if len(content) > _MAX_BYTES:
        raise ReportError(f"{path}: larger than {_MAX_BYTES} bytes", hint="this is no manifest of ours")
    try:
        version = msgspec.json.decode(content, type=_Version).format
        if version != FORMAT:
            raise ReportError(
                f"{path}: format {version}, this program reads {FORMAT}",
                hint="check it with the version named in it under `program`",
            )
        return msgspec.json.decode(content, type=Manifest)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ReportError(f"{path}: {error}", hint="the file has been changed, or is no manifest of ours") from None


class _Version(msgspec.Struct):
    format: int


def check(folder: Path) -> Iterator[str]:
    """Recompute every digest of a report folder; yields what is wrong, one sentence each, in a fixed order.

    The folder may come from anybody: only names in it are compared, no name in the manifest is followed out of it.

    Raises:
        ReportError: as `read`.
    """
    manifest = read(folder)
    if (folder / NAME).read_bytes() != encoded(manifest):
        yield f"{NAME}: not in the one form that it is written in: its bytes have been changed"
    sealed = manifest.sealed()
    if sealed.evidence != manifest.evidence:
        yield f"{NAME}: evidence digest: is {sealed.evidence} (says {manifest.evidence:.80})"
    if sealed.root != manifest.root:
        yield f"{NAME}: root digest: is {sealed.root} (says {manifest.root:.80})"
    if manifest.about.rules.digest() != manifest.rules_digest:
        yield f"{NAME}: rules digest: is {manifest.about.rules.digest()} (says {manifest.rules_digest:.80})"
    there, odd, empty = _listing(folder)
    for name in odd:
        yield f"{name}: neither a file nor a folder: it can belong to no report"
    for name in empty:
        yield f"{name:.200}: extra: a folder that holds no file of the report"
    for name in sorted(manifest.files.keys() - there.keys()):
        yield f"{name:.200}: missing: the manifest names it"
    for name in sorted(there.keys() - manifest.files.keys() - {NAME, SIGNATURE}):
        yield f"{name:.200}: extra: the manifest does not name it"
    for name in sorted(manifest.files.keys() & there.keys()):
        said, found = manifest.files[name], digest_of(there[name])
        if found.bytes != said.bytes:
            yield f"{name}: {found.bytes} bytes (the manifest says {said.bytes})"
        elif found.sha256 != said.sha256:
            yield f"{name}: digest: is {found.sha256} (the manifest says {said.sha256:.80})"


def _listing(folder: Path) -> tuple[dict[str, Path], list[str], list[str]]:
    """All files by their name relative to `folder`; what is neither file nor folder (a link leads elsewhere); and
    folders without a file in them."""
    files: dict[str, Path] = {}
    odd: list[str] = []
    folders: set[str] = set()
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            odd.append(name)
        elif path.is_file():
            files[name] = path
        else:
            folders.add(name)
    needed = {parent.as_posix() for name in (*files, *odd) for parent in PurePosixPath(name).parents}
    return files, odd, sorted(folders - needed)
