"""How a process ends that has said all it has to say."""

from __future__ import annotations

import atexit
import os
import sys
import threading
from typing import NoReturn


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
