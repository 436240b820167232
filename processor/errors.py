"""Every exception this program raises on purpose, and the exit code it ends with (sysexits.h).

RunStepsError
├── ConfigError           the settings are wrong; a restart will not help                  exit 78
├── UsageError            the command line asks for something impossible or unsafe         exit 64
├── BrokerUnavailable     the broker did not answer within its time; a restart may help    exit 75
├── BrokerRefused         the broker answered no (authentication, ACL, missing topic)      exit 77
├── Fenced                another member owns our partitions now; rejoin from the log      (restarts inside, then 75)
├── PartsUnavailable      the embedded broker needs parts that are not here nor to be had   exit 69
├── PartsRefused          a part of the embedded broker is not the file we know            exit 65
├── CorruptLog            the broker's log or a checkpoint cannot be what we wrote         exit 65
└── TooManyRejections     the breaker: the input is mostly unusable, a person must look    exit 65

Bad *records* are not exceptions: see `Rejected` in core/effects.py.
Messages read `where: which: what is wrong (got X)`, then the remedy after "hint:". No payload, no secrets.
"""

from __future__ import annotations

from typing import ClassVar


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


class CorruptLog(RunStepsError):
    exit_code = 65


class TooManyRejections(RunStepsError):
    exit_code = 65
