"""The command line: exit codes, one line per error, and that it only wires."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import pty
import re
import subprocess
import sys
import termios
import types
from pathlib import Path
from typing import Any, cast

import click
import pytest
import typer

from processor.cli import main as cli
from processor.cli import options
from processor.commit import commit
from processor.config.settings import Settings, keys
from processor.core.build import CORE
from processor.core.effects import FOLD_VERSION
from processor.errors import BrokerUnavailable
from processor.kafka.errors import PermissionMissing

COMMANDS = ("serve", "check-config", "simulate", "publish", "replay", "explain", "broker", "demo")


@pytest.fixture(autouse=True)
def _no_settings_around(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("RUN_STEPS_")]:
        monkeypatch.delenv(name)


def stand_in(monkeypatch: pytest.MonkeyPatch, name: str, **attributes: Any) -> None:
    """Put a module in the place of one that takes long or does much."""
    module = types.ModuleType(name)
    vars(module).update(attributes)
    monkeypatch.setitem(sys.modules, name, module)
    package, _, leaf = name.rpartition(".")
    monkeypatch.setattr(importlib.import_module(package), leaf, module, raising=False)


def test_help_names_every_command_and_imports_nothing_heavy() -> None:
    """`run-steps --help` answers at once: no settings, no client, no event loop library."""
    code = (
        "import sys\nfrom processor.cli import main as cli\ncode = cli._run(['--help'])\n"
        "heavy = {'aiokafka', 'pydantic', 'aiohttp', 'prometheus_client', 'structlog'} & set(sys.modules)\n"
        "print('HEAVY', sorted(heavy))\nsys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "HEAVY []" in done.stdout
    for command in COMMANDS:
        assert f" {command} " in done.stdout


@pytest.mark.parametrize(
    "args",
    [
        ["nonsense"],
        ["top", "--once", "--every", "1e20"],
        ["simulate", "--rate", "inf"],
        ["simulate", "--out", "-", "--partitions", "99999999999999999999"],
        ["dead-letters", "redrive", "--dry-run", "--rate", "inf"],
        ["serve", "--workers", "0"],
        ["serve", "--nonsense"],
        ["broker", "--port", "x"],
    ],
)
def test_a_wrong_command_line_exits_64(args: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """sysexits EX_USAGE, not the 2 of the library."""
    assert cli._run(args) == 64
    assert capsys.readouterr().out == ""


def _commands(group: click.Command, name: tuple[str, ...] = ()) -> dict[tuple[str, ...], click.Command]:
    own = {name: group}
    for part, command in getattr(group, "commands", {}).items():
        own |= _commands(command, (*name, part))
    return own


ALL_COMMANDS = _commands(cast(click.Command, typer.main.get_command(cli.app)))


@pytest.mark.parametrize("name", ALL_COMMANDS, ids=" ".join)
def test_help_shows_every_word(
    name: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A section's name in brackets is taken for markup and vanishes."""
    monkeypatch.setenv("COLUMNS", "1000")
    assert cli._run([*name, "--help"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    command = ALL_COMMANDS[name]
    for told in [command.help, *(getattr(parameter, "help", None) for parameter in command.params)]:
        for sentence in (told or "").splitlines():
            assert " ".join(sentence.split()) in shown, sentence


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli._run(["--version"]) == 0
    told = f"core: {CORE}, fold version: {FOLD_VERSION}, commit: {commit()}"
    assert capsys.readouterr().out == f"run-steps 0.1.0 ({told})\n"


def test_a_permission_that_is_missing_on_a_topic_names_that_topic_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """By default the topics' names begin as the transactional ids do."""
    monkeypatch.setattr(options, "_loaded", [Settings()])

    def told(message: str) -> str:
        return options._permission_note(PermissionMissing(message))

    assert "on topic run-steps.failed\n" in told("topic run-steps.failed: refused")
    assert "transactional id" not in told("topic run-steps.failed: refused")
    assert "on transactional id run-steps.\n" in told("transactional id run-steps.worker-1: refused")


def test_a_folder_to_check_that_is_not_there_is_a_wrong_command_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """As an archive that is not there."""
    assert cli._run(["replay", "--check", str(tmp_path / "audti")]) == 64
    assert f"replay: --check: {tmp_path / 'audti'}: there is no such folder" in capsys.readouterr().err


@pytest.mark.parametrize("args", [["replay"], ["replay", "--check", "report"], ["explain", "step_1"]])
def test_without_the_extra_audit_it_says_how_to_get_it(args: list[str]) -> None:
    """In a process of its own, where nothing has imported the libraries yet."""
    code = (
        "import sys\nsys.modules.update(dict.fromkeys(('duckdb', 'fastavro', 'jinja2', 'markupsafe', 'pyarrow')))\n"
        f"from processor.cli import main as cli\nsys.exit(cli._run({args!r}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 64
    assert done.stderr == (
        f"run-steps: {args[0]}: needs the extra `audit` "
        "(not installed: duckdb, fastavro, jinja2, markupsafe, pyarrow)\n"
        "  hint: pip install 'run-steps[audit]'\n"
    )


# --- errors


def test_an_error_is_its_line_its_hint_and_its_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing on stdout, no traceback."""

    def serve(*_: object, **__: object) -> int:
        raise BrokerUnavailable("broker b:9092: silent since 12:00", hint="is it up?")

    stand_in(monkeypatch, "processor.serve.command", serve=serve)
    assert cli._run(["serve"]) == 75
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == "run-steps: broker b:9092: silent since 12:00\n  hint: is it up?\n"
    assert cli._run(["--debug", "serve"]) == 75
    assert "Traceback" in capsys.readouterr().err


def test_a_bug_is_named_by_type_and_place_and_keeps_its_text(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The text of an unexpected error may quote a record or a password."""

    def serve(*_: object, **__: object) -> int:
        raise ValueError("hunter2")

    stand_in(monkeypatch, "processor.serve.command", serve=serve)
    assert cli._run(["serve"]) == 70
    said = capsys.readouterr().err
    assert "unexpected ValueError" in said
    assert "test_cli.py:" in said
    assert "hunter2" not in said
    assert "Traceback" not in said


def test_an_argument_that_is_no_utf_8_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A topic or an id of such bytes was "a bug of ours" (70). Paths may have them."""

    def run(*_: object, topic: str, **__: object) -> int:
        topic.encode()
        return 0

    stand_in(monkeypatch, "processor.publish.command", run=run)
    assert cli._run(["publish", "--topic", "a\udcff"]) == 64
    assert "argument 3: not UTF-8 (got 'a\\udcff')" in capsys.readouterr().err


@pytest.mark.parametrize("spelled", [["--out", "{}"], ["--out={}"]])
@pytest.mark.parametrize("inside", ["", "/records.jsonl"])
def test_a_path_that_the_system_refuses_is_named(
    spelled: list[str], inside: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`--out` in a folder that is not there was "a bug of ours" (70)."""
    (tmp_path / "file").write_text("")
    path = f"{tmp_path}/file/x{inside}"
    assert cli._run(["simulate", "--runs", "1", *(word.format(path) for word in spelled)]) == 64
    assert f"run-steps: {path}: Not a directory" in capsys.readouterr().err
    assert cli._run(["simulate", "--runs", "1", "--out", ""]) == 64


def test_a_path_that_nobody_named_is_a_bug(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def serve(*_: object, **__: object) -> int:
        raise FileNotFoundError(2, "No such file or directory", "/opt/run-steps/lost")

    stand_in(monkeypatch, "processor.serve.command", serve=serve)
    assert cli._run(["serve"]) == 70
    assert "unexpected FileNotFoundError" in capsys.readouterr().err


def test_ctrl_c_exits_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def serve(*_: object, **__: object) -> int:
        raise KeyboardInterrupt

    stand_in(monkeypatch, "processor.serve.command", serve=serve)
    assert cli._run(["serve"]) == 130


def test_ctrl_c_while_a_class_is_made_exits_130(tmp_path: Path) -> None:
    """The interpreter remembers an interrupt that left `exec`, and would die of it under -m."""
    (tmp_path / "interrupted.py").write_text(
        "import sys, types\n"
        "from processor.cli import main as cli\n"
        "def serve(*_, **__):\n"
        "    exec('raise KeyboardInterrupt')\n"
        "sys.modules['processor.serve.command'] = types.SimpleNamespace(serve=serve)\n"
        "sys.argv[1:] = ['serve']\n"
        "cli.main()\n"
    )
    done = subprocess.run([sys.executable, "-m", "interrupted"], cwd=tmp_path, timeout=60)
    assert done.returncode == 130


def test_without_assertions_nothing_starts() -> None:
    """`python -O` would take out the checks that guard committed offsets."""
    done = subprocess.run(
        [sys.executable, "-O", "-m", "processor", "check-config"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 64
    assert "python -O" in done.stderr
    assert done.stdout == ""


# --- wiring


def test_serve_hands_on_settings_and_options(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """And exits with what the supervisor says."""
    seen: list[Any] = []

    def serve(settings: Any, *, create_topics: bool, workers: int) -> int:
        seen.append((settings.source.topic, create_topics, workers))
        return 65

    stand_in(monkeypatch, "processor.serve.command", serve=serve)
    path = tmp_path / "p.toml"
    path.write_text('[source]\ntopic = "t"\n')
    assert cli._run(["serve", "--config", str(path), "--create-topics", "--workers", "3"]) == 65
    monkeypatch.setenv("RUN_STEPS_CONFIG", str(path))
    assert cli._run(["serve"]) == 65
    assert seen == [("t", True, 3), ("t", False, 1)]


def test_wrong_settings_stop_serve_before_anything_starts(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def serve(*_: object, **__: object) -> int:
        raise AssertionError("started")

    stand_in(monkeypatch, "processor.serve.command", serve=serve)
    monkeypatch.setenv("RUN_STEPS_SOURCE__TOPPIC", "t")
    assert cli._run(["serve"]) == 78
    assert "did you mean RUN_STEPS_SOURCE__TOPIC?" in capsys.readouterr().err


def test_broker_and_demo_hand_on_their_options(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen: list[Any] = []

    def broker(port: int | None, data_dir: Path | None, echo: Any) -> int:
        seen.append((port, data_dir))
        return 0

    def demo(recordings: Path | None, keep: bool, runs: int, seed: int) -> int:
        seen.append((recordings, keep, runs, seed))
        return 1

    stand_in(monkeypatch, "processor.broker", serve=broker)
    stand_in(monkeypatch, "processor.demo", run=demo)
    assert cli._run(["broker", "--port", "9092", "--data-dir", str(tmp_path)]) == 0
    assert cli._run(["demo", "--recordings", str(tmp_path), "--keep", "--runs", "5", "--seed", "9"]) == 1
    assert cli._run(["demo", "--recordings", str(tmp_path / "none")]) == 64
    assert seen == [(9092, tmp_path), (tmp_path, True, 5, 9)]


# --- check-config


def test_check_config_shows_every_key_with_its_origin(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Plain lines where nobody looks, JSON on request; secrets in neither."""
    path = tmp_path / "p.toml"
    path.write_text('[kafka]\nsecurity_protocol = "SASL_SSL"\nsasl_mechanism = "PLAIN"\nsasl_username = "[bold]u"\n')
    monkeypatch.setenv("RUN_STEPS_KAFKA__SASL_PASSWORD", "hunter2")
    assert cli._run(["check-config", "--config", str(path)]) == 0
    plain = capsys.readouterr().out
    assert f'kafka.sasl_username = "[bold]u"  # {path}\n' in plain
    assert 'kafka.sasl_password = "(set)"  # RUN_STEPS_KAFKA__SASL_PASSWORD\n' in plain
    assert "http.port = 8080  # default\n" in plain
    assert len(plain.splitlines()) == len(list(keys()))
    assert cli._run(["check-config", "--config", str(path), "--json"]) == 0
    shown = capsys.readouterr().out
    document = json.loads(shown)
    assert document["kafka"]["sasl_password"] == {
        "value": "(set)",
        "origin": "env",
        "from": "RUN_STEPS_KAFKA__SASL_PASSWORD",
    }
    assert document["kafka"]["sasl_mechanism"] == {"value": "PLAIN", "origin": "file", "from": str(path)}
    assert document["http"]["port"] == {"value": 8080, "origin": "default"}
    assert "hunter2" not in plain + shown


def test_check_config_is_a_table_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where square brackets are text and not markup."""
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("RUN_STEPS_KAFKA__CLIENT_ID", "[red]x")
    assert cli._run(["check-config"]) == 0
    out = capsys.readouterr().out
    assert '"[red]x"' in out
    assert "supervisor.max_restarts" in out


def test_check_config_tells_all_mistakes_and_exits_78(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RUN_STEPS_HTTP__PORT", "99999")
    monkeypatch.setenv("RUN_STEPS_LOG__LEVEL", "loud")
    assert cli._run(["check-config"]) == 78
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("  hint: ") == 2


# --- simulate and publish without a broker


def test_simulate_writes_the_same_records_for_the_same_seed(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    out, again, expected = tmp_path / "a", tmp_path / "b", tmp_path / "e"
    args = ["simulate", "--runs", "3", "--seed", "5", "--param", "deltas=2", "--param", 'tools={"function": 1}']
    assert cli._run([*args, "--out", str(out), "--expected", str(expected)]) == 0
    assert cli._run([*args, "--out", str(again)]) == 0
    assert out.read_bytes() == again.read_bytes() != b""
    assert expected.stat().st_size > 0
    capsys.readouterr()
    assert cli._run(["simulate", "--list-params"]) == 0
    assert "disorder=" in capsys.readouterr().out


@pytest.mark.parametrize("parameter", ["disorder", "disorder=x", "nonsense=1", "disorder=2", "runs=many"])
def test_a_wrong_parameter_is_named(parameter: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert cli._run(["simulate", "--out", str(tmp_path / "o"), "--param", parameter]) == 64
    assert "simulate: " in capsys.readouterr().err


def test_publish_shows_the_records_without_a_broker(capsys: pytest.CaptureFixture[str]) -> None:
    """--dry-run: JSON lines on stdout, the count on stderr."""
    sample = Path(cli.__file__).parents[1] / "samples" / "message.sse"
    assert cli._run(["publish", "--dry-run", "--topic", "t", str(sample)]) == 0
    said = capsys.readouterr()
    records = [json.loads(line) for line in said.out.splitlines()]
    assert {record["topic"] for record in records} == {"t"}
    assert f"would publish {len(records)} events" in said.err
    assert cli._run(["publish", "--dry-run", "--format", "xml"]) == 64


def test_on_a_terminal_the_progress_of_a_replay_shows_rate_and_time_left() -> None:
    """Through a pseudo-terminal, as a person sees it. Fed until the bar has been drawn with both."""
    code = (
        "from processor.cli import replay as cli\nfrom processor.audit.replay.command import Progress\n"
        "with cli._progress() as show:\n"
        "    show(Progress('reading [bold]out', 0, 0))\n"
        "    for n in range(20_000):\n"
        "        show(Progress('folding and comparing', n, 40_000))\n"
    )
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(ours, (24, 120))
    with subprocess.Popen([sys.executable, "-c", code], stderr=theirs, env={**os.environ, "TERM": "xterm"}) as child:
        os.close(theirs)
        seen = b""
        with contextlib.suppress(OSError):  # the other end is closed: EIO
            while piece := os.read(ours, 1 << 16):
                seen += piece
    os.close(ours)
    assert child.returncode == 0, seen[-500:]
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", seen.decode("utf-8", "replace"))
    assert re.search(r"folding and comparing \S+ +[1-9]\d*/40000 +[\d,]+/s +\d+:\d\d:\d\d", text), text[-500:]
    assert text.endswith("\r"), "the bar takes itself away: what is printed next begins on a clean line"


@pytest.mark.parametrize(
    "args",
    [
        ["explain", "step_\udcff"],
        *(
            ["replay", option, "a\udcff"]
            for option in ("--steps", "--runs", "--threads", "--report", "--check", "--against")
        ),
    ],
    ids=lambda args: args[-2],
)
def test_an_argument_that_is_no_text_is_a_matter_of_usage(args: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """It was a bug of ours (70), or a report that nothing could read again."""
    assert cli._run(args) == 64
    assert "not UTF-8" in capsys.readouterr().err
