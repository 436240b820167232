"""Exit of a command's process: at once when all is written, and on a SIGTERM that comes before `serve` handles it."""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
from typing import NoReturn


def end_on_sigterm() -> None:
    """Have SIGTERM end the first process of a container, with 143, as it ends any other.

    The kernel keeps from process 1 every signal that it has no handler for: one that came before `serve` has its own
    was lost, and the container worked on until it was killed. `serve` replaces this handler.
    """
    if os.getpid() == 1:
        signal.signal(signal.SIGTERM, lambda number, _: os._exit(128 + number))


def leave(code: int) -> NoReturn:
    """End the process with this exit code, and leave what it holds in memory to the system.

    Python takes each module apart and collects garbage three times: a tenth of a second of CPU time after a replay.
    Exit functions run and output is flushed as ever. Where threads are left, where somebody traces or profiles the
    process, or where output cannot be flushed, it ends as any other does.
    """
    if len(threading.enumerate()) == 1 and sys.gettrace() is None and sys.getprofile() is None:
        atexit._run_exitfuncs()
        try:
            for stream in (sys.stdout, sys.stderr):
                if stream is not None:
                    stream.flush()
        except (OSError, ValueError):
            sys.exit(code)
        os._exit(code)
    sys.exit(code)
