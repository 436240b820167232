#!/usr/bin/env bash
# surprise: A log of CrewAI's events has a tool's end before its start: handlers of later events run while earlier ones still do.
# versions: PyPI crewai 1.15.30
# expected: the order of the events, which emission_sequence states. The handlers are plain functions, not async ones; events are how
#   CrewAI tells other systems of a run, and a start is emitted before its end by the same thread.
# does: emit() gives each event's handlers to a pool of ten threads and returns. While the handler of the first is slow, as with a
#   request to another system, that of the second is called and may be done first: below the first waits until the second has been
#   called, which would never happen in order. Pieces of a stream (LLMStreamChunkEvent) alone are handled one after the other.
#   emission_sequence, or the future that emit() returns, puts the others in order again.

. "$(dirname "$0")/lib/finding.sh"
python_packages crewai==1.15.30
seen=$(CREWAI_DISABLE_TELEMETRY=true OTEL_SDK_DISABLED=true HOME=$WORK timeout 60 "$WORK/venv/bin/python" - 2>/dev/null <<'PYTHON'
import datetime
import threading

from crewai.events import LLMStreamChunkEvent, ToolUsageFinishedEvent, ToolUsageStartedEvent, crewai_event_bus

log, second_called = [], threading.Event()
now = datetime.datetime(2026, 1, 1)
streams = [LLMStreamChunkEvent(chunk=piece, call_id="call") for piece in ("first", "second")]
tools = [
    ToolUsageStartedEvent(tool_name="search", tool_args={}),
    ToolUsageFinishedEvent(tool_name="search", tool_args={}, started_at=now, finished_at=now, output="found"),
]
for name, events, patience in (("tool", tools, 10), ("stream", streams, 0.1)):
    log.clear()
    second_called.clear()
    with crewai_event_bus.scoped_handlers():

        def handle(_, event):
            if event is events[0]:
                second_called.wait(patience)
            else:
                second_called.set()
            log.append(f"{events.index(event) + 1} {event.type}")

        for kind in {type(event) for event in events}:
            crewai_event_bus.on(kind)(handle)
        for event in events:
            crewai_event_bus.emit("agent", event)
        crewai_event_bus.flush()
    print(f"{name}: {', '.join(log)}")
PYTHON
)
verdict "tool: 2 tool_usage_finished, 1 tool_usage_started
stream: 1 llm_stream_chunk, 2 llm_stream_chunk" "$seen"
