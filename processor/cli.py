"""The command `run-steps`. It wires the parts and maps errors to exit codes; nothing else lives here.

Heavy modules are imported inside the commands, so that `--help` and a wrong option answer at once.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
import traceback
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from processor.core.rules import MAX_DIGITS
from processor.errors import RunStepsError, UsageError, of_system

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from processor.archives import Capture
    from processor.config import Effective, Settings
    from processor.explain import Life
    from processor.kafka.security import Connection
    from processor.replay.run import Progress, Replayed
    from processor.simulate import Produced
    from processor.simulate.dials import Dials

EXIT_USAGE = UsageError.exit_code
EXIT_BUG = RunStepsError.exit_code

app = typer.Typer(
    name="run-steps",
    help="Finished run steps from the event stream of AI agents, exactly once, on Kafka.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", "-c", envvar="RUN_STEPS_CONFIG", help="TOML file with the settings.", show_default=False),
]


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        from processor.core.build import CORE

        print(f"run-steps {version('run-steps')} (core: {CORE})")
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Options before the command. `main` looks for --debug itself: errors may come before this is called."""


def _load(path: Path | None) -> Settings:
    from processor.config import load

    return load(path, os.environ)


def _end(code: int) -> NoReturn:
    raise typer.Exit(code)


@app.command()
def serve(
    config: ConfigOption = None,
    create_topics: Annotated[bool, typer.Option("--create-topics", help="Make the topics that are missing.")] = False,
    workers: Annotated[int, typer.Option(min=1, max=256, help="Processes, each a member of the group.")] = 1,
    begin_at: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[PARTITION=]POSITION",
            help="Once: where partitions whose committed offset is gone begin: earliest, latest, an offset.",
        ),
    ] = None,
) -> None:
    """Run the worker until SIGTERM or SIGINT."""
    settings = _load(config)
    if begin_at:
        from processor.positions import parse_begin_at

        settings = settings.beginning_at(parse_begin_at(begin_at))
    from processor.supervisor import serve as run

    _end(run(settings, create_topics=create_topics, workers=workers))


@app.command()
def reset(
    to: Annotated[
        str,
        typer.Option(
            metavar="POSITION",
            help="earliest: publish all again; latest; an offset; current: keep the offset, rebuild what is beside it.",
        ),
    ],
    config: ConfigOption = None,
    partition: Annotated[
        list[int] | None, typer.Option(min=0, help="Only this partition; may be given again. Not given: all.")
    ] = None,
    forget_checkpoints: Annotated[
        bool, typer.Option("--forget-checkpoints", help="Forget those that fit the log and the offset as well.")
    ] = False,
    yes: Annotated[
        bool, typer.Option("--yes", help="Do it; without it the plan is printed, and nothing done.")
    ] = False,
) -> None:
    """Set where the group goes on, with all workers stopped, and have the state there rebuilt from the log."""
    settings = _load(config)
    from processor.positions import parse_where
    from processor.reset import reset as run

    where = parse_where(to, "reset: --to", current=True)
    resetting = run(
        settings,
        _connection(settings),
        where,
        partitions=partition or (),
        forget=forget_checkpoints,
        yes=yes,
        echo=print,
    )
    _end(asyncio.run(resetting))


