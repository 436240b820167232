"""Every door to the fold sets how long an integer may be: the environment must not decide what is dead-lettered."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from processor.core.rules import MAX_DIGITS

TELL = "tell = lambda *_: print(sys.get_int_max_str_digits(), file=sys.stderr) or 0"
DOORS = {
    "command": "from processor.cli import main as cli\ncli._run = tell\ncli.main()",
    "worker process": (
        "from processor.serve import processes\nprocesses.run_one = lambda *_, **__: None\n"
        "processes.run_to_exit = tell\nprocesses._child_main(None, '0', None)"
    ),
    "replay task": (
        "from processor.audit.replay import partition_task\nfrom processor.audit.replay.run_task import run_task\n"
        "partition_task.run = tell\nrun_task(None)"
    ),
}
DECODED = (
    "from processor.core.events import decode\n"
    'print(type(decode(b\'{"event":"thread.run.step.created","data":{"id":"s1","n":%b}}\' % (b"7" * 1000))).__name__)'
)


@pytest.mark.parametrize("door", DOORS)
def test_the_environment_has_no_say_in_how_long_an_integer_may_be(door: str) -> None:
    done = _python(f"import sys\n{TELL}\n{DOORS[door]}", digits=640)
    assert done.stderr.strip() == str(MAX_DIGITS)


def test_unset_it_would_decide_outcomes() -> None:
    """Why this is needed at all; if this fails, the decoder has become independent of the interpreter's limit."""
    assert _python(DECODED, digits=640).stdout.strip() == "Rejected"
    assert _python(DECODED, digits=MAX_DIGITS).stdout.strip() == "Decoded"


def _python(code: str, digits: int) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONINTMAXSTRDIGITS": str(digits)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
