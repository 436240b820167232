"""The options of `run-steps replay`, with their help; `explain` shares some of them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from processor.archives import Capture
    from processor.audit.judge.regimes import Accepted
    from processor.core.rules import Rules

Start = Annotated[
    str,
    typer.Option("--from", help="An offset, a time (ISO, or 1720000000000ms), beginning or committed:<group>."),
]
End = Annotated[
    str,
    typer.Option("--to", help="As --from, or end. Default: the committed offset of source.group_id, else the end."),
]
Archive = Annotated[
    list[Path] | None,
    typer.Option(metavar="PATH", help="Read the source from this file or folder; may be given again."),
]
AndTopic = Annotated[bool, typer.Option("--and-topic", help="Read the topic from the end of the archives on.")]
Published = Annotated[
    list[Path] | None,
    typer.Option(metavar="PATH", help="Read what was published from this archive, not from the topics."),
]
CapturePattern = Annotated[
    str,
    typer.Option(metavar="FORMAT", help="Name format of Event Hubs Capture archives: {EventHub}, {PartitionId}..."),
]
CaptureTopic = Annotated[str, typer.Option(metavar="TOPIC", help="Topic of the Capture archives.")]
CapturePartition = Annotated[int | None, typer.Option(min=0, metavar="N", help="Partition of these archives.")]
Partition = Annotated[list[int] | None, typer.Option(min=0, metavar="N", help="Only this partition of the source.")]
Steps = Annotated[list[str] | None, typer.Option(metavar="ID", help="Report only this step; may be given again.")]
Runs = Annotated[list[str] | None, typer.Option(metavar="ID", help="Report only the steps of this run.")]
Threads = Annotated[list[str] | None, typer.Option(metavar="ID", help="Report only the steps of this thread.")]
Record = Annotated[Path | None, typer.Option(help="Also archive the range into this folder.")]
RecordAs = Annotated[str, typer.Option(help="jsonl.gz, jsonl or parquet.")]
Workers = Annotated[int, typer.Option(min=1, max=256, help="Processes on this machine.")]
Dask = Annotated[str, typer.Option(metavar="ADDRESS", help="Run on this Dask scheduler.")]
Work = Annotated[Path | None, typer.Option(help="Work folder. Default: a temporary one. Dask needs a shared one.")]
Report = Annotated[Path | None, typer.Option(help="Write the evidence into this folder, which must be new.")]
Created = Annotated[str | None, typer.Option(metavar="ISO", help="Creation time to write into the report.")]
SoleSource = Annotated[
    bool,
    typer.Option("--sole-source", help="Nothing else is published to these topics: other sources are extra."),
]
AcceptFold = Annotated[
    list[int] | None,
    typer.Option(
        metavar="VERSION", help="Take records of this fold version as not provable. Default: all earlier versions."
    ),
]
AcceptRules = Annotated[
    list[str] | None,
    typer.Option(
        metavar="DIGEST",
        help="Take records of this digest of rules as not provable. Default: those before or after all others.",
    ),
]
EarlierConfig = Annotated[
    list[Path] | None,
    typer.Option(metavar="PATH", help="An earlier configuration: records of its rules are judged by it."),
]
NoVerify = Annotated[bool, typer.Option("--no-verify", help="Fold only, compare nothing.")]
Against = Annotated[
    Path | None,
    typer.Option(metavar="REPORT", help="Compare the steps with those of this report, e.g. of another version."),
]
Check = Annotated[
    Path | None, typer.Option(metavar="REPORT", help="Check this report instead, without a broker (see --archive).")
]
Sign = Annotated[Path | None, typer.Option(metavar="KEY", help="Sign the report with this Ed25519 private key (PEM).")]
Signer = Annotated[str, typer.Option(metavar="NAME", help="Name of the signer, written into the signature.")]
Trust = Annotated[
    list[Path] | None,
    typer.Option(metavar="PUBKEY", help="With --check: signed with this key (PEM); may be given again."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def accepted_of(folds: list[int] | None, digests: list[str] | None) -> Accepted:
    """Fold versions and rules that `--accept-fold` and `--accept-rules` name."""
    from processor.audit.judge.regimes import Accepted

    return Accepted(tuple(folds) if folds else None, tuple(digests) if digests else None)


def rules_of(configs: list[Path] | None) -> tuple[Rules, ...]:
    """The rules of the files that `--earlier-config` names."""
    from processor.config.loading import load

    return tuple(load(path, os.environ).rules() for path in configs or ())


def capture_of(pattern: str, topic: str = "", partition: int | None = None) -> Capture:
    """Pattern by which paths of Event Hubs Capture name their topic and partition."""
    from processor.archives import CAPTURE, Capture

    return Capture(pattern=pattern or CAPTURE.pattern, topic=topic or None, partition=partition)


def warn_of_hidden_files(archives: list[Path]) -> None:
    """Warn of files of an archive that are not read, and of those that hold nothing."""
    from processor.archives import empty_files, left_alone
    from processor.printable import warn

    for path in archives:
        if hidden := left_alone(path):
            warn(
                f"archive {path}: {hidden} files left alone: their names say unfinished (_ or . in front, .part behind)"
            )
        if empty := empty_files(path):
            more = f" and {len(empty) - 1} more" if empty[1:] else ""
            warn(f"archive {path}: {empty[0].relative_to(path)}{more} has no bytes: a copy that failed?")
