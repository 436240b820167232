"""The end of a process that has said all: as Python's own, but for what is left in memory."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

LEFT = "from processor.cli.leaving import leave\nimport atexit, sys\n"
HOLDS = "class Held:\n    def __del__(self): print('taken apart')\nheld = Held()\n"


def ended(program: str) -> tuple[int, str]:
    done = subprocess.run([sys.executable, "-c", LEFT + program], capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout


def test_exit_functions_run_and_output_is_flushed() -> None:
    program = HOLDS + "atexit.register(print, 'bye')\nprint('said')\nleave(3)"
    assert ended(program) == (3, "said\nbye\n"), "and nothing is taken apart"


def test_threads_that_are_left_are_waited_for() -> None:
    program = (
        "import threading, time\n"
        "threading.Thread(target=lambda: (time.sleep(0.3), print('done'))).start()\n" + HOLDS + "leave(4)"
    )
    assert ended(program) == (4, "done\ntaken apart\n")


def test_who_traces_or_profiles_the_process_hears_its_end() -> None:
    for how in ("settrace", "setprofile"):
        program = f"sys.{how}(lambda *_: None)\ntry:\n    leave(5)\nexcept SystemExit as end:\n    print(end.code)"
        assert ended(program) == (0, "5\n")


def test_output_that_nobody_reads_is_said_as_ever() -> None:
    for end in ("leave(0)", "sys.exit(0)"):
        program = f"{LEFT}import os\nprint('said')\nos.close(1)\n{end}"
        buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=buffered, timeout=60)
        assert done.returncode == 120
        assert "OSError" in done.stderr


FIRST = """
import os, sys, time
os.getpid = lambda: 1
sys.argv = ["run-steps", "serve"]

class Slow:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == {slow!r}:
            print("importing", flush=True)
            time.sleep(60)

sys.meta_path.insert(0, Slow)
{begin}
"""
"""A program that is the first process of its container, as far as it can tell, and slow to import one module."""


@pytest.mark.parametrize(
    ("begin", "slow"),
    [
        ("import runpy; runpy.run_module('processor', run_name='__main__')", "typer"),
        ("import runpy; runpy.run_module('processor', run_name='__main__')", "processor.serve.command"),
        ("from processor.cli.main import main; main()", "processor.serve.command"),
    ],
    ids=["module-imports", "module-begins", "script-begins"],
)
def test_sigterm_ends_the_first_process_of_a_container_while_it_begins(begin: str, slow: str, tmp_path: Path) -> None:
    """The kernel drops it where there is no handler: a pod worked on through its whole grace period, to 137."""
    program = FIRST.format(begin=begin, slow=slow)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, cwd=tmp_path, env=environment
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "importing\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(50) == 143, "-15 is the end by default, which process 1 does not have"


def test_any_other_process_is_left_to_the_default() -> None:
    program = "import signal\nfrom processor.cli.leaving import end_on_sigterm\nend_on_sigterm()\n"
    assert ended(program + "print(signal.getsignal(signal.SIGTERM) is signal.SIG_DFL)") == (0, "True\n")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_that_comes_once_a_worker_has_ended_changes_no_exit_code(number: signal.Signals) -> None:
    """A second SIGTERM made 143 of the 0 that the log had told: the loop was closed, and its handlers gone."""
    program = (
        "import os, sys\nfrom processor.serve.process_exit import run_to_exit\n"
        "async def main(): return 0\n"
        f"code = run_to_exit(main())\nos.kill(os.getpid(), {int(number)})\nsys.exit(code)"
    )
    assert ended(program) == (0, "")
