"""`run-steps serve`: run one worker here or several in processes, and end with an exit code."""

from __future__ import annotations

from processor.config.settings import Settings
from processor.errors import ConfigError
from processor.kafka.client_config import Connection
from processor.serve.descriptors import descriptor_limit, require_descriptors
from processor.serve.process_exit import run_to_exit
from processor.serve.processes import run_several
from processor.serve.supervisor import run_one
from processor.serve.tracing import require_extra


def serve(settings: Settings, *, create_topics: bool, workers: int) -> int:
    """Run until SIGTERM or SIGINT, or until a worker incarnation ends for good. Returns the exit code.

    Raises:
        RunStepsError: the settings, the topics or the broker make serving impossible.
    """
    if not __debug__:
        raise ConfigError("python: run with -O, which takes the safety checks out", hint="start it without -O")
    require_descriptors(descriptor_limit(), workers)
    Connection.build(**settings.kafka.connection())  # files and combinations, before the first connection
    require_extra(settings)
    if workers == 1:
        return run_to_exit(run_one(settings, create_topics=create_topics, name=None, announce=None))
    return run_to_exit(run_several(settings, create_topics=create_topics, workers=workers))
