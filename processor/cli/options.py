"""Options and helpers that several commands share."""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from processor.core.header_names import is_utf8
from processor.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from processor.config.settings import Settings
    from processor.errors import RunStepsError
    from processor.kafka.client_config import Connection

ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", "-c", envvar="RUN_STEPS_CONFIG", help="TOML file with the settings.", show_default=False),
]


_loaded: list[Settings] = []
"""The settings of this run of the command, once they are read."""


def load_settings(path: Path | None) -> Settings:
    from processor.config.loading import load

    settings = load(path, os.environ)
    _loaded[:] = [settings]
    return settings


def settings_note(error: RunStepsError) -> str:
    """Note on the settings behind an error: the principal that was refused, or the key that names a missing topic."""
    return _permission_note(error) or _topic_note(error)


def _topic_note(error: RunStepsError) -> str:
    """The keys, or the option, that name a missing topic; empty for other errors."""
    from processor.kafka.errors import TopicMissing

    if not isinstance(error, TopicMissing):
        return ""
    keys = [key for key, topic in topics_by_key(_loaded[0]).items() if topic == error.topic] if _loaded else []
    if not keys:
        return "\n  named by: --topic"
    off = {"output.completed", "output.failed", "output.cancelled"}.intersection(keys)
    return f"\n  named by: {', '.join(keys)} (`run-steps check-config` shows where it is set)" + (
        '; "" there if this outcome is not published' if off else ""
    )


def topics_by_key(settings: Settings) -> dict[str, str]:
    """The topics in force by the key that names them. Checkpoints are named by the source's where they have no key."""
    checkpoints = "checkpoints.topic" if settings.checkpoints.topic else "checkpoints.topic, by source.topic"
    return {
        "source.topic": settings.source.topic,
        **{f"output.{status}": topic for status, topic in settings.outcome_topics.items()},
        "output.dead_letter": settings.output.dead_letter,
        checkpoints: settings.checkpoint_topic,
    }


def _permission_note(error: RunStepsError) -> str:
    """Principal that the broker refused, and the permissions that a worker needs there; empty for other errors."""
    from processor.kafka.errors import PermissionMissing

    if not isinstance(error, PermissionMissing) or not _loaded:
        return ""
    from processor.doctor.permissions import needed, principal_of

    settings = _loaded[0]
    needs, operations = needed(settings), dict[str, list[str]]()
    named = set(re.findall(r"[\w.-]+", error.message))
    # The topics' names usually begin as the transactional ids do.
    others = named - {need.name for need in needs}
    for need in needs:
        if need.name in named or (need.pattern == "prefixed" and any(name.startswith(need.name) for name in others)):
            operations.setdefault(f"{need.resource.replace('_', ' ')} {need.name}", []).append(need.operation)
    told = "".join(f"; a worker needs {', '.join(wanted)} on {what}" for what, wanted in operations.items())
    return (
        f"\n  principal: {principal_of(settings.kafka)}{told}"
        "\n  all that is missing: run-steps doctor; the table: docs/operations.md, Permissions"
    )


def require_text(option: str, values: Iterable[str], hint: str = "ids are UTF-8, as all JSON is") -> None:
    """Raises UsageError: an argument holds bytes that are no UTF-8. Python has them as halves of surrogate pairs."""
    for value in values:
        if not is_utf8(value):
            raise UsageError(f"{option}: not UTF-8 (got {value[:80]!r})", hint=hint)


def end_with(code: int) -> NoReturn:
    raise typer.Exit(code)


def connection_of(settings: Settings) -> Connection:
    # The client would log the same fault that our own error reports.
    logging.getLogger("aiokafka").addHandler(logging.NullHandler())
    from processor.kafka.client_config import Connection

    return Connection.build(**settings.kafka.connection())
