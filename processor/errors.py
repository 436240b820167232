"""Every exception this program raises on purpose, and the exit code it ends with (sysexits.h).

RunStepsError
├── ConfigError           the settings are wrong; a restart will not help                  exit 78
├── UsageError            the command line asks for something impossible or unsafe         exit 64
├── BrokerUnavailable     the broker did not answer within its time; a restart may help    exit 75
├── BrokerRefused         the broker answered no (authentication, ACL, missing topic)      exit 77
├── Fenced                another member owns our partitions now; rejoin from the log      (restarts inside, then 75)
├── PartsUnavailable      the embedded broker needs parts that are not here nor to be had   exit 69
├── PartsRefused          a part of the embedded broker is not the file we know            exit 65
├── OutOfMemory           the process may not have more memory; nothing was decided on that   exit 71
├── OutOfSpace            a disk, or our share of it, is full; the path is named               exit 74
├── CorruptLog            the broker's log or a checkpoint cannot be what we wrote         exit 65
└── TooManyRejections     the breaker: the input is mostly unusable, a person must look    exit 65

Bad *records* are not exceptions: see `Rejected` in core/effects.py.
Messages read `where: which: what is wrong (got X)`, then the remedy after "hint:". No payload, no secrets.
"""

from __future__ import annotations

import errno
from typing import ClassVar, Final

_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})


class RunStepsError(Exception):
    """The root. `exit_code` is what the process ends with if nothing handles it."""

    exit_code: ClassVar[int] = 70

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  hint: {self.hint}" if self.hint else self.message


class ConfigError(RunStepsError):
    exit_code = 78


class UsageError(RunStepsError):
    exit_code = 64


class BrokerUnavailable(RunStepsError):
    exit_code = 75


class BrokerRefused(RunStepsError):
    exit_code = 77


class Fenced(RunStepsError):
    exit_code = 75


class PartsUnavailable(RunStepsError):
    exit_code = 69


class PartsRefused(RunStepsError):
    exit_code = 65


class OutOfMemory(RunStepsError):
    exit_code = 71


class OutOfSpace(RunStepsError):
    exit_code = 74


class CorruptLog(RunStepsError):
    exit_code = 65


class TooManyRejections(RunStepsError):
    exit_code = 65


_WANT_OF_MEMORY: Final = ("failed to map segment", "annot allocate memory", "can't start new thread")
"""How the dynamic loader and CPython say it in errors that have no number: a thread needs memory for its stack."""


def _is_want_of_memory(error: BaseException) -> bool:
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    if isinstance(error, ImportError | RuntimeError):
        return any(words in str(error) for words in _WANT_OF_MEMORY)
    return isinstance(error, MemoryError)


def of_system(error: BaseException) -> RunStepsError | None:
    """Translate an error of the operating system: no memory, or no space on a disk; None for any other.

    Causes and contexts are looked at, too: libraries wrap such errors in their own.
    """
    seen: BaseException | None = error
    visited: set[int] = set()  # an error that was raised again may stand in its own chain
    while seen is not None and id(seen) not in visited:
        visited.add(id(seen))
        if isinstance(seen, BaseExceptionGroup) and seen.exceptions:
            seen = seen.exceptions[0]
        if isinstance(seen, OutOfMemory | OutOfSpace):
            return seen
        if _is_want_of_memory(seen):
            return OutOfMemory(
                "memory: the process could not get as much as it needs",
                hint="raise its limit of memory (or of threads), or lower [source] fetch_max_bytes, max_poll_records "
                "or the step limits; nothing is lost, a restart goes on from the log",
            )
        if isinstance(seen, OSError) and seen.errno in _FULL:
            where = seen.filename or "a file"
            text = "the disk is full" if seen.errno == errno.ENOSPC else "the quota of this user on the disk is used up"
            return OutOfSpace(f"{where}: {text}", hint="make room there, or name a folder on another disk")
        seen = seen.__cause__ or seen.__context__
    return None
