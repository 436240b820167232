"""The command `run-steps`: registers the commands and maps errors to exit codes.

Heavy modules are imported inside the commands, so that `--help` and a wrong option answer at once.
"""

from __future__ import annotations

import os
import sys
import traceback
import warnings
from pathlib import Path
from typing import Annotated, Final, NoReturn

import typer

from processor.cli.check_config import check_config
from processor.cli.dead_letters import dead_letters
from processor.cli.demo import broker, demo
from processor.cli.doctor import doctor
from processor.cli.explain import explain
from processor.cli.export import export
from processor.cli.leaving import end_on_sigterm, leave
from processor.cli.options import settings_note
from processor.cli.pause import pause, resume
from processor.cli.publish import publish
from processor.cli.reconcile import reconcile
from processor.cli.replay import replay
from processor.cli.reset import reset
from processor.cli.serve import serve
from processor.cli.simulate import simulate
from processor.cli.standard_streams import open_standard_streams
from processor.cli.top import top
from processor.core.rules import MAX_DIGITS
from processor.errors import RunStepsError, UsageError, of_system
from processor.printable import print_line, print_lines

EXIT_USAGE = UsageError.exit_code
EXIT_BUG = RunStepsError.exit_code

app = typer.Typer(
    name="run-steps",
    help="Finished run steps from the event stream of AI agents, exactly once, on Kafka.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        from processor.commit import commit
        from processor.compilation import why_not_compiled
        from processor.core.build import CORE
        from processor.core.effects import FOLD_VERSION

        print_line(f"run-steps {version('run-steps')} (core: {CORE}, fold version: {FOLD_VERSION}, commit: {commit()})")
        if CORE == "pure" and (reason := why_not_compiled()):
            print_line(f"the core was not compiled when this was installed: {reason}")
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Options before the command. `main` looks for --debug itself: errors may come before this is called."""


_PANELS: Final = {
    "Try it": (demo, broker, simulate),
    "Run it": (check_config, doctor, serve, top, pause, resume, publish, reset),
    "Audit it": (replay, explain, reconcile),
}
"""The commands in the order of use, as `--help` groups them."""

for _panel, _commands in _PANELS.items():
    for _command in _commands:
        app.command(_command.__name__.replace("_", "-"), rich_help_panel=_panel)(_command)
app.add_typer(dead_letters, name="dead-letters", rich_help_panel="Run it")
app.add_typer(export, name="export", rich_help_panel="Run it")


def main() -> NoReturn:
    """The console script. Exits with 0, a code of `processor.errors` (64: wrong command line), or 130 (Ctrl-C)."""
    open_standard_streams()
    end_on_sigterm()
    os.umask(os.umask(0o077) | 0o077)  # archives, reports and work files hold what agents and people said
    sys.set_int_max_str_digits(MAX_DIGITS)  # or PYTHONINTMAXSTRDIGITS would decide what is dead-lettered
    # After a Ctrl-C between the creation of a coroutine and its first step, hide Python's warning about it.
    warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
    code = _run(sys.argv[1:])
    # Under `python -m`, a Ctrl-C that crossed an exec of source (a dataclass being made, say) would end the process by
    # SIGINT, whatever is caught and returned: CPython remembers it until the next such exec.
    exec("")  # noqa: S102
    if sys.argv[1:2] == ["replay"]:
        leave(code)
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
        told = denied or exc
        _say(f"{told}{settings_note(told)}", debug)
        return told.exit_code
    except Exception as exc:
        if (denied := of_system(exc)) is not None:
            _say(str(denied), debug)
            return denied.exit_code
        wrong = _not_utf_8(args) if isinstance(exc, UnicodeEncodeError) else ""
        if wrong := wrong or _path_of(exc, args):
            _say(wrong, debug)
            return EXIT_USAGE
        # Its text may quote a record or a setting, so only its type and place are printed without --debug.
        last = traceback.extract_tb(exc.__traceback__)[-1]
        where = f"{Path(last.filename).name}:{last.lineno}"
        _say(f"{where}: unexpected {type(exc).__name__}\n  hint: a bug of ours; --debug shows more", debug)
        return EXIT_BUG
    return 0


def _not_utf_8(args: list[str]) -> str:
    """The first argument that no text can be made of; "" where there is none. A path may be one, and works."""
    for number, arg in enumerate(args, 1):
        if any("\ud800" <= character <= "\udfff" for character in arg):
            return f"argument {number}: not UTF-8 (got {arg!r})\n  hint: topics, ids and values are UTF-8"
    return ""


def _path_of(exc: Exception, args: list[str]) -> str:
    """Message for a path of the command line, or one below it, that the system refuses; "" for any other error."""
    if not isinstance(exc, OSError) or not isinstance(exc.filename, str | os.PathLike):
        return ""
    path = os.path.abspath(exc.filename)
    for arg in (arg.rpartition("=")[2] for arg in args):
        folder = os.path.abspath(arg)
        if path == folder or (arg and path.startswith(folder + os.sep)):
            return f"{os.fspath(exc.filename)}: {exc.strerror}\n  hint: name another path"
    return ""


def _say(message: str, debug: bool) -> None:
    if debug:
        print_lines(traceback.format_exc(), to_stderr=True)
    print_lines(f"run-steps: {message}", to_stderr=True)
