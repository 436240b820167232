"""No text of a record, a broker or an error reaches a terminal as it was written, whichever command prints it.

Each command prints what it found with a control sequence in every text of every field, as on a terminal.
"""

from __future__ import annotations

import enum
import io
import json
import re
import sys
import types
from collections.abc import Callable, Collection, Mapping
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Union, get_args, get_origin, get_type_hints

import msgspec
import pytest
import typer

from processor.audit.reconcile.command import Reconciled
from processor.audit.replay.outcome import Replayed
from processor.audit.report import folder
from processor.audit.report.compare import Against
from processor.audit.report.folder import Checked
from processor.audit.step_timeline import StepIncarnation
from processor.cli import check_config, doctor, explain, main, pause, reconcile, replay, report_check, top
from processor.config.settings import Output, Settings, Source
from processor.core.effects import LogRecord, Record
from processor.dead_letters.letter import Letter, State
from processor.dead_letters.reading import Statistics
from processor.dead_letters.redrive import Outcome
from processor.demo.screen import Screen
from processor.doctor.findings import Finding
from processor.errors import ConfigError
from processor.printable import print_json, print_line, print_lines, printable_json, warn
from processor.publish.publisher import EchoSink
from processor.serve import process_exit, processes
from processor.telemetry.telemetry import Telemetry
from processor.telemetry.worker_view import PartitionView, WorkerView

HOSTILE = "x\x1b[2J\x1b]0;owned\x07\x9b2J\x90q\u202e\x7f\r\udc80[red]\u2028"
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
"""What rich and the log say themselves; HOSTILE has none of it."""


def hostile(kind: Any) -> Any:
    """A value of this type with HOSTILE for every text in it."""
    if kind is str or kind is Any or kind is object:
        return HOSTILE
    if kind is bytes:
        return HOSTILE.encode("utf-8", "surrogatepass")
    if kind in (int, float, bool):
        return kind(1)
    if kind is Record:
        return LogRecord(1, 1, hostile(bytes), hostile(bytes), ((HOSTILE, hostile(bytes)),))
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return hostile(next(one for one in inner if one is not type(None)))
    if origin is Literal:
        return inner[-1]
    if origin is tuple and inner[-1] is not Ellipsis:
        return tuple(map(hostile, inner))
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return {hostile(inner[0]): hostile(inner[1])}
    if isinstance(origin, type) and issubclass(origin, Collection):
        return (tuple if origin is tuple else list)([hostile(inner[0])])
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return list(kind)[-1]
    if isinstance(kind, type) and (issubclass(kind, msgspec.Struct | tuple) or is_dataclass(kind)):
        fields = {
            name: hint
            for name, hint in get_type_hints(kind, None, {"Against": Against}).items()
            if get_origin(hint) is not ClassVar
        }
        names = kind.__struct_fields__ if issubclass(kind, msgspec.Struct) else fields
        return kind(**{name: hostile(fields[name]) for name in names if not name.startswith("_")})
    raise AssertionError(f"no value of {kind}: teach this function to make one")


class Reading:
    """Stands for the dead-letter topic: one letter with HOSTILE in every field."""

    letter = hostile(Letter)

    async def read_letters(self, *_: Any) -> Any:
        yield self.letter, State.WAITING

    async def read_letter(self, *_: Any) -> tuple[Letter, State]:
        return self.letter, State.WAITING

    async def count_letters(self, *_: Any) -> Statistics:
        found = Statistics()
        found.count(self.letter, State.WAITING)
        found.states[HOSTILE] += 1
        return found

    async def redrive(self, *_: Any) -> Outcome:
        return hostile(Outcome)  # type: ignore[no-any-return]


def _letters(command: str, *options: str) -> Callable[[pytest.MonkeyPatch], None]:
    def run(monkeypatch: pytest.MonkeyPatch) -> None:
        from processor.dead_letters import reading, redrive

        said = Reading()
        for name in ("read_letters", "read_letter", "count_letters"):
            monkeypatch.setattr(reading, name, getattr(said, name))
        monkeypatch.setattr(redrive, "redrive", said.redrive)
        main._run(["dead-letters", command, *options])

    return run


def _settings() -> Settings:
    """Settings as no file and no variable may give them: controls are refused there."""
    text = HOSTILE.replace("\udc80", "")
    source = Source().model_copy(update={"topic": text, "group_id": text})
    return Settings(source=source, output=Output().model_copy(update={"completed": text}))


