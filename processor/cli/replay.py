"""`run-steps replay`: options, progress and the summary that it prints."""

from __future__ import annotations

import json
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer
from rich.console import Console

from processor.cli.options import ConfigOption, connection_of, end_with, load_settings, warn
from processor.cli.report_check import check_report, require_signing_options, sign_report, signing_key_of
from processor.cli.terminal import plain, print_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from processor.archives import Capture
    from processor.audit.replay.outcome import Progress, Replayed


def replay(
    config: ConfigOption = None,
    start: Annotated[
        str,
        typer.Option("--from", help="An offset, a time (ISO, or 1720000000000ms), beginning or committed:<group>."),
    ] = "beginning",
    end: Annotated[
        str,
        typer.Option("--to", help="As --from, or end. Default: the committed offset of source.group_id, else the end."),
    ] = "",
    archive: Annotated[
        list[Path] | None, typer.Option(help="Read the source from this file or folder; may be given again.")
    ] = None,
    and_topic: Annotated[
        bool, typer.Option("--and-topic", help="Read the topic from the end of the archives on.")
    ] = False,
    published: Annotated[
        list[Path] | None, typer.Option(help="Read what was published from this archive, not from the topics.")
    ] = None,
    capture_pattern: Annotated[
        str,
        typer.Option(metavar="FORMAT", help="Name format of Event Hubs Capture archives: {EventHub}, {PartitionId}..."),
    ] = "",
    capture_topic: Annotated[str, typer.Option(metavar="TOPIC", help="Topic of the Capture archives.")] = "",
    capture_partition: Annotated[int | None, typer.Option(min=0, help="Partition of these archives.")] = None,
    partition: Annotated[list[int] | None, typer.Option(min=0, help="Only this partition of the source.")] = None,
    steps: Annotated[list[str] | None, typer.Option(help="Report only this step; may be given again.")] = None,
    runs: Annotated[list[str] | None, typer.Option(help="Report only the steps of this run.")] = None,
    threads: Annotated[list[str] | None, typer.Option(help="Report only the steps of this thread.")] = None,
    record: Annotated[Path | None, typer.Option(help="Also archive the range into this folder.")] = None,
    record_as: Annotated[str, typer.Option(help="jsonl.gz, jsonl or parquet.")] = "jsonl.gz",
    workers: Annotated[int, typer.Option(min=1, max=256, help="Processes on this machine.")] = 1,
    dask: Annotated[str, typer.Option(metavar="ADDRESS", help="Run on this Dask scheduler instead.")] = "",
    work: Annotated[
        Path | None, typer.Option(help="Work folder. Default: a temporary one. Dask needs a shared one.")
    ] = None,
    report: Annotated[Path | None, typer.Option(help="Write the evidence into this folder, which must be new.")] = None,
    created: Annotated[str | None, typer.Option(metavar="ISO", help="Creation time to write into the report.")] = None,
    sole_source: Annotated[
        bool,
        typer.Option("--sole-source", help="Nothing else is published to these topics: other sources are extra."),
    ] = False,
    accept_fold: Annotated[
        list[int] | None,
        typer.Option(
            metavar="VERSION", help="Fold versions that may stand, not provable. Default: this program's earlier."
        ),
    ] = None,
    accept_rules: Annotated[
        list[str] | None,
        typer.Option(metavar="DIGEST", help="[steps] digests that may stand. Default: those changed at rest."),
    ] = None,
    earlier_config: Annotated[
        list[Path] | None, typer.Option(help="A configuration that was in force before: its [steps] are judged by it.")
    ] = None,
    verify: Annotated[bool, typer.Option(help="Off: fold only, compare nothing.")] = True,
    against: Annotated[
        Path | None,
        typer.Option(metavar="REPORT", help="Compare the steps with those of this report, e.g. of another version."),
    ] = None,
    check: Annotated[
        Path | None, typer.Option(metavar="REPORT", help="Check this report instead, without a broker (see --archive).")
    ] = None,
    sign: Annotated[
        Path | None, typer.Option(metavar="KEY", help="Sign the report with this Ed25519 private key (PEM).")
    ] = None,
    signer: Annotated[str, typer.Option(metavar="NAME", help="Who signs, as the signature says it.")] = "",
    trust: Annotated[
        list[Path] | None,
        typer.Option(metavar="PUBKEY", help="With --check: signed with this key (PEM); may be given again."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Prove what was published from the log, or show where it is wrong.

    Reads only, joins no group. Exit code 0: proven; 3: a difference was found; 4: not provable.
    """
    from processor.audit.replay.extra import require

    require("replay")
    require_signing_options(sign=sign, signer=signer, report=report, trust=trust, check=check)
    if check is not None:
        check_report(check, archive or [], _capture(capture_pattern, capture_topic, capture_partition), trust or [])
        return
    key = signing_key_of(sign)
    if workers > 1 and not dask:
        from processor.audit.replay import process_pool as pool

        pool.begin()
    from processor.audit.judge.regimes import Accepted
    from processor.audit.replay.command import replay as run
    from processor.audit.replay.options import Options
    from processor.audit.replay.task import StepFilter

    settings = load_settings(config)
    options = Options(
        start=start,
        end=end,
        archives=tuple(map(str, archive or ())),
        and_topic=and_topic,
        published=tuple(map(str, published or ())),
        capture=_capture(capture_pattern, capture_topic, capture_partition),
        partitions=tuple(partition or ()),
        only=StepFilter(tuple(steps or ()), tuple(runs or ()), tuple(threads or ())),
        record=str(record or ""),
        record_files=f".{record_as.removeprefix('.')}",
        workers=workers,
        dask=dask,
        report=str(report or ""),
        created=created,
        work=str(work or ""),
        verify=verify,
        against=str(against or ""),
        sole_source=sole_source,
        accepted=Accepted(tuple(accept_fold) if accept_fold else None, tuple(accept_rules) if accept_rules else None),
        earlier_rules=tuple(load_settings(path).rules() for path in earlier_config or ()),
    )
    from processor.archives import left_alone

    for path in (*(archive or ()), *(published or ())):
        if hidden := left_alone(path):
            warn(f"archive {path}: {hidden} files left alone: a name on their way begins with _ or .")
    with _progress() as show:
        replayed = run(options, settings, lambda: connection_of(settings), show)
    if key is not None and report is not None:
        sign_report(report, replayed.root, key, signer)
    if as_json:
        print(json.dumps(msgspec.to_builtins(replayed), indent=2))
    else:
        _print_summary(replayed)
    end_with(replayed.exit_code)


def _capture(pattern: str, topic: str, partition: int | None) -> Capture:
    from processor.archives import CAPTURE, Capture

    return Capture(pattern=pattern or CAPTURE.pattern, topic=topic or None, partition=partition)


@contextmanager
def _progress() -> Iterator[Callable[[Progress], None]]:
    """On a terminal a bar with rate and time left; else a line now and then. Both on standard error."""
    import time

    if sys.stderr.isatty():
        from rich import progress as bars

        columns = (
            bars.TextColumn("{task.description}"),
            bars.BarColumn(),
            bars.MofNCompleteColumn(),
            bars.TextColumn("{task.fields[rate]}"),
            bars.TimeRemainingColumn(),
        )
        with bars.Progress(*columns, console=Console(stderr=True), transient=True) as shown:
            bar = shown.add_task("", rate="")

            def show(at: Progress) -> None:
                task = shown.tasks[0]
                if task.description != at.what:
                    shown.reset(bar, description=plain(at.what), total=at.total or None)
                speed = shown.tasks[0].speed
                shown.update(bar, completed=at.done, total=at.total or None, rate=f"{speed:,.0f}/s" if speed else "")

            yield show
        return
    began = told = time.monotonic()
    stage = ""

    def say(at: Progress) -> None:
        nonlocal began, told, stage
        now = time.monotonic()
        if at.what != stage:
            stage, began, told = at.what, now, now
        if now - told < _LINE_EVERY_S:
            return
        told = now
        rate = at.done / (now - began)
        left = f", {max(0, at.total - at.done) / rate:,.0f} s left" if at.total and rate else ""
        warn(f"{at.what}: {at.done:,}" + (f" of {at.total:,}" if at.total else "") + f", {rate:,.0f}/s{left}")

    yield say


_LINE_EVERY_S = 5.0


def _print_summary(replayed: Replayed) -> None:
    """The verdict first, then what it stands on."""
    print_line(replayed.verdict.value + (", but for what is not judged:" if replayed.not_judged else ""))
    for line in replayed.not_judged:
        print_line(f"  not judged: {line}")
    for kind, verdicts in replayed.counts.items():
        told = ", ".join(f"{n:,} {verdict}" for verdict, n in sorted(verdicts.items()) if n)
        print_line(f"  {kind.replace('_', ' ')}s: {told or 'none'}")
    print_line(
        "  offsets: " + (", ".join(f"{n:,} {kind}" for kind, n in sorted(replayed.coverage.items()) if n) or "none")
    )
    for result in replayed.results:
        whole = "" if result.complete else ", not from the log's beginning"
        print_line(
            f"  partition {result.partition}: [{result.begin}, {result.end}){whole}, {result.open_steps} steps open"
        )
    for line in _first_findings(replayed):
        print_line(f"  {line}")
    if replayed.outputs.get("unreadable"):
        print_line(f"  records that belong to no source: {replayed.outputs['unreadable']:,}")
    if replayed.against is not None:
        other = replayed.against
        compared = f"{other.blocks_compared:,} blocks of the source compared, {other.blocks:,} differ"
        print_line(f"  against {other.report}: {compared}")
        for block in other.first_blocks:
            held = f"{block.records_here} records, {block.records_there} there"
            print_line(f"    partition {block.partition}, offsets {block.first} to {block.last}: {held}")
        print_line(f"  against {other.report}: {other.same:,} steps the same, {other.differing:,} not")
        for one in other.examples:
            what = ", ".join(one.columns) or one.what
            print_line(
                f"    {one.step_id} revision {one.revision}, partition {one.partition}, offset {one.offset}: {what}"
            )
    for line in (*replayed.about.reading, *replayed.about.notes, *replayed.questions):
        print_line(f"  {line}")
    if replayed.report:
        print_line(f"  report: {replayed.report} (root {replayed.root})")
    if replayed.not_judged:
        print_line(f"{replayed.verdict.value}: of the range alone. Not judged: {' '.join(replayed.not_judged)}")


def _first_findings(replayed: Replayed) -> Iterator[str]:
    """What disagrees, else what cannot be verified: the first of it, where and in which fields. The report has all."""
    from processor.audit.judge.verdicts import DISAGREES
    from processor.audit.replay.task import FIRST

    for finding in sorted(replayed.first, key=lambda one: one.verdict not in DISAGREES)[:FIRST]:
        one, two = finding.identity
        what = {"step": f"step {one} revision {two}", "dead_letter": f"dead letter of offset {one} ({two})"}
        place = f", partition {finding.partition}, offsets {finding.first_offset} to {finding.cause_offset}"
        at = "" if finding.at is None else f", on {finding.at[0]}-{finding.at[1]} at {finding.at[2]}"
        fields = ", ".join(difference.path for difference in finding.differences)
        why = "; ".join(filter(None, (fields, finding.why)))
        whole = what[finding.kind.value] + place if one else "a record that names no place of the source"
        told = f"{finding.verdict.value}: {whole}{at}" + (f": {why}" if why else "")
        yield told
