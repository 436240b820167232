"""`run-steps reconcile`: options, and what it prints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from processor.cli import replay_options as option
from processor.cli.options import ConfigOption, connection_of, end_with, load_settings
from processor.errors import UsageError
from processor.printable import print_json, print_line

if TYPE_CHECKING:
    from processor.audit.reconcile.command import Reconciled
    from processor.audit.reconcile.comparison import StepResult

_SHOWN = 20
_WORDS = {"missing": "never seen", "extra": "published, not in the list"}


def reconcile(
    lists: Annotated[
        list[Path],
        typer.Argument(help="Files or folders: pages of run steps, arrays of them, response objects, or JSON lines."),
    ],
    config: ConfigOption = None,
    published: Annotated[
        list[Path] | None, typer.Option(help="Read what was published from this archive, not from the topics.")
    ] = None,
    capture_pattern: option.CapturePattern = "",
    partial: Annotated[bool, typer.Option("--partial", help="The lists do not hold all steps of their runs.")] = False,
    report: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the result as JSON to this new file.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Compare the steps that the service lists with those that were published.

    Reads only, joins no group. Exit code 0: all equal; 3: a difference was found; 4: not provable.
    """
    from processor.audit.replay.extra import require

    require("reconcile")
    if report is not None and report.exists():
        raise UsageError(f"reconcile: --report: {report}: is there already", hint="name a new file")
    settings = load_settings(config)
    from processor.audit.reconcile.command import reconcile as run

    option.warn_of_hidden_files(published or [])
    found = run(
        lists,
        settings,
        lambda: connection_of(settings),
        published=published or (),
        capture=option.capture_of(capture_pattern),
        partial=partial,
    )
    told = msgspec.to_builtins(found)
    if report is not None:
        report.write_text(json.dumps(told, indent=2) + "\n", "utf-8")
    if as_json:
        print_json(told)
    else:
        _print_summary(found)
    end_with(found.exit_code)


def _print_summary(found: Reconciled) -> None:
    print_line(found.verdict.value)
    told = ", ".join(f"{n:,} {_WORDS.get(name, name)}" for name, n in found.counts.items() if n)
    print_line(f"  steps: {told or 'none'} (of {found.runs:,} runs; {found.records:,} published records read)")
    disagreeing = [one for one in found.steps if one.verdict.value not in ("equal", "unverifiable")]
    undecided = [one for one in found.steps if one.verdict.value == "unverifiable"]
    for one in [*disagreeing, *undecided][:_SHOWN]:
        print_line(f"  {_line(one)}")
    more = len(disagreeing) + len(undecided) - _SHOWN
    if more > 0:
        print_line(f"  and {more:,} more (--report has all)")
    for what, paths in (("says nothing of", found.not_in_lists), ("alone has", found.only_in_lists)):
        if paths:
            print_line(f"  the list {what}: " + ", ".join(f"{path} ({n:,})" for path, n in paths.items()))
    for note in found.notes:
        print_line(f"  {note}")


def _line(one: StepResult) -> str:
    fields = ", ".join(f"{d.path}: {d.expected} (published {d.got})" for d in one.differences[:3])
    more = f", and {len(one.differences) - 3} more" if len(one.differences) > 3 else ""
    at = "" if one.at is None else f", on {one.at[0]}-{one.at[1]} at {one.at[2]}"
    said = "; ".join(filter(None, (fields + more, one.why)))
    verdict = _WORDS.get(one.verdict.value, one.verdict.value)
    return f"{verdict}: step {one.step_id} of run {one.run_id or '-'}{at}" + (f": {said}" if said else "")
