"""`run-steps explain`: the timeline of a step, as it is printed."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from processor.cli import replay_options as option
from processor.cli.options import ConfigOption, connection_of, end_with, load_settings, require_text
from processor.cli.replay_options import accepted_of, rules_of
from processor.cli.terminal import plain, table_of, utc_time, verdict_style
from processor.printable import print_json, print_line, printable
from processor.printable_console import Console

if TYPE_CHECKING:
    from processor.audit.step_timeline import StepIncarnation


def explain(
    step_id: Annotated[str, typer.Argument(help="The id of the step.")],
    config: ConfigOption = None,
    partition: Annotated[int | None, typer.Option(min=0, help="Partition of the source.")] = None,
    offset: Annotated[
        int | None, typer.Option(min=0, help="First offset of the step, if nothing is published yet.")
    ] = None,
    all_partitions: Annotated[
        bool, typer.Option("--all-partitions", help="Read all partitions of the outcome topics, not the key's alone.")
    ] = False,
    accept_fold: option.AcceptFold = None,
    accept_rules: option.AcceptRules = None,
    earlier_config: option.EarlierConfig = None,
    as_json: option.AsJson = False,
) -> None:
    """Show the timeline of one step: its events, what each changed, what was published, and whether that is right.

    Reads only, joins no group. Exit code 0: all equal; 3: a difference was found; 4: not provable.
    """
    from processor.audit.replay.extra import require

    require("explain")
    require_text("explain: STEP_ID", [step_id])
    settings = load_settings(config)
    from processor.audit.explain import explain as run
    from processor.audit.replay.outcome import EXIT_DIFFERENT, EXIT_PROVEN, EXIT_UNPROVABLE

    found = run(
        step_id,
        settings,
        lambda: connection_of(settings),
        partition=partition,
        offset=offset,
        all_partitions=all_partitions,
        accepted=accepted_of(accept_fold, accept_rules),
        earlier_rules=rules_of(earlier_config),
    )
    if as_json:
        print_json({"verdict": found.verdict.value, **msgspec.to_builtins(found)})
    else:
        for life in found.lives:
            _show_incarnation(life)
        for stray in found.strays:
            print_line(f"{stray.topic}, partition {stray.partition}, offset {stray.offset}: {stray.why}")
        for note in found.notes:
            print_line(note)
    codes = {"equal": EXIT_PROVEN, "different": EXIT_DIFFERENT}
    end_with(codes.get(found.verdict.value, EXIT_UNPROVABLE))


def _show_incarnation(life: StepIncarnation) -> None:
    """Print one incarnation of the step; without a terminal, without colours and as wide as needed."""
    console = Console(width=None if sys.stdout.isatty() else 200, highlight=False)
    verdict = f"[{verdict_style(life.verdict)}]{plain(life.verdict)}[/]"
    head = f"[bold]{plain(life.step_id)}[/bold]  {plain(life.status)}  {verdict}"
    console.print(head)
    run, thread = plain(life.run_id or "-"), plain(life.thread_id or "-")
    console.print(f"run {run}  thread {thread}")
    read = f"offsets {life.read[0]} to {life.read[1] - 1} read"
    console.print(
        f"{plain(life.topic)}, partition {life.partition}, offsets {life.first_offset} to {life.last_offset}; {read}"
    )
    events = table_of("offset", "time", "event", "status", "what it changed")
    for event in life.events:
        status = f"{event.before or 'new'} -> {event.after}" if event.after else ""
        if event.refused:
            status = f"refused: {event.refused}"
        changes = "\n".join(printable(f"{change.path}: {change.what}") for change in event.changes[:_CHANGES])
        if len(event.changes) > _CHANGES:
            changes += f"\nand {len(event.changes) - _CHANGES} more"
        style = "red" if event.refused else ""
        events.add_row(
            str(event.offset), utc_time(event.timestamp), plain(event.event), plain(status), plain(changes), style=style
        )
    console.print(events)
    issued = table_of("revision", "status", "topic", "partition", "offset", "verdict", "why", pad_edge=True)
    for one in life.issued:
        topic, partition, offset = (
            (one.place[0], str(one.place[1]), str(one.place[2])) if one.place else ("-", "-", "-")
        )
        whys = [*filter(None, [one.why]), *(f"{d.path}: {d.expected} (got {d.got})" for d in one.differences)]
        why = "\n".join(map(printable, whys))
        verdict = f"[{verdict_style(one.verdict)}]{plain(one.verdict)}[/]"
        issued.add_row(str(one.revision), plain(one.status), plain(topic), partition, offset, verdict, plain(why))
    if life.issued:
        console.print(issued)
    for note in life.notes:
        console.print(plain(note))


_CHANGES = 8
