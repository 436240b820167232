"""`run-steps dead-letters`: list, show, stats, redrive."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterable
from contextlib import aclosing
from typing import TYPE_CHECKING, Annotated, Any

import typer

from processor.cli.options import ConfigOption, connection_of, end_with, load_settings
from processor.cli.terminal import plain, table_of, utc_time
from processor.printable import print_json, print_line, warn
from processor.printable_console import Console

if TYPE_CHECKING:
    from processor.config.settings import Settings
    from processor.dead_letters.letter import Letter, State
    from processor.dead_letters.reading import Statistics
    from processor.dead_letters.redrive import Outcome
    from processor.dead_letters.selection import Selection

dead_letters = typer.Typer(
    no_args_is_help=True, help="List, count and show the records that could not be used, and redrive them."
)

Reasons = Annotated[
    list[str] | None, typer.Option("--reason", metavar="REASON", help="Only of this reason; may be given again.")
]
Since = Annotated[str | None, typer.Option(metavar="TIME", help="Only of source records from this time on (ISO 8601).")]
Until = Annotated[str | None, typer.Option(metavar="TIME", help="Only of source records before this time.")]
Partitions = Annotated[
    list[int] | None,
    typer.Option("--partition", min=0, help="Only of this partition of the source; may be given again."),
]
Letters = Annotated[
    list[str] | None,
    typer.Option("--letter", metavar="PARTITION:OFFSET", help="Only this dead letter; may be given again."),
]
MaxRedrives = Annotated[
    int, typer.Option(min=1, help="Park a record that was redriven this often and rejected each time.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]

_MAX_REDRIVES = 3
_TOP = 20
_SHOWN_BYTES = 64 << 10


@dead_letters.command("list")
def list_letters(
    config: ConfigOption = None,
    reason: Reasons = None,
    since: Since = None,
    until: Until = None,
    partition: Partitions = None,
    state: Annotated[
        list[str] | None, typer.Option(help="Only in this state (see the column); may be given again.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Stop after this many.")] = 50,
    max_redrives: MaxRedrives = _MAX_REDRIVES,
    as_json: AsJson = False,
) -> None:
    """List dead letters: reason, origin and state; no contents. With --json, a line each."""
    settings = load_settings(config)
    from processor.dead_letters.letter import State
    from processor.errors import UsageError

    states = frozenset(state or ())
    if unknown := states - {one.value for one in State}:
        raise UsageError(
            f"dead-letters: --state: no such state (got {sorted(unknown)[0]!r})",
            hint=", ".join(one.value for one in State),
        )
    chosen = _selection(reason, since, until, partition, None)
    rows, is_more = asyncio.run(_listed(settings, chosen, states, limit, max_redrives))
    if as_json:
        for letter, what in rows:
            print_json(_facts(letter, what), indent=None)
    else:
        table = table_of("letter", "time", "reason", "detail", "source", "attempt", "state")
        for letter, what in rows:
            source = f"{letter.source_topic} {letter.source_partition}:{letter.source_offset}"
            cells = (letter.reason, letter.detail, source, str(letter.attempt), what.value)
            table.add_row(letter.position, utc_time(letter.timestamp), *(plain(cell) for cell in cells))
        _console().print(table)
    if is_more:
        warn(f"stopped after {limit}; --limit takes more, `run-steps dead-letters stats` counts all")


async def _listed(
    settings: Settings, chosen: Selection, states: frozenset[str], limit: int, max_redrives: int
) -> tuple[list[tuple[Letter, State]], bool]:
    from processor.dead_letters.reading import read_letters

    rows: list[tuple[Letter, State]] = []
    async with aclosing(read_letters(settings, connection_of(settings), chosen, max_redrives)) as reading:
        async for letter, what in reading:
            if states and what.value not in states:
                continue
            if len(rows) == limit:
                return rows, True
            rows.append((letter, what))
    return rows, False


@dead_letters.command("show")
def show(
    position: Annotated[str, typer.Argument(metavar="PARTITION:OFFSET", help="The letter, as `list` names it.")],
    config: ConfigOption = None,
    contents: Annotated[
        bool, typer.Option("--contents", help="Show key, value and the producer's headers, too: they may be private.")
    ] = False,
    max_redrives: MaxRedrives = _MAX_REDRIVES,
    as_json: AsJson = False,
) -> None:
    """Show one dead letter: why it was rejected, where it came from, how large it is."""
    settings = load_settings(config)
    from processor.dead_letters.reading import read_letter
    from processor.dead_letters.selection import parse_position

    reading = read_letter(settings, connection_of(settings), parse_position(position), max_redrives)
    letter, what = asyncio.run(reading)
    facts = _facts(letter, what)
    if contents:
        facts |= _contents(letter)
    if as_json:
        print_json(facts)
        return
    for name, fact in facts.items():
        lines = fact if isinstance(fact, list) else [fact]
        for line in lines:
            print_line(f"{name}: {line}")


@dead_letters.command("stats")
def stats(
    config: ConfigOption = None,
    reason: Reasons = None,
    since: Since = None,
    until: Until = None,
    partition: Partitions = None,
    max_redrives: MaxRedrives = _MAX_REDRIVES,
    as_json: AsJson = False,
) -> None:
    """Count dead letters by reason, detail, state, hour and source partition."""
    settings = load_settings(config)
    from processor.dead_letters.reading import count_letters

    chosen = _selection(reason, since, until, partition, None)
    found = asyncio.run(count_letters(settings, connection_of(settings), chosen, max_redrives))
    counts = _counts(found)
    if as_json:
        print_json({"total": found.total, "value_bytes": found.value_bytes, **counts})
        return
    print_line(f"{found.total} dead letters, {found.value_bytes} bytes of values")
    for title, numbers in counts.items():
        rows = list(numbers.items())
        if title != "hours":
            rows.sort(key=lambda row: (-row[1], row[0]))
        table = table_of(title, "letters")
        for name, number in rows[-_TOP:] if title == "hours" else rows[:_TOP]:
            table.add_row(plain(name), str(number))
        if len(rows) > _TOP:
            table.add_row(f"{len(rows) - _TOP} more (--json has them)", "")
        if rows:
            _console().print(table)


@dead_letters.command("redrive")
def redrive(
    config: ConfigOption = None,
    reason: Reasons = None,
    since: Since = None,
    until: Until = None,
    partition: Partitions = None,
    letter: Letters = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count what would be redriven; write nothing.")] = False,
    rate: Annotated[
        float | None, typer.Option(min=0.01, max=1e9, help="Maximum letters per second. Default: no limit.")
    ] = None,
    most: Annotated[int | None, typer.Option("--max", min=1, help="Maximum letters of this redrive.")] = None,
    max_redrives: MaxRedrives = _MAX_REDRIVES,
    first: Annotated[
        bool, typer.Option("--first", help="This is the first redrive from this topic; needed once.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Produce dead letters to the source topic again, each exactly once, once their cause is fixed.

    Killed or stopped, the next one goes on where it was. Key, value, timestamp, partition and the producer's headers
    are those of the record that was rejected.
    """
    settings = load_settings(config)
    from processor.dead_letters.redrive import Wanted
    from processor.dead_letters.redrive import redrive as run

    chosen = _selection(reason, since, until, partition, letter)
    wanted = Wanted(chosen, max_redrives, most, rate, first, dry_run)
    found = asyncio.run(run(settings, connection_of(settings), wanted, warn))
    if as_json:
        done = {"redriven": 0, "would_redrive": found.redriven} if dry_run else {"redriven": found.redriven}
        print_json({**done, "reasons": dict(found.reasons), "left": dict(found.left)}, indent=None)
    else:
        _print_outcome(found, is_dry=dry_run)
    end_with(0)


