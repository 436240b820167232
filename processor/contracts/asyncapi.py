"""AsyncAPI 3 document of the topics: channels, messages, headers. Topic names are those of the default settings."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any, Final

from processor.config.settings import Settings
from processor.contracts.snapshot import snapshot_schema
from processor.core import headers as names
from processor.core.effects import Reason
from processor.core.event_headers import EVENT_ID, RUN_ID, SEQUENCE
from processor.core.lifecycle import TERMINAL
from processor.kafka import output_records
from processor.publish.outgoing import HEADER_ORIGIN

_COUNT: Final = r"^[0-9]+$"
_SHA256: Final = r"^[0-9a-f]{64}$"
_TEXT: Final = {"type": "string"}


def _text(description: str, pattern: str = "", **more: Any) -> dict[str, Any]:
    """A header's content: bytes of UTF-8 text, whatever it stands for."""
    return {"type": "string", "description": description, **({"pattern": pattern} if pattern else {}), **more}


_TRACE: Final = {
    "traceparent": _text("W3C trace context of the record that ended the step, as its producer wrote it."),
    "tracestate": _text("As `traceparent`."),
}

_CLOUDEVENTS: Final = {
    names.CONTENT_TYPE: _text("This and those that begin with `ce_`: only with `output.cloudevents_source`."),
    names.CE_SPECVERSION: _text("Version of CloudEvents.", enum=["1.0"]),
    names.CE_ID: _text("Unique in `ce_source` for each revision of a step.", r"^[0-9]+-[0-9]+-[0-9]+-[0-9a-f]{16}$"),
    names.CE_SOURCE: _text("What `output.cloudevents_source` says."),
    names.CE_TYPE: _text("The outcome.", enum=sorted(map(names.cloudevents_type, TERMINAL))),
    names.CE_SUBJECT: _text("The step id, percent-encoded; left out where that is longer than 1,024 bytes."),
}

PUBLISHED: Final[dict[str, dict[str, Any]]] = {
    names.SOURCE_TOPIC: _text("Source topic of the step's events."),
    names.SOURCE_PARTITION: _text("Its partition.", _COUNT),
    names.FIRST_OFFSET: _text("Offset of the first record that the step was made of.", _COUNT),
    names.LAST_OFFSET: _text("Offset of the record that ended or amended it.", _COUNT),
    names.EVENTS: _text("How many events were folded in.", _COUNT),
    names.REVISION: _text("0 for the first publication of a step; a later one replaces it, whole.", _COUNT),
    names.VERSION: _text("Version of the fold that made the bytes.", _COUNT),
    names.RULES: _text("Digest of the settings that decide what a log means ([steps] and some others)."),
    names.DIGEST: _text("SHA-256 of the record's value, hexadecimal.", _SHA256),
    names.INFERRED: _text("Only where its run's end or its deadline ended the step.", enum=["run", "deadline"]),
    names.CLOCK_MARK: _text("Only where the clock ended it: `<milliseconds>@<position>`.", r"^[0-9]+@[0-9]+$"),
    names.ANOMALIES: _text("Only where there are any: names, sorted, separated by commas."),
    **_TRACE,
    **_CLOUDEVENTS,
}  # fmt: skip
"""Headers of a published step, by name."""

DEAD_LETTER: Final[dict[str, dict[str, Any]]] = {
    names.REASON: _text("Why the record could not be used.", enum=sorted(Reason)),
    names.DETAIL: _text("What exactly was wrong, without contents."),
    names.EVENT_NUMBER: _text("Only of a record of several events: which was refused.", r"^[0-9]+/[0-9]+$"),
    names.SOURCE_TOPIC: PUBLISHED[names.SOURCE_TOPIC],
    names.SOURCE_PARTITION: PUBLISHED[names.SOURCE_PARTITION],
    names.SOURCE_OFFSET: _text("Offset of the record on the source topic.", _COUNT),
    names.SOURCE_TIMESTAMP: _text("Its timestamp, milliseconds.", r"^-?[0-9]+$"),
    names.ATTEMPT: _text("How often it has been set aside, this time included.", _COUNT),
    names.VERSION: PUBLISHED[names.VERSION],
    names.CLOCK_MARK: _text("Only of a reference to a step that the clock ended.", r"^[0-9]+@[0-9]+$"),
    output_records.OMITTED_BYTES: _text("Only where the value was too large for the topic: its size.", _COUNT),
    output_records.OMITTED_DIGEST: _text("And its SHA-256, hexadecimal.", _SHA256),
    output_records.OMITTED_HEADERS: _text("How many of the record's own headers were left out.", _COUNT),
    output_records.OMITTED_KEY: _text("Size of the key that was left out.", _COUNT),
}
"""Headers that a dead letter has behind the record's own, by name."""

