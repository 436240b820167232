"""Export of published steps as OpenTelemetry spans (`run-steps export otlp`, docs/opentelemetry.md).

`spans.py` makes spans of a published record, `runs.py` the span of a run of its steps' spans; both are pure.
`collector.py` sends them, `command.py` reads topics or archives and keeps the positions.
"""
