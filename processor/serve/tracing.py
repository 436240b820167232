"""Build the tracer of a worker process from the settings. OpenTelemetry is imported only where tracing is enabled."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

from processor.config.settings import Settings
from processor.errors import ConfigError

if TYPE_CHECKING:
    from processor.otlp.unit_tracer import UnitTracer


def require_extra(settings: Settings) -> None:
    """Check that what tracing needs is installed.

    Raises:
        ConfigError: tracing is enabled and the extra `otlp` is not installed.
    """
    if settings.tracing.enabled and not _is_installed("opentelemetry.exporter.otlp.proto.http"):
        raise ConfigError(
            "tracing.enabled: needs the extra `otlp`, which is not installed (got true)",
            hint="pip install 'run-steps[otlp]', or set tracing.enabled = false",
        )


def build_tracer(settings: Settings, instance: str) -> UnitTracer | None:
    """The tracer of this process; None where tracing is not enabled.

    Raises:
        ConfigError: the environment names no address that spans can be sent to.
    """
    tracing, source = settings.tracing, settings.source
    if not tracing.enabled:
        return None
    require_extra(settings)
    from processor.otlp.unit_tracer import UnitTracer

    return UnitTracer(
        tracing.endpoint,
        tracing.sample_share,
        service=settings.kafka.client_id,
        instance=instance,
        topic=source.topic,
        group=source.group_id,
    )


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # a package that it is in
        return False
