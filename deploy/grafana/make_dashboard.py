"""Generates the Grafana dashboard of the workers, run-steps.json beside it: `make dashboard`.

For Grafana 11.6 and later. A panel's description is the help and the advice of its first metric.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common as options
from grafana_foundation_sdk.models.dashboard import DataSourceRef

from processor.telemetry.metrics import METRICS

OUTPUT: Final = Path(__file__).parent / "run-steps.json"
SOURCE: Final = DataSourceRef(type_val="prometheus", uid="${datasource}")
_WHERE: Final = 'job=~"$job"'
_ADVICE: Final = {metric.name: f"{metric.help} {metric.advice}" for metric in METRICS}


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel: its title, its queries (PromQL and legend) and the unit in Grafana's terms."""

    title: str
    queries: tuple[tuple[str, str], ...]
    unit: str = "short"
    span: int = 8
    single: bool = False


def _rate(metric: str, by: str = "") -> str:
    return (
        f"sum by ({by}) (rate({metric}{{{_WHERE}}}[$__rate_interval]))"
        if by
        else (f"sum(rate({metric}{{{_WHERE}}}[$__rate_interval]))")
    )


def _quantile(share: float, metric: str) -> str:
    return f"histogram_quantile({share}, sum by (le) (rate({metric}_bucket{{{_WHERE}}}[$__rate_interval])))"


ROWS: Final[tuple[tuple[str, tuple[Panel, ...]], ...]] = (
    (
        "Does it move?",
        (
            Panel("Workers live", ((f'sum(runstep_worker_state{{{_WHERE}, state="live"}})', ""),), span=4, single=True),
            Panel("Partitions assigned", ((f"sum(runstep_partitions_assigned{{{_WHERE}}})", ""),), span=4, single=True),
            Panel(
                "Partitions not served, or paused",
                (
                    (f"max(runstep_partitions_not_served{{{_WHERE}}})", "not served"),
                    (f"sum(runstep_partition_paused{{{_WHERE}}})", "paused"),
                ),
                span=4,
                single=True,
            ),
            Panel(
                "Since the last progress",
                ((f"max(time() - runstep_last_progress_timestamp_seconds{{{_WHERE}}})", ""),),
                "s",
                4,
                single=True,
            ),
            Panel("Lag", ((f"max(runstep_lag_seconds{{{_WHERE}}})", ""),), "s", 4, single=True),
            Panel("Audit mismatches", ((f"sum(runstep_audit_mismatch_total{{{_WHERE}}})", ""),), span=4, single=True),
            Panel(
                "Lag by partition", ((f"max by (partition) (runstep_lag_seconds{{{_WHERE}}})", "{{partition}}"),), "s"
            ),
            Panel(
                "Records behind",
                (
                    (f'sum(runstep_lag_records{{{_WHERE}, end="high_watermark"}})', "to the high watermark"),
                    (f'sum(runstep_lag_records{{{_WHERE}, end="last_stable"}})', "to the last stable offset"),
                ),
            ),
            Panel(
                "Records applied and restored",
                (
                    (_rate("runstep_records_applied_total"), "applied"),
                    (_rate("runstep_records_restored_total"), "restored"),
                ),
                "cps",
            ),
        ),
    ),
    (
        "Steps",
        (
            Panel("Events", ((_rate("runstep_events_total", "kind"), "{{kind}}"),), "cps"),
            Panel(
                "Steps published",
                ((_rate("runstep_steps_published_total", "status, inferred"), "{{status}} (inferred: {{inferred}})"),),
                "cps",
            ),
            Panel("Open steps", ((f"sum by (partition) (runstep_open_steps{{{_WHERE}}})", "{{partition}}"),)),
            Panel(
                "Oldest open step",
                ((f"max by (partition) (runstep_oldest_open_step_age_seconds{{{_WHERE}}})", "{{partition}}"),),
                "s",
            ),
            Panel("Deadlines fired", ((_rate("runstep_deadlines_fired_total", "by"), "by {{by}}"),), "cps"),
            Panel("Later revisions", ((_rate("runstep_amendments_total"), "amendments"),), "cps"),
        ),
    ),
    (
        "Input that deviates",
        (
            Panel("Rejected", ((_rate("runstep_records_rejected_total", "reason"), "{{reason}}"),), "cps"),
            Panel("Anomalies", ((_rate("runstep_anomalies_total", "kind"), "{{kind}}"),), "cps"),
            Panel(
                "Events without effect", ((_rate("runstep_events_without_effect_total", "kind"), "{{kind}}"),), "cps"
            ),
            Panel(
                "Timestamps",
                (
                    (f"max by (partition) (runstep_stream_time_ahead_seconds{{{_WHERE}}})", "{{partition}} ahead"),
                    (f"max by (partition) (runstep_timestamp_skew_seconds{{{_WHERE}}})", "{{partition}} skew"),
                ),
                "s",
            ),
            Panel(
                "Responses with gaps, or without an end",
                (
                    (_rate("runstep_sequence_gaps_total"), "gaps"),
                    (_rate("runstep_responses_unended_total"), "unended"),
                ),
                "cps",
            ),
            Panel(
                "Keys on other partitions",
                (
                    (_rate("runstep_keys_checked_total", "partition"), "{{partition}} checked"),
                    (_rate("runstep_keys_elsewhere_total", "partition"), "{{partition}} elsewhere"),
                ),
                "cps",
            ),
        ),
    ),
    (
        "Commits",
        (
            Panel(
                "Commit time",
                (
                    (_quantile(0.5, "runstep_commit_seconds"), "p50"),
                    (_quantile(0.99, "runstep_commit_seconds"), "p99"),
                ),
                "s",
            ),
            Panel("Records of a commit", ((_quantile(0.5, "runstep_unit_records"), "p50"),)),
            Panel(
                "Commits that failed",
                (
                    (_rate("runstep_commit_failures_total", "reason"), "{{reason}}"),
                    (_rate("runstep_transactions_redone_total"), "answer lost, done again"),
                    (_rate("runstep_units_dropped_total", "reason"), "unit dropped: {{reason}}"),
                ),
                "cps",
            ),
            Panel("Throttled", ((_rate("runstep_throttled_seconds_total", "request"), "{{request}}"),), "s"),
            Panel("Checkpoint entries", ((_rate("runstep_checkpoints_written_total"), "written"),), "cps"),
            Panel(
                "Topics changed",
                ((f"sum by (role, setting) (runstep_topic_changes_total{{{_WHERE}}})", "{{role}}: {{setting}}"),),
            ),
        ),
    ),
    (
        "Members and restores",
        (
            Panel("Rebalances", ((_rate("runstep_rebalances_total", "kind"), "{{kind}}"),), "cps"),
            Panel(
                "Restarts",
                (
                    (
                        f"sum by (reason) (increase(runstep_worker_restarts_total{{{_WHERE}}}[$__rate_interval]))",
                        "{{reason}}",
                    ),
                ),
            ),
            Panel(
                "Restore progress",
                ((f"min by (partition) (runstep_restore_progress_ratio{{{_WHERE}}})", "{{partition}}"),),
                "percentunit",
            ),
            Panel("Restore time", ((_quantile(0.9, "runstep_restore_seconds"), "p90"),), "s"),
            Panel(
                "Irregular restores",
                ((f"sum by (reason) (runstep_restores_irregular_total{{{_WHERE}}})", "{{reason}}"),),
            ),
            Panel("Takeovers", ((f"sum(runstep_takeovers_total{{{_WHERE}}})", "takeovers"),)),
        ),
    ),
    (
        "Self-audit",
        (
            Panel(
                "Verified and skipped",
                (
                    (_rate("runstep_audit_verified_total"), "verified"),
                    (_rate("runstep_audit_skipped_total", "reason"), "skipped: {{reason}}"),
                ),
                "cps",
                12,
            ),
            Panel(
                "Since the last verification",
                ((f"max by (partition) (runstep_audit_verified_age_seconds{{{_WHERE}}})", "{{partition}}"),),
                "s",
                12,
            ),
        ),
    ),
    (
        "Process",
        (
            Panel(
                "CPU",
                (
                    (
                        f"sum by (instance) (rate(process_cpu_seconds_total{{{_WHERE}}}[$__rate_interval]))",
                        "{{instance}}",
                    ),
                ),
                "percentunit",
                6,
            ),
            Panel(
                "Memory",
                ((f"sum by (instance) (process_resident_memory_bytes{{{_WHERE}}})", "{{instance}}"),),
                "bytes",
                6,
            ),
            Panel(
                "File descriptors",
                ((f"max by (instance) (process_open_fds{{{_WHERE}}} / process_max_fds{{{_WHERE}}})", "{{instance}}"),),
                "percentunit",
                6,
            ),
            Panel("Event loop delay", ((_quantile(0.99, "runstep_event_loop_lag_seconds"), "p99"),), "s", 6),
            Panel(
                "Versions",
                (
                    (
                        f"count by (version, fold_version, core) (runstep_build_info{{{_WHERE}}})",
                        "{{version}}, fold {{fold_version}}, {{core}}",
                    ),
                ),
                span=12,
            ),
            Panel(
                "Log lines dropped", ((_rate("runstep_log_lines_dropped_total", "reason"), "{{reason}}"),), "cps", 12
            ),
        ),
    ),
)