SOURCE: Final[dict[str, dict[str, Any]]] = {
    EVENT_ID: _text("Id of the event: one that comes again is not folded again."),
    RUN_ID: _text("Id of the run, or of the response, of an event that does not say it; else the key counts."),
    SEQUENCE: _text("Place of the event in its stream, as `publish` counts it. The fold does not read it."),
    HEADER_ORIGIN: _text("Of a response object that `publish` was given in place of a stream.", enum=["retrieved"]),
    names.ATTEMPT: _text("Of a redriven dead letter: how often it had been set aside.", _COUNT),
    names.REDRIVEN: _text("Of a redriven dead letter: where it stood, `<topic>/<partition>/<offset>`."),
    **_TRACE,
}
"""Headers of a source record that mean something here; all are optional."""

_OPTIONAL: Final = {names.INFERRED, names.CLOCK_MARK, names.ANOMALIES, *_TRACE, *_CLOUDEVENTS}
_ALWAYS_DEAD: Final = (
    names.REASON, names.DETAIL, names.SOURCE_TOPIC, names.SOURCE_PARTITION, names.SOURCE_OFFSET,
    names.SOURCE_TIMESTAMP, names.ATTEMPT, names.VERSION,
)  # fmt: skip


def asyncapi() -> dict[str, Any]:
    """The document, as a worker sees the topics: it receives events and sends steps and dead letters."""
    settings = Settings()
    outcomes = dict(settings.outcome_topics)
    channels = {"events": _channel(settings.source.topic, "event", "Run-step events, keyed by run id.")}
    operations = {"receiveEvents": _operation("receive", "events", "The worker folds the events of each step.")}
    for status, topic in sorted(outcomes.items()):
        channels[status] = _channel(topic, "step", f"Steps that ended as `{status}`, keyed by step id.")
        operations[f"send{status.title()}"] = _operation(
            "send", status, "Once for each step, once more for a revision."
        )
    channels["deadLetters"] = _channel(settings.output.dead_letter, "deadLetter", "Records that could not be used.")
    operations["sendDeadLetters"] = _operation("send", "deadLetters", "Key, value and headers as they came.")
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "run-steps",
            "version": version("run-steps"),
            "description": "Finished run steps from the event stream of AI agents. The checkpoint topic is internal.",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "channels": channels,
        "operations": operations,
        "components": {"messages": _messages()},
    }


def _channel(topic: str, message: str, description: str) -> dict[str, Any]:
    return {
        "address": topic,
        "description": description,
        "messages": {message: {"$ref": f"#/components/messages/{message}"}},
    }


def _operation(action: str, channel: str, summary: str) -> dict[str, Any]:
    return {"action": action, "channel": {"$ref": f"#/channels/{channel}"}, "summary": summary}


def _messages() -> dict[str, Any]:
    schema = {key: value for key, value in snapshot_schema().items() if key != "$schema"}
    return {
        "event": _message(
            "Event",
            SOURCE,
            (),
            {
                "description": "A JSON object with `event` and `data`, a bare object, a CloudEvent, or SSE text.",
                **_TEXT,
            },
            "text/plain",
            "Run id.",
        ),
        "step": _message(
            "Step", PUBLISHED, sorted(PUBLISHED.keys() - _OPTIONAL), schema, "application/json", "Step id."
        ),
        "deadLetter": _message(
            "Dead letter",
            DEAD_LETTER,
            sorted(_ALWAYS_DEAD),
            {"description": "The record's own value; of a reference, a JSON object of ids and offsets.", **_TEXT},
            "application/octet-stream",
            "The record's own.",
        ),
    }


def _message(
    title: str,
    headers: dict[str, dict[str, Any]],
    required: tuple[str, ...] | list[str],
    payload: dict[str, Any],
    content_type: str,
    key: str,
) -> dict[str, Any]:
    return {
        "title": title,
        "contentType": content_type,
        "headers": {"type": "object", "properties": headers, **({"required": list(required)} if required else {})},
        "payload": payload,
        "bindings": {"kafka": {"key": {"type": "string", "description": key}}},
    }