def _print_outcome(found: Outcome, *, is_dry: bool) -> None:
    done = "would be redriven" if is_dry else "redriven, each exactly once"
    print_line(f"{found.redriven} dead letters {done}{_listing(found.reasons)}")
    for name, number in sorted(found.left.items()):
        print_line(f"{number} left alone: {name}, {_WHY_LEFT.get(name, '')}")


_WHY_LEFT = {
    "parked": "redriven --max-redrives times and rejected each time; correct them and publish them anew",
    "reference": "names a snapshot that was too large, and is no source record; raise output.max_record_bytes",
    "part_of_a_record": "the record's other events were applied, and would be applied twice; publish the event anew",
    "incomplete": "its topic could not hold it whole; the source has it, if retention has not deleted it",
    "foreign": "no dead letter of this source topic",
    "too_large": "with the headers of a redrive it is over max.message.bytes of the source topic",
    "no_partition": "the source topic has not so many partitions any more",
    "timestamp_refused": "the source topic's message.timestamp.before.max.ms or .after.max.ms refuses their time",
}


def _selection(
    reasons: list[str] | None,
    since: str | None,
    until: str | None,
    partitions: list[int] | None,
    letters: list[str] | None,
) -> Selection:
    from processor.dead_letters.selection import parse_selection

    return parse_selection(reasons or (), since, until, partitions or (), letters or ())


def _facts(letter: Letter, state: State) -> dict[str, Any]:
    """Fields of a letter without its contents."""
    value, key = letter.record.value, letter.record.key
    return {
        "letter": letter.position,
        "state": state.value,
        "reason": letter.reason,
        "detail": letter.detail,
        "event_number": letter.event_number,
        "source_topic": letter.source_topic,
        "source_partition": letter.source_partition,
        "source_offset": letter.source_offset,
        "timestamp": utc_time(letter.timestamp),
        "attempt": letter.attempt,
        "key_bytes": None if key is None else len(key),
        "value_bytes": None if value is None else len(value),
        "headers": len(letter.record.headers),
    }


def _contents(letter: Letter) -> dict[str, Any]:
    from processor.core.header_names import shown
    from processor.dead_letters.letter import own_headers

    value = letter.record.value or b""
    told = {
        "key": _text(letter.record.key),
        "own_headers": [f"{shown(name)} = {_text(content)}" for name, content in own_headers(letter.record.headers)],
        "value": _text(letter.record.value and value[:_SHOWN_BYTES]),
    }
    if len(value) > _SHOWN_BYTES:
        told["cut"] = f"the value is longer: {len(value)} bytes, {_SHOWN_BYTES} shown"
    return told


def _text(content: bytes | None) -> str:
    return "(none)" if content is None else content.decode("utf-8", "backslashreplace")


def _counts(found: Statistics) -> dict[str, dict[str, int]]:
    return {
        "states": dict(found.states),
        "reasons": dict(found.reasons),
        "details": {f"{reason}: {detail}": number for (reason, detail), number in found.details.items()},
        "sources": {f"{topic} {partition}": number for (topic, partition), number in found.sources.items()},
        "attempts": {str(attempt): number for attempt, number in sorted(found.attempts.items())},
        "hours": {utc_time(hour): number for hour, number in sorted(found.hours.items())},
    }


def _listing(numbers: Any) -> str:
    rows: Iterable[tuple[str, int]] = sorted(numbers.items())
    text = ", ".join(f"{number} {name}" for name, number in rows)
    return f": {text}" if text else ""


def _console() -> Console:
    """Make the console; without a terminal it is without colours and as wide as needed."""
    return Console(width=None if sys.stdout.isatty() else 250, highlight=False)
