"""`run-steps replay --check`, and the signature of a report: options, and what is printed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from processor.cli.options import end_with
from processor.errors import UsageError
from processor.printable import print_line, warn

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from processor.archives import ArchivedRecord, Capture, Gap
    from processor.audit.report.manifest import Manifest
    from processor.audit.report.signature import SigningKey, TrustedKey


def require_signing_options(
    *, sign: Path | None, signer: str, report: Path | None, trust: list[Path] | None, check: Path | None
) -> None:
    """Raises UsageError: an option is of no use without another."""
    if sign is not None and (report is None or check is not None):
        raise UsageError("replay: --sign: signs the report that is written", hint="name its folder with --report")
    if signer and sign is None:
        raise UsageError("replay: --signer: nothing is signed", hint="name the private key with --sign")
    if trust and check is None:
        raise UsageError("replay: --trust: belongs to --check", hint="name the report with --check")


def signing_key_of(path: Path | None) -> SigningKey | None:
    """Load the key before anything is read: a replay should not be lost to an unusable key."""
    if path is None:
        return None
    from processor.audit.report.signature import signing_key

    return signing_key(path)


def sign_report(folder: Path, root: str, key: SigningKey, signer: str) -> None:
    """Sign the report that was just written, if it is still the one with this root digest."""
    from datetime import UTC, datetime

    from processor.audit.replay.outcome import program
    from processor.audit.report.manifest import ReportError, read
    from processor.audit.report.signature import sign
    from processor.audit.source_commit import source_commit

    manifest = read(folder)
    if manifest.root != root:
        raise ReportError(f"{folder}: was changed before it was signed", hint="replay again into a folder of your own")
    when = datetime.now(UTC).isoformat(timespec="seconds")
    sign(folder, manifest, key, who=signer, when=when, program=program(), commit=source_commit())


def check_report(folder: Path, archives: list[Path], capture: Capture, trust: list[Path]) -> None:
    """Exit code 0: whole, and its verdict is that of the tables; 65: something is wrong; else that of its verdict."""
    from processor.audit.replay.outcome import EXIT_CODES, program
    from processor.audit.report.folder import check, check_records
    from processor.audit.report.manifest import PAGE, not_judged

    trusted = []
    if trust:
        from processor.audit.report.signature import trusted_key

        trusted = [trusted_key(path) for path in trust]
    checked = check(folder, program=program())
    problems = list(checked.problems)
    signed, unsigned = _signature(folder, checked.manifest, trusted)
    problems += unsigned
    if archives and not problems:
        parts, items = _records(archives, checked.manifest, capture)
        problems += check_records(folder, checked.manifest, items)
        if problems:
            _require_same_kind(parts, checked.manifest)
    for problem in problems:
        warn(f"run-steps: {problem}")
    if problems:
        end_with(65)
    apart = "".join(f" Not judged: {line}" for line in not_judged(checked.manifest.about, checked.manifest.ranges))
    print_line(f"{folder}: whole. {checked.manifest.verdict.value}.{apart} root {checked.manifest.root}")
    if not checked.is_page_drawn:
        by = checked.manifest.about.program
        print_line(f"{PAGE}: not compared with the tables, whose verdict the above is: another version drew it ({by})")
    if signed:
        print_line(signed)
    end_with(EXIT_CODES[checked.manifest.verdict])


def _require_same_kind(archives: Collection[Path], manifest: Manifest) -> None:
    """Raises UsageError: the archives hold other bytes than the records of the report: no record is wrong.

    Args:
        archives: those that are read.
    """
    from processor.archives import holds_arrivals, lacks_headers
    from processor.audit.report.manifest import LOSSY, lossy, lossy_kinds

    here = lossy_kinds(is_captured=any(map(holds_arrivals, archives)), is_headless=any(map(lacks_headers, archives)))
    there = lossy(manifest.about.source)
    if here != there:
        kind = (here or there)[0]
        raise UsageError(
            f"replay: --check: {'these are' if here else 'the report was made from'} {kind}, which hold "
            f"{LOSSY[kind]}; {'the report was made from others' if here else 'these are others'}: "
            "its records cannot be compared with them",
            hint="check against what the report was made from; `replay --archive` judges what a capture keeps",
        )


def _records(
    archives: list[Path], manifest: Manifest, capture: Capture
) -> tuple[Collection[Path], Iterable[ArchivedRecord | Gap]]:
    """The report's ranges in the archives: which of these are read for them, as a replay chooses, and their records."""
    from processor.archives import read
    from processor.audit.replay.archive_ranges import Archives

    if len(archives) == 1:
        return archives, read(archives[0], capture=capture)
    several = Archives(map(str, archives), manifest.about.topic, capture)
    parts = [
        (one.partition, part)
        for one in manifest.ranges
        for part in several.laid(one.partition, one.begin, one.end).parts
    ]
    items = (item for partition, part in parts for item in several.read(partition, part))
    return {Path(part.path) for _, part in parts}, items


def _signature(folder: Path, manifest: Manifest, trusted: list[TrustedKey]) -> tuple[str, list[str]]:
    """Description and faults of a report's signature. Verified with trusted keys only."""
    from processor.audit.report.manifest import SIGNATURE

    if not trusted:
        is_there = (folder / SIGNATURE).exists()
        return f"{SIGNATURE}: the signature was not checked (--trust PUBKEY checks it)" if is_there else "", []
    from processor.audit.report.signature import verify

    verified = verify(folder, manifest, trusted)
    if verified.signing is None:
        return "", verified.problems
    one = verified.signing
    who = f" as {one.who!r}" if one.who else ""
    commit = f" at commit {one.commit}" if one.commit else ""
    return f"signed by the key {one.key}{who}, {one.when} by its own clock, with {one.program}{commit}", []