@app.command("check-config")
def check_config(
    config: ConfigOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show the settings in force and where each comes from; exit 78 and all mistakes if they are wrong."""
    effective = list(_load(config).effective())
    if as_json:
        print(json.dumps(_as_json(effective), indent=2))
    elif sys.stdout.isatty():
        Console().print(_as_table(effective))
    else:
        for entry in effective:
            print(f"{entry.section}.{entry.key} = {json.dumps(entry.value)}  # {entry.origin}")


def _as_json(effective: list[Effective]) -> dict[str, dict[str, dict[str, object]]]:
    tables: dict[str, dict[str, dict[str, object]]] = {}
    for section, key, value, origin in effective:
        entry: dict[str, object] = {"value": value, "origin": origin.kind}
        if origin.name:
            entry["from"] = origin.name
        tables.setdefault(section, {})[key] = entry
    return tables


def _as_table(effective: list[Effective]) -> Table:
    table = Table("key", "value", "from", box=None, header_style="bold")
    before = ""
    for section, key, value, origin in effective:
        if before and section != before:
            table.add_section()
        before = section
        style = "dim" if origin.kind == "default" else "cyan"
        # Text from outside is data, not markup: square brackets in it must not vanish.
        table.add_row(f"{section}.{key}", _plain(json.dumps(value)), _plain(str(origin)), style=style)
    return table


def _plain(text: str) -> str:
    from rich.markup import escape

    return escape(text)


@app.command()
def publish(
    files: Annotated[
        list[Path] | None, typer.Argument(help="SSE text or JSON lines; - or nothing: standard input.")
    ] = None,
    config: ConfigOption = None,
    topic: Annotated[str, typer.Option(help="Instead of source.topic.", show_default=False)] = "",
    format: Annotated[str, typer.Option(help="auto, sse or jsonl.")] = "auto",
    idempotent: Annotated[bool, typer.Option(help="Off for brokers without idempotent producers.")] = True,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the records instead.")] = False,
) -> None:
    """Put a service's event stream on the source topic, keyed by run and with event ids."""
    settings = _load(config)
    from processor import publish as module

    if format not in list(module.Format):
        choices = ", ".join(module.Format)
        raise UsageError(f"publish: --format: unknown (got {format!r})", hint=f"one of {choices}")
    run = module.run(
        files or [],
        topic=topic or settings.source.topic,
        connection=None if dry_run else _connection(settings),
        format=format,
        dry_run=dry_run,
        idempotent=idempotent,
        echo=print,
        warn=_warn,
    )
    _end(asyncio.run(run))


@app.command()
def simulate(
    config: ConfigOption = None,
    out: Annotated[
        Path | None, typer.Option(help="Write JSON lines here (- is standard output), not to the topic.")
    ] = None,
    topic: Annotated[str, typer.Option(help="Instead of source.topic.", show_default=False)] = "",
    expected: Annotated[Path | None, typer.Option(help="Write here what must come of it.")] = None,
    rate: Annotated[float, typer.Option(min=0, help="Records per second; 0: as fast as they are taken.")] = 0,
    runs: Annotated[int, typer.Option(min=0, help="Agent runs.")] = 1000,
    seed: Annotated[int, typer.Option(help="The same seed gives the same records.")] = 1,
    partitions: Annotated[int, typer.Option(min=1, help="Partitions of the topic, for the expected result.")] = 4,
    dial: Annotated[list[str] | None, typer.Option(metavar="NAME=VALUE", help="Any other dial.")] = None,
    dials: Annotated[bool, typer.Option("--dials", help="List the dials with their defaults and exit.")] = False,
) -> None:
    """Generate agent runs as services emit them, faults included, and the result that must come of them."""
    from processor.simulate.dials import Dials

    if dials:
        for name, default in msgspec.to_builtins(Dials()).items():
            print(f"{name}={json.dumps(default)}")
        return
    wanted = {"runs": runs, "seed": seed, "partitions": partitions} | dict(map(_dial, dial or []))
    try:
        chosen = msgspec.convert(wanted, Dials, strict=False)
    except msgspec.ValidationError as exc:
        hint = "`run-steps simulate --dials` lists them"
        raise UsageError(f"simulate: --dial: {exc}", hint=hint) from exc
    settings = None if out else _load(config)
    asyncio.run(_simulate(chosen, out, expected, rate, settings, topic))


def _dial(text: str) -> tuple[str, object]:
    name, _, value = text.partition("=")
    try:
        return name, json.loads(value)
    except ValueError:
        raise UsageError(f"simulate: --dial: expected NAME=VALUE (got {text!r:.80})", hint="disorder=0.5") from None


async def _simulate(
    dials: Dials, out: Path | None, expected: Path | None, rate: float, settings: Settings | None, topic: str
) -> None:
    from processor.simulate.output import main as play

    if settings is None:
        await play(dials, out=out, expected=expected, rate=rate)
        return
    from processor.kafka.producer import EventProducer

    async with EventProducer(_connection(settings)) as producer:
        to = topic or settings.source.topic

        async def send(record: Produced) -> None:
            # An empty value is as much a tombstone as none at all (docs/semantics.md).
            value = record.value or b""
            await producer.send(to, value, key=record.key, headers=record.headers, timestamp_ms=record.timestamp)

        await play(dials, send=send, expected=expected, rate=rate)
        await producer.flush()
        print(f"published {producer.acknowledged} records to {to}")


def _connection(settings: Settings) -> Connection:
    # What the client would print beside our own error says the same in its own words.
    logging.getLogger("aiokafka").addHandler(logging.NullHandler())
    from processor.kafka.security import Connection

    return Connection.build(**settings.kafka.connection())


def _warn(line: str) -> None:
    print(line, file=sys.stderr)


@app.command()
def replay(
    config: ConfigOption = None,
    start: Annotated[
        str,
        typer.Option("--from", help="An offset, a time (ISO, or 1720000000000ms), beginning or committed:<group>."),
    ] = "beginning",
    end: Annotated[
        str,
        typer.Option("--to", help="As --from, or end. Not given: where source.group_id stands, else the end."),
    ] = "",
    archive: Annotated[
        list[Path] | None, typer.Option(help="Read the source from this file or folder; may be given again.")
    ] = None,
    and_topic: Annotated[bool, typer.Option("--and-topic", help="And from where the archives end, the topic.")] = False,
    published: Annotated[
        list[Path] | None, typer.Option(help="Read what was published from this archive, not from the topics.")
    ] = None,
    capture_pattern: Annotated[
        str,
        typer.Option(metavar="FORMAT", help="Name format of Event Hubs Capture archives: {EventHub}, {PartitionId}..."),
    ] = "",
    capture_topic: Annotated[str, typer.Option(metavar="TOPIC", help="They are of this topic.")] = "",
    capture_partition: Annotated[int | None, typer.Option(min=0, help="They are of this partition.")] = None,
    partition: Annotated[list[int] | None, typer.Option(min=0, help="Only this partition of the source.")] = None,
    steps: Annotated[list[str] | None, typer.Option(help="Report only this step; may be given again.")] = None,
    runs: Annotated[list[str] | None, typer.Option(help="Report only the steps of this run.")] = None,
    threads: Annotated[list[str] | None, typer.Option(help="Report only the steps of this thread.")] = None,
    record: Annotated[Path | None, typer.Option(help="Archive the range into this folder on the way.")] = None,
    record_as: Annotated[str, typer.Option(help="jsonl.gz, jsonl or parquet.")] = "jsonl.gz",
    workers: Annotated[int, typer.Option(min=1, max=256, help="Processes on this machine.")] = 1,
    dask: Annotated[str, typer.Option(metavar="ADDRESS", help="A Dask scheduler to run on instead.")] = "",
    work: Annotated[
        Path | None, typer.Option(help="Folder for what spills; a temporary one if not given. Dask needs it shared.")
    ] = None,
    report: Annotated[Path | None, typer.Option(help="Write the evidence into this folder, which must be new.")] = None,
    created: Annotated[str | None, typer.Option(metavar="ISO", help="The time of making, told in the report.")] = None,
    verify: Annotated[bool, typer.Option(help="Off: fold, and compare with nothing.")] = True,
    against: Annotated[
        Path | None,
        typer.Option(metavar="REPORT", help="Compare the steps with those of this report, of another version say."),
    ] = None,
    check: Annotated[
        Path | None, typer.Option(metavar="REPORT", help="Check this report instead, without a broker (see --archive).")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Prove what was published from the log, or show where it is wrong.

    Reads only, joins no group. Exit code 0: proven; 3: a difference was found; 4: not provable.
    """
    from processor.replay.extra import require

    require("replay")
    if check is not None:
        _check_report(check, archive or [], _capture(capture_pattern, capture_topic, capture_partition))
        return
    if workers > 1 and not dask:
        from processor.replay import pool

        pool.begin()
    from processor.replay import Only
    from processor.replay.run import Options
    from processor.replay.run import replay as run

    settings = _load(config)
    options = Options(
        start=start,
        end=end,
        archives=tuple(map(str, archive or ())),
        and_topic=and_topic,
        published=tuple(map(str, published or ())),
        capture=_capture(capture_pattern, capture_topic, capture_partition),
        partitions=tuple(partition or ()),
        only=Only(tuple(steps or ()), tuple(runs or ()), tuple(threads or ())),
        record=str(record or ""),
        record_files=f".{record_as.removeprefix('.')}",
        workers=workers,
        dask=dask,
        report=str(report or ""),
        created=created,
        work=str(work or ""),
        verify=verify,
        against=str(against or ""),
    )
    with _progress() as show:
        replayed = run(options, settings, lambda: _connection(settings), show)
    if as_json:
        print(json.dumps(msgspec.to_builtins(replayed), indent=2))
    else:
        _tell_replayed(replayed)
    _end(replayed.exit_code)


def _capture(pattern: str, topic: str, partition: int | None) -> Capture:
    from processor.archives import CAPTURE, Capture

    return Capture(pattern=pattern or CAPTURE.pattern, topic=topic or None, partition=partition)


def _check_report(folder: Path, archives: list[Path], capture: Capture) -> None:
    """Exit code 0: whole, and its verdict is that of the tables; 65: something is wrong; else that of its verdict."""
    from processor.archives import read
    from processor.replay.run import EXIT_CODES, program
    from processor.report.folder import check, check_records

    checked = check(folder, program=program())
    problems = list(checked.problems)
    if archives and not problems:
        problems += check_records(
            folder, checked.manifest, (item for path in archives for item in read(path, capture=capture))
        )
    for problem in problems:
        _warn(f"run-steps: {problem}")
    if problems:
        _end(65)
    print(f"{folder}: whole. {checked.manifest.verdict.value}. root {checked.manifest.root}")
    _end(EXIT_CODES[checked.manifest.verdict])


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
                    shown.reset(bar, description=_plain(at.what), total=at.total or None)
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
        _warn(f"{at.what}: {at.done:,}" + (f" of {at.total:,}" if at.total else "") + f", {rate:,.0f}/s{left}")

    yield say


_LINE_EVERY_S = 5.0


def _tell_replayed(replayed: Replayed) -> None:
    """The verdict first, then what it stands on."""
    print(replayed.verdict.value)
    for kind, verdicts in replayed.counts.items():
        told = ", ".join(f"{n:,} {verdict}" for verdict, n in sorted(verdicts.items()) if n)
        print(f"  {kind.replace('_', ' ')}s: {told or 'none'}")
    print("  offsets: " + (", ".join(f"{n:,} {kind}" for kind, n in sorted(replayed.coverage.items()) if n) or "none"))
    for result in replayed.results:
        whole = "" if result.complete else ", not from the log's beginning"
        print(f"  partition {result.partition}: [{result.begin}, {result.end}){whole}, {result.open_steps} steps open")
    for line in _first_findings(replayed):
        print(f"  {line}")
    out_of_range = sum(result.out_of_range for result in replayed.results)
    apart = {**replayed.outputs, "published out of the range": out_of_range}
    for name in ("published out of the range", "of another source", "of partitions not asked for", "unreadable"):
        if apart.get(name):
            print(f"  records {name}: {apart[name]:,}")
    if replayed.against is not None:
        other = replayed.against
        compared = f"{other.blocks_compared:,} blocks of the source compared, {other.blocks:,} differ"
        print(f"  against {other.report}: {compared}")
        for block in other.first_blocks:
            held = f"{block.records_here} records, {block.records_there} there"
            print(f"    partition {block.partition}, offsets {block.first} to {block.last}: {held}")
        print(f"  against {other.report}: {other.same:,} steps the same, {other.differing:,} not")
        for one in other.examples:
            what = ", ".join(one.columns) or one.what
            print(f"    {one.step_id} revision {one.revision}, partition {one.partition}, offset {one.offset}: {what}")
    for line in (*replayed.about.notes, *replayed.questions):
        print(f"  {line}")
    if replayed.report:
        print(f"  report: {replayed.report} (root {replayed.root})")


def _first_findings(replayed: Replayed) -> Iterator[str]:
    """What disagrees, else what cannot be verified: the first of it, where and in which fields. The report has all."""
    from processor.core.verdicts import DISAGREES
    from processor.replay import FIRST

    found = [finding for result in replayed.results for finding in result.first]
    for finding in sorted(found, key=lambda one: one.verdict not in DISAGREES)[:FIRST]:
        one, two = finding.identity
        what = {"step": f"step {one} revision {two}", "dead_letter": f"dead letter of offset {one} ({two})"}
        place = f", partition {finding.partition}, offsets {finding.first_offset} to {finding.cause_offset}"
        at = "" if finding.at is None else f", on {finding.at[0]}-{finding.at[1]} at {finding.at[2]}"
        fields = ", ".join(difference.path for difference in finding.differences)
        why = "; ".join(filter(None, (fields, finding.why)))
        whole = what[finding.kind.value] + place if one else "a record that names no place of the source"
        told = f"{finding.verdict.value}: {whole}{at}" + (f": {why}" if why else "")
        yield "".join(c if c.isprintable() else "\ufffd" for c in told)  # ids and fields are what anybody wrote


@app.command()
def explain(
    step_id: Annotated[str, typer.Argument(help="The id of the step.")],
    config: ConfigOption = None,
    partition: Annotated[int | None, typer.Option(min=0, help="Partition of the source.")] = None,
    offset: Annotated[
        int | None, typer.Option(min=0, help="Where it begins there, if nothing is published yet.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show one step's life: its events, what each changed, what was published, and whether that is right.

    Reads only, joins no group. Exit code 0: all equal; 3: a difference was found; 4: not provable.
    """
    from processor.replay.extra import require

    require("explain")
    settings = _load(config)
    from processor.explain import explain as run
    from processor.replay.run import EXIT_DIFFERENT, EXIT_PROVEN, EXIT_UNPROVABLE

    found = run(step_id, settings, lambda: _connection(settings), partition=partition, offset=offset)
    if as_json:
        print(json.dumps({"verdict": found.verdict.value, **msgspec.to_builtins(found)}, indent=2))
    else:
        for life in found.lives:
            _show_life(life)
        for stray in found.strays:
            print(f"{stray.topic}, partition {stray.partition}, offset {stray.offset}: {stray.why}")
    codes = {"equal": EXIT_PROVEN, "different": EXIT_DIFFERENT}
    _end(codes.get(found.verdict.value, EXIT_UNPROVABLE))


_VERDICT_STYLES = {"equal": "green", "unverifiable": "yellow"}


def _show_life(life: Life) -> None:
    """One life on one screen; on no terminal the same without colours, as wide as it needs."""
    console = Console(width=None if sys.stdout.isatty() else 200, highlight=False)
    head = f"[bold]{_plain(life.step_id)}[/bold]  {_plain(life.status)}  [{_style(life.verdict)}]{life.verdict}[/]"
    console.print(head)
    run, thread = _plain(life.run_id or "-"), _plain(life.thread_id or "-")
    console.print(f"run {run}  thread {thread}")
    read = f"offsets {life.read[0]} to {life.read[1] - 1} read"
    console.print(
        f"{_plain(life.topic)}, partition {life.partition}, offsets {life.first_offset} to {life.last_offset}; {read}"
    )
    events = Table(
        "offset", "time", "event", "status", "what it changed", box=None, header_style="bold", pad_edge=False
    )
    for event in life.events:
        status = f"{event.before or 'new'} -> {event.after}" if event.after else ""
        if event.refused:
            status = f"refused: {event.refused}"
        changes = "\n".join(f"{change.path}: {change.what}" for change in event.changes[:_CHANGES])
        if len(event.changes) > _CHANGES:
            changes += f"\nand {len(event.changes) - _CHANGES} more"
        style = "red" if event.refused else ""
        events.add_row(str(event.offset), _time(event.timestamp), event.event, status, _plain(changes), style=style)
    console.print(events)
    issued = Table(
        "revision", "status", "topic", "partition", "offset", "verdict", "why", box=None, header_style="bold"
    )
    for one in life.issued:
        topic, partition, offset = (
            (one.place[0], str(one.place[1]), str(one.place[2])) if one.place else ("-", "-", "-")
        )
        why = "\n".join([*filter(None, [one.why]), *(f"{d.path}: {d.expected} (got {d.got})" for d in one.differences)])
        verdict = f"[{_style(one.verdict)}]{one.verdict}[/]"
        issued.add_row(str(one.revision), one.status, _plain(topic), partition, offset, verdict, _plain(why))
    if life.issued:
        console.print(issued)
    for note in life.notes:
        console.print(_plain(note))


_CHANGES = 8


def _style(verdict: str) -> str:
    return _VERDICT_STYLES.get(verdict, "red")


def _time(milliseconds: int) -> str:
    from datetime import UTC, datetime

    try:
        return (
            datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        )
    except (OverflowError, ValueError, OSError):
        return f"{milliseconds} ms"


@app.command()
def broker(
    port: Annotated[
        int | None, typer.Option(min=1, max=65_535, help="Port on 127.0.0.1; any that is free if not given.")
    ] = None,
    data_dir: Annotated[
        Path | None, typer.Option(help="Keep the data here; a temporary directory if not given.")
    ] = None,
) -> None:
    """Run a real single-node Apache Kafka on 127.0.0.1 to play with, until SIGINT."""
    from processor.broker import serve as run

    _end(run(port, data_dir, lambda line: print(line, flush=True)))


@app.command()
def demo(
    recordings: Annotated[
        Path | None, typer.Option(exists=True, file_okay=False, help="Play the SSE files of this directory.")
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Leave broker and worker up at the end.")] = False,
    runs: Annotated[int, typer.Option(min=1, max=1_000_000, help="Simulated agent runs.")] = 2000,
    seed: Annotated[int, typer.Option(help="The same seed plays the same runs.")] = 1,
) -> None:
    """See all of it work: broker, recordings, two workers, one of them killed, the comparison, and the audit."""
    from processor.demo import run

    _end(run(recordings, keep, runs, seed))


def main() -> NoReturn:
    """The console script. Exits with 0, a code of `processor.errors` (64: wrong command line), or 130 (Ctrl-C)."""
    sys.set_int_max_str_digits(MAX_DIGITS)  # or PYTHONINTMAXSTRDIGITS would decide what is dead-lettered
    code = _run(sys.argv[1:])
    # Under `python -m`, a Ctrl-C that crossed an exec of source (a dataclass being made, say) would end the process by
    # SIGINT, whatever is caught and returned: CPython remembers it until the next such exec.
    exec("")  # noqa: S102
    sys.exit(code)


def _run(args: list[str]) -> int:
    debug = "--debug" in args
    try:
        if not __debug__:
            raise UsageError("python -O: takes out the assertions that guard the offsets", hint="run without -O")
        app(args, prog_name="run-steps")
    except SystemExit as exc:
        # click's own code for a wrong command line is 2.
        return EXIT_USAGE if exc.code == 2 else int(exc.code or 0)
    except KeyboardInterrupt:
        return 130
    except RunStepsError as exc:
        denied = of_system(exc)
        _say(str(denied or exc), debug)
        return (denied or exc).exit_code
    except Exception as exc:
        if (denied := of_system(exc)) is not None:
            _say(str(denied), debug)
            return denied.exit_code
        # Its text may quote a record or a setting, so only its type and place are told unasked.
        last = traceback.extract_tb(exc.__traceback__)[-1]
        where = f"{Path(last.filename).name}:{last.lineno}"
        _say(f"{where}: unexpected {type(exc).__name__}\n  hint: a bug of ours; --debug shows more", debug)
        return EXIT_BUG
    return 0


def _say(message: str, debug: bool) -> None:
    if debug:
        traceback.print_exc()
    print(f"run-steps: {message}", file=sys.stderr)
