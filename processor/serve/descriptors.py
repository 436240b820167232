"""File descriptors of a worker process: how many it may have (`RLIMIT_NOFILE`), and what it needs of them."""

from __future__ import annotations

import sys
from typing import Final

from processor.errors import ConfigError

NEEDED: Final = 48
"""With one broker a process that starts has up to 32 open, and HTTP has 8 of its own."""

ENOUGH: Final = 256
"""Below this a start is warned."""

PER_CHILD: Final = 6  # of the process with several workers: two pipes, and four requests at once to each
PER_BROKER: Final = 4  # connections: consumer, coordinator, producer, and one that reads checkpoints or asks for topics


def descriptor_limit() -> int | None:
    """Soft limit of open file descriptors, as it is now: another process may change it. None: no limit is known."""
    if sys.platform == "win32":
        return None
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if soft == resource.RLIM_INFINITY else soft


def require_descriptors(limit: int | None, workers: int) -> None:
    """Check that processes of this limit can work at all: workers, and the one that asks all of them for their status.

    Raises:
        ConfigError: it is too low.
    """
    needed = max(NEEDED, PER_CHILD * workers + 32)
    if limit is not None and limit < needed:
        raise ConfigError(
            f"RLIMIT_NOFILE: {limit} file descriptors for a process, which needs {needed} with one broker",
            hint="raise the limit to 1024: LimitNOFILE= of the service, or `ulimit -n 1024` before the start",
        )


def brokers_served(limit: int) -> int:
    """Number of brokers to which a process of this limit can be connected."""
    return 1 + (limit - NEEDED) // PER_BROKER
