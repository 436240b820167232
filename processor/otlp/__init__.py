"""OpenTelemetry spans: of published steps (`run-steps export otlp`), and of a worker's units (docs/opentelemetry.md).

`spans.py` makes spans of a published record, `runs.py` the span of a run of its steps' spans; both are pure.
`collector.py` sends them, `command.py` reads topics or archives and keeps the positions. `unit_tracer.py` traces the
units of a worker while it runs.
"""