def _error(*options: str) -> Callable[[pytest.MonkeyPatch], None]:
    def run(monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(*_: Any, **__: Any) -> None:
            raise ConfigError(f"topic {HOSTILE}: is not there\n{HOSTILE}", hint=HOSTILE)

        monkeypatch.setattr(check_config, "load_settings", fail)
        main._run([*options, "check-config"])

    return run


def _explain(_: object) -> None:
    explain._show_incarnation(hostile(StepIncarnation))


def _top(_: object) -> None:
    well, away = hostile(WorkerView), WorkerView(f"http://{HOSTILE}", 1.0, unreachable=HOSTILE)
    restoring = WorkerView("http://a", 1.0, partitions={1: PartitionView(1, restored=0.5), 2: hostile(PartitionView)})
    up = WorkerView("http://b", 1.0, "", (HOSTILE,), (HOSTILE,), HOSTILE)
    workers = [well, away, restoring, up]
    from processor.printable_console import Console

    Console().print(top._screen(workers, workers))


def _check_report(monkeypatch: pytest.MonkeyPatch) -> None:
    checked = hostile(Checked)
    for found in (checked, Checked(checked.manifest, [], is_page_drawn=False)):
        monkeypatch.setattr(folder, "check", lambda *_, found=found, **__: found)
        monkeypatch.setattr(report_check, "_signature", lambda *_: (HOSTILE, []))
        with pytest.raises(typer.Exit):
            report_check.check_report(Path(HOSTILE), [], None, [])  # type: ignore[arg-type]


def _demo(_: object) -> None:
    screen = Screen(1)
    screen.section(HOSTILE.replace("[", ""), HOSTILE.replace("[", ""))
    screen.say(HOSTILE)
    screen.good(HOSTILE)
    screen.bad(HOSTILE)
    screen.command(HOSTILE)
    screen.table([HOSTILE, HOSTILE], [[HOSTILE, HOSTILE]])


def _child(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object) -> int:
        raise ConfigError(HOSTILE, hint=HOSTILE)

    monkeypatch.setattr(processes, "run_to_exit", fail)
    monkeypatch.setattr(processes, "run_one", lambda *_, **__: None)
    monkeypatch.setattr("os._exit", lambda code: None)
    processes._child_main(Settings(), HOSTILE, None)  # type: ignore[arg-type]


def _log(form: str) -> Callable[[pytest.MonkeyPatch], None]:
    def run(_: object) -> None:
        class Terminal(io.StringIO):
            def isatty(self) -> bool:
                return True

        stream = Terminal()
        telemetry = Telemetry(stream=stream, format=form, worker=HOSTILE)
        fields = {
            "text": HOSTILE,
            "texts": [HOSTILE],
            "table": {HOSTILE: HOSTILE},
            "bytes": HOSTILE.encode("utf-8", "replace"),
        }
        for level in ("info", "warning", "error"):
            getattr(telemetry.log, level)("listening", **fields)
        telemetry.close()
        sys.stdout.write(stream.getvalue())

    return run


def _pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pause, "_ask", lambda *_: HOSTILE)
    pause.resume(1)


def _publish(_: object) -> None:
    import asyncio

    asyncio.run(EchoSink(print_line).send("in", json.dumps(HOSTILE).encode(), key=b"k\x1b[2J"))
    raw = '"\x7f\u202e"'.encode()
    asyncio.run(EchoSink(print_line).send("in", raw, key=b"k"))


def _prints(_: object) -> None:
    print_line(HOSTILE)
    print_lines(HOSTILE)
    print_json({HOSTILE: HOSTILE})
    warn(HOSTILE)


def _check_config(*, as_json: bool) -> Callable[[pytest.MonkeyPatch], None]:
    def run(monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(check_config, "load_settings", lambda _: _settings())
        check_config.check_config(as_json=as_json)

    return run


PRINTED: Mapping[str, Callable[[pytest.MonkeyPatch], None]] = {
    "check-config": _check_config(as_json=False),
    "check-config --json": _check_config(as_json=True),
    "dead-letters list": _letters("list"),
    "dead-letters list --json": _letters("list", "--json"),
    "dead-letters show": _letters("show", "0:1", "--contents"),
    "dead-letters show --json": _letters("show", "0:1", "--contents", "--json"),
    "dead-letters stats": _letters("stats"),
    "dead-letters stats --json": _letters("stats", "--json"),
    "dead-letters redrive": _letters("redrive"),
    "dead-letters redrive --dry-run": _letters("redrive", "--dry-run", "--json"),
    "demo": _demo,
    "doctor": lambda _: doctor._print([hostile(Finding)], everything=True),
    "an error": _error(),
    "an error with --debug": _error("--debug"),
    "an error of a worker process": _child,
    "explain": _explain,
    "log on a terminal": _log("console"),
    "log in JSON": _log("json"),
    "publish --dry-run": _publish,
    "reconcile": lambda _: reconcile._print_summary(hostile(Reconciled)),
    "replay": lambda _: replay._print_summary(hostile(Replayed)),
    "replay --check": _check_report,
    "resume": _pause,
    "top": _top,
    "all ways to print": _prints,
}


@pytest.mark.parametrize("as_terminal", [True, False], ids=["terminal", "pipe"])
@pytest.mark.parametrize("what", PRINTED)
def test_nothing_that_was_read_reaches_the_terminal_as_it_was_written(
    what: str, as_terminal: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if as_terminal:
        monkeypatch.setenv("FORCE_COLOR", "1")
        monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    PRINTED[what](monkeypatch)
    said = capsys.readouterr()
    printed = _COLOURS.sub("", said.out + said.err)
    assert "2J" in printed, "the texts were printed at all"
    assert not {c for c in printed if not c.isprintable() and c != "\n"}


def test_the_last_word_of_a_process_that_is_ended_by_force_is_clean(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    async def fail() -> int:
        raise ConfigError(HOSTILE, hint=HOSTILE)

    ended: list[tuple[Any, ...]] = []

    class Timer:
        def __init__(self, _: float, call: Callable[..., None], arguments: tuple[Any, ...]) -> None:
            ended.append(arguments)

        def start(self) -> None: ...

        def cancel(self) -> None: ...

    monkeypatch.setattr("threading.Timer", Timer)
    monkeypatch.setattr("os._exit", lambda code: None)
    monkeypatch.setattr(process_exit, "ignore_further_signals", lambda: None)  # this process goes on
    with pytest.raises(ConfigError):
        process_exit.run_to_exit(fail())
    process_exit._end_by_force(*ended[0])
    said = capfd.readouterr().err
    assert "owned" in said
    assert all(c.isprintable() or c == "\n" for c in said)


def test_escaped_json_is_the_same_json() -> None:
    text = json.dumps({HOSTILE.replace("\udc80", ""): ["\U0001f600\U000e0001", 1.50]}, ensure_ascii=False, indent=1)
    assert json.loads(printable_json(text)) == json.loads(text)
    assert printable_json(text).isprintable()
