"""Standard input, output and error of a process whose caller has closed them."""

from __future__ import annotations

import os
import sys


def open_standard_streams() -> None:
    """Open the null device in place of each standard descriptor that is closed, for worker processes as well.

    The next socket would get its number: what is written to standard error would go to a broker, and uvloop ends a
    process (SIGABRT) that closes a socket of such a number.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)  # the lowest number that is free: this one
            os.set_inheritable(opened, True)
    if sys.stdout is None:
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115
