"""The end of a process that has said all: as Python's own, but for what is left in memory."""

from __future__ import annotations

import os
import subprocess
import sys

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