def board() -> str:
    """The dashboard as JSON, the same for the same code."""
    built = (
        dashboard.Dashboard("run-steps")
        .uid("run-steps")
        .description("Workers of run-steps: generated by deploy/grafana/make_dashboard.py, do not edit.")
        .tags(["run-steps", "kafka"])
        .timezone("browser")
        .refresh("30s")
        .time("now-3h", "now")
        .with_variable(dashboard.DatasourceVariable("datasource").label("Prometheus").type("prometheus"))
        .with_variable(
            dashboard.QueryVariable("job")
            .label("Job")
            .datasource(SOURCE)
            .query("label_values(runstep_build_info, job)")
            .multi(True)
            .include_all(True)
        )
    )
    for title, panels in ROWS:
        built.with_row(dashboard.Row(title))
        for panel in panels:
            built.with_panel(_panel(panel))
    return JSONEncoder(sort_keys=True, indent=2).encode(built.build()) + "\n"


def _panel(panel: Panel) -> stat.Panel | timeseries.Panel:
    made = (
        stat.Panel()
        if panel.single
        else timeseries.Panel().legend(
            common.VizLegendOptions()
            .display_mode(options.LegendDisplayMode.LIST)
            .placement(options.LegendPlacement.BOTTOM)
            .show_legend(True)
        )
    )
    made.title(panel.title).description(_description(panel)).datasource(SOURCE).unit(panel.unit).span(
        panel.span
    ).height(4 if panel.single else 8)
    for number, (expression, legend) in enumerate(panel.queries):
        query = prometheus.Dataquery().expr(expression).ref_id(chr(ord("A") + number))
        made.with_target(query.legend_format(legend) if legend else query)
    return made


def _description(panel: Panel) -> str:
    named = re.search(r"runstep_\w+", panel.queries[0][0])
    return _ADVICE.get(named[0].removesuffix("_bucket"), "") if named else ""


if __name__ == "__main__":
    OUTPUT.write_text(board(), encoding="utf-8")
