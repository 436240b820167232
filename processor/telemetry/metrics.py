"""The catalogue of metrics: name, type, unit, labels, meaning and advice of each.

Labels are bounded: never a step, run or thread id. A value outside a closed set is counted as `other`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from processor.core.effects import Reason, Status
from processor.core.lifecycle import TERMINAL, Kind


class Type(StrEnum):
    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Label:
    """One label. `values` is its closed set; an empty one: bounded by the deployment, as partitions are."""

    name: str
    values: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Metric:
    """One metric: its name as scraped, its meaning, and the advice for a reader of a dashboard."""

    name: str
    type: Type
    unit: str
    help: str
    advice: str
    labels: tuple[Label, ...] = ()
    buckets: tuple[float, ...] = ()


OTHER: Final = "other"
ENDS: Final = tuple(status for status in Status if status in TERMINAL)
INFERRED_NO: Final = "no"

_RUN_END: Final = "run_end"

PARTITION: Final = Label("partition")
_STATUS: Final = Label("status", ENDS)
_INFERRED: Final = Label("inferred", (INFERRED_NO, "run", "deadline"))
_REASON: Final = Label("reason", tuple(Reason))
EVENT_KIND: Final = Label("kind", (*Kind, _RUN_END, OTHER))
RUN_STEPS, RESPONSES = "run_steps", "responses"
DIALECT: Final = Label("dialect", (RUN_STEPS, RESPONSES))
# fmt: off
_WITHOUT_EFFECT: Final = Label("kind", (
    "ignored", "tombstone", "unknown_event", "duplicate", "repeated", "null_ignored",
    "run_status_disagrees", "late", OTHER,
))
_ANOMALY: Final = Label("kind", (
    "after_run_ended", "changed_field", "expired_at_disagrees", "fold_divergence", "joined_midstream",
    "orphaned_by_run", "replaced_half", "sequence_gap", "status_disagrees", "step_too_large", "unknown_status",
    OTHER,
))
# fmt: on
_END: Final = Label("end", ("high_watermark", "last_stable"))
_REBALANCE: Final = Label("kind", ("assigned", "revoked"))
DEADLINES_BY: Final = {"deadline_by_record": "record", "deadline_by_mark": "clock_mark"}
_BY: Final = Label("by", tuple(DEADLINES_BY.values()))
_COMMIT_REASON: Final = Label("reason", ("unknown_outcome", "fenced", "refused", OTHER))
_DROP_REASON: Final = Label("reason", ("generation", "revoked", OTHER))
_RESTART_REASON: Final = Label(
    "reason",
    ("broker_unavailable", "fenced", "stalled", "internal_error", OTHER),
)
WORKER_STATES: Final = Label("state", ("starting", "restoring", "live", "draining", "restarting", "stopped"))
_SKIPPED: Final = Label(
    "reason",
    ("queue_full", "revoked", "range_too_long", "retention", "undecidable", "unplaced", "unreadable", OTHER),
)
_THROTTLED: Final = Label("request", ("fetch", "produce", "other"))
_TOPIC_ROLE: Final = Label("role", ("source", "checkpoints", "written"))
_TIMESTAMP: Final = "message.timestamp"
# fmt: off
_TOPIC_SETTING: Final = Label("setting", (
    "cleanup.policy", "id", "max.message.bytes", f"{_TIMESTAMP}.after.max.ms", f"{_TIMESTAMP}.before.max.ms",
    f"{_TIMESTAMP}.difference.max.ms", f"{_TIMESTAMP}.type", "min.insync.replicas", "partitions",
    "retention.bytes", "retention.ms", OTHER,
))
# fmt: on
_LOG_REASON: Final = Label("reason", ("repeated", "unwritable"))
_IRREGULAR: Final = Label("reason", ("metadata_missing", "checkpoints_lost", "asked", "shortened", OTHER))
_BUILD: Final = (
    *map(Label, ("version", "python", "aiokafka", "fold_version")),
    Label("core", ("compiled", "pure")),
)

_WAITS_S: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_STALLS_S: Final = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
_RESTORES_S: Final = (0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
_RECORDS: Final = (1.0, 10.0, 100.0, 1_000.0, 5_000.0, 10_000.0, 50_000.0, 100_000.0)

_C, _G, _H = Type.COUNTER, Type.GAUGE, Type.HISTOGRAM

# fmt: off
RECORDS_APPLIED: Final = Metric(
    "runstep_records_applied_total", _C, "records", "Records applied live.",
    "Flat while lag_records grows: the partition is stuck, see the log for its number.", (PARTITION,),
)
APPLIED_BYTES: Final = Metric(
    "runstep_applied_bytes_total", _C, "bytes", "Key and value bytes of the records applied live.",
    "For capacity: compare with the network and with the records.", (PARTITION,),
)
RECORDS_RESTORED: Final = Metric(
    "runstep_records_restored_total", _C, "records", "Records folded again silently to restore a partition.",
    "A large share of the applied ones: rebalances are too frequent, or checkpoints too rare.", (PARTITION,),
)
EVENTS: Final = Metric(
    "runstep_events_total", _C, "events", "Events decoded from the applied records, by kind.",
    "Deltas without ends: the source loses events, or ends go to another topic.", (EVENT_KIND, DIALECT),
)
SEQUENCE_GAPS: Final = Metric(
    "runstep_sequence_gaps_total", _C, "gaps", "Ranges of sequence numbers that were missing in Responses streams.",
    "Rising: a producer or the topic loses events; read the response again with starting_after, or publish it whole.",
)
RESPONSES_UNENDED: Final = Metric(
    "runstep_responses_unended_total", _C, "responses", "Responses forgotten without their end, no item being open.",
    "Rising: streams are cut before response.completed; publish the retrieved response.",
)
EVENTS_WITHOUT_EFFECT: Final = Metric(
    "runstep_events_without_effect_total", _C, "events", "Events that correctly had no effect.",
    "unknown_event rising: the service sends new events, check for an upgrade. duplicate: a producer resends.",
    (_WITHOUT_EFFECT,),
)
STEPS_PUBLISHED: Final = Metric(
    "runstep_steps_published_total", _C, "steps",
    "Finished steps published (first publication), by status and by the source of an inferred end.",
    "A rising share of inferred ends: the source loses end events.", (_STATUS, _INFERRED),
)
AMENDMENTS: Final = Metric(
    "runstep_amendments_total", _C, "steps", "Later revisions published of steps that were published before.",
    "Many: events arrive after their step's end; readers must keep the highest revision.",
)
RECORDS_REJECTED: Final = Metric(
    "runstep_records_rejected_total", _C, "records", "Records written to the dead-letter topic.",
    "`run-steps dead-letters stats` says which; fix the cause, then `redrive` them. internal_error is our bug.",
    (_REASON,),
)
ANOMALIES: Final = Metric(
    "runstep_anomalies_total", _C, "anomalies", "Anomalies of published steps.",
    "joined_midstream: the topic's retention or the start offset cuts steps. Others: a producer deviates.",
    (_ANOMALY,),
)
STREAM_TIME_AHEAD: Final = Metric(
    "runstep_stream_time_ahead_seconds", _G, "seconds",
    "Stream time of a partition less the wall clock; below 0: behind it, as lag and quiet make it.",
    "Above 3600: a producer's clock is wrong. New steps of the partition do not expire until the clock is there.",
    (PARTITION,),
)
TIMESTAMP_SKEW: Final = Metric(
    "runstep_timestamp_skew_seconds", _G, "seconds",
    "How far records came behind the largest timestamp before them; the most in one to two minutes, of a sample.",
    "Above ended_retention_s a late repeat of an ended step is published anew: set the producers' clocks.",
    (PARTITION,),
)
KEYS_CHECKED: Final = Metric(
    "runstep_keys_checked_total", _C, "keys", "Record keys of a sample whose partition was checked.",
    "For keys_elsewhere: its share of these is the share of all.", (PARTITION,),
)
KEYS_ELSEWHERE: Final = Metric(
    "runstep_keys_elsewhere_total", _C, "keys",
    "Checked keys that are not on the partition where the Java client's default partitioner puts them.",
    "Some of all: two kinds of producer, runs may be split over partitions: docs/producers.md.", (PARTITION,),
)
OPEN_STEPS: Final = Metric(
    "runstep_open_steps", _G, "steps", "Steps that have begun and not ended.",
    "Near max_open_steps new steps are refused: raise the limit or lower max_age_s.", (PARTITION,),
)
OLDEST_OPEN_STEP_AGE: Final = Metric(
    "runstep_oldest_open_step_age_seconds", _G, "seconds", "Stream-time age of the oldest open step.",
    "Beyond max_age_s plus grace_s no deadline fires: look at the timestamps of the records.", (PARTITION,),
)
ENDED_STEPS: Final = Metric(
    "runstep_ended_steps_remembered", _G, "steps", "Ended steps kept for repeats and late events.",
    "Memory: lower ended_retention_s if it grows beyond what the machine has.", (PARTITION,),
)
DEADLINES_FIRED: Final = Metric(
    "runstep_deadlines_fired_total", _C, "steps", "Steps ended by their deadline, by what moved stream time.",
    "Rising: runs are abandoned, or their ends are lost on the way to the topic.", (_BY,),
)
CHECKPOINTS: Final = Metric(
    "runstep_checkpoints_written_total", _C, "entries", "Entries written to the checkpoint topic.",
    "More than steps published: steps live long; a longer checkpoints.interval_s writes less.",
)
LAG_RECORDS: Final = Metric(
    "runstep_lag_records", _G, "records", "Records not yet applied, up to each end of the log; deleted ones taken off.",
    "Growing: add workers. Stuck at last_stable only: a producer holds a transaction open.",
    (PARTITION, _END),
)
LAG_SECONDS: Final = Metric(
    "runstep_lag_seconds", _G, "seconds", "Age of the oldest record not yet applied; 0 at the end.",
    "Above your latency target: add workers, or look for a stuck partition.", (PARTITION,),
)
COMMITTED_OFFSET: Final = Metric(
    "runstep_committed_offset", _G, "offset", "The committed offset: the next record to process.",
    "Never falls. If it does, someone reset the group's offsets.", (PARTITION,),
)
COMMIT_SECONDS: Final = Metric(
    "runstep_commit_seconds", _H, "seconds", "From opening a unit's transaction to its commit.",
    "Above the commit interval the broker is the bottleneck: check its disks, or commit less often.",
    buckets=_WAITS_S,
)
COMMIT_FAILURES: Final = Metric(
    "runstep_commit_failures_total", _C, "commits", "Units whose commit failed.",
    "fenced: members lose their session. unknown_outcome: the broker or the network.",
    (_COMMIT_REASON,),
)
TRANSACTIONS_REDONE: Final = Metric(
    "runstep_transactions_redone_total", _C, "transactions", "Transactions aborted after a lost answer and done again.",
    "Nothing is lost or doubled. Steady growth: connections to a broker break, or answers take over 1.5 s.",
)
UNIT_RECORDS: Final = Metric(
    "runstep_unit_records", _H, "records", "Source records that one commit covers.",
    "Below 100 at high rates: the commit interval is too short.", buckets=_RECORDS,
)
UNITS_DROPPED: Final = Metric(
    "runstep_units_dropped_total", _C, "units", "Units of effects dropped before commit; read again.",
    "A few per rebalance are normal. Many: work is repeated.", (_DROP_REASON,),
)
REBALANCES: Final = Metric(
    "runstep_rebalances_total", _C, "rebalances", "Rebalances that changed what this worker owns.",
    "Frequent: sessions time out or workers restart; static membership helps roll-outs.", (_REBALANCE,),
)
PARTITIONS_ASSIGNED: Final = Metric(
    "runstep_partitions_assigned", _G, "partitions", "Source partitions this worker owns.",
    "0 on a worker: more workers than partitions.",
)
RESTORE_PROGRESS: Final = Metric(
    "runstep_restore_progress_ratio", _G, "ratio", "Share of a partition's restore that is done, 0 to 1.",
    "Constant below 1: the broker does not serve the log or the checkpoints.", (PARTITION,),
)
RESTORE_SECONDS: Final = Metric(
    "runstep_restore_seconds", _H, "seconds", "From assignment of a partition to its going live.",
    "Too long: a shorter checkpoints.interval_s or ended_retention_s re-reads less.", buckets=_RESTORES_S,
)
RESTORES_IRREGULAR: Final = Metric(
    "runstep_restores_irregular_total", _C, "restores",
    "Restores that did not follow the committed metadata and checkpoints alone.",
    "shortened: steps came back incomplete, raise the source's retention. Else: offsets were reset, or topics lost.",
    (_IRREGULAR,),
)
TAKEOVERS: Final = Metric(
    "runstep_takeovers_total", _C, "takeovers",
    "Writers of members gone from the group whose ids were initialised, ending what was open.",
    "Above the number of orderly stops: workers die.",
)
AUDIT_VERIFIED: Final = Metric(
    "runstep_audit_verified_total", _C, "steps", "Published steps that the self-audit folded again and found equal.",
    "Constant while steps are published: see audit_skipped_total, and self_audit_troubled in the log.",
)
AUDIT_MISMATCHES: Final = Metric(
    "runstep_audit_mismatch_total", _C, "steps", "Published steps that differ from what the log implies.",
    "Any: the log line audit_mismatch names step and offsets. Run replay over them before anything else.",
)
AUDIT_SKIPPED: Final = Metric(
    "runstep_audit_skipped_total", _C, "steps", "Published steps that the self-audit sampled and could not check.",
    "range_too_long: raise max_range_records. queue_full: raise cpu_share. unreadable: see the log.",
    (_SKIPPED,),
)
AUDIT_VERIFIED_OFFSET: Final = Metric(
    "runstep_audit_verified_offset", _G, "offset", "Offset after the last source record of the newest verified step.",
    "Compare with committed_offset: steps in between were not sampled yet.", (PARTITION,),
)
AUDIT_VERIFIED_AGE: Final = Metric(
    "runstep_audit_verified_age_seconds", _G, "seconds",
    "Time since a step of this partition was last verified, or since the partition was assigned.",
    "Above an hour where steps are published: raise steps_per_minute, or see audit_skipped_total.", (PARTITION,),
)
LOOP_LAG: Final = Metric(
    "runstep_event_loop_lag_seconds", _H, "seconds", "Delay of the event loop's timers.",
    "Above 0.5 s heartbeats are late: give the worker a core, or lower max_poll_records.", buckets=_STALLS_S,
)
RESTARTS: Final = Metric(
    "runstep_worker_restarts_total", _C, "restarts", "Restarts of the worker from committed offsets.",
    "The log line worker_restarted has the cause. Repeated, the process ends with its exit code.",
    (_RESTART_REASON,),
)
THROTTLED_SECONDS: Final = Metric(
    "runstep_throttled_seconds_total", _C, "seconds", "Throttle time that brokers reported, by request.",
    "Growing: a quota of this user or client id is too low for the load.", (_THROTTLED,),
)
UNIT_BOUND_LOWERED: Final = Metric(
    "runstep_unit_bound_lowered_total", _C, "times", "Times the unit size was halved because commits took too long.",
    "See throttled_seconds; without throttling the broker is slow: look at its disks.",
)
TOPIC_CHANGES: Final = Metric(
    "runstep_topic_changes_total", _C, "changes", "Changes of topics and their settings while the worker ran.",
    "The log line topic_changed has the old and the new value, and what follows.", (_TOPIC_ROLE, _TOPIC_SETTING),
)
PARTITIONS_NOT_SERVED: Final = Metric(
    "runstep_partitions_not_served", _G, "partitions",
    "Partitions of the source without a partition of the checkpoint topic: no worker serves them.",
    "Above 0: give the checkpoint topic as many partitions; /healthz has the command.",
)
PARTITION_PAUSED: Final = Metric(
    "runstep_partition_paused", _G, "boolean", "1 while an operator has paused this partition, with the reason given.",
    "Nothing of it is applied until `run-steps resume`. Lag grows meanwhile.", (PARTITION, Label("reason")),
)
LAST_PROGRESS: Final = Metric(
    "runstep_last_progress_timestamp_seconds", _G, "seconds since 1970",
    "When records were last applied or restored, or all owned partitions were found at their end; at first, the start.",
    "Older than a minute: the worker is stuck; /healthz names the partition.",
)
WORKER_UP: Final = Metric(
    "runstep_worker_up", _G, "boolean", "1 while this worker process answers.",
    "0 on a shared port: that worker process is dead or blocked.",
)
WORKER_STATE: Final = Metric(
    "runstep_worker_state", _G, "boolean", "1 for the state this worker is in.",
    "restoring for long: see restore_progress_ratio. restarting: see worker_restarts.", (WORKER_STATES,),
)
LOG_LINES_DROPPED: Final = Metric(
    "runstep_log_lines_dropped_total", _C, "lines", "Log lines held back as repeats, or not writable.",
    "unwritable: the disk or pipe behind the log is full or closed.", (_LOG_REASON,),
)
BUILD_INFO: Final = Metric(
    "runstep_build_info", _G, "constant 1", "Versions of the program, Python, the Kafka client and the fold.",
    "Several fold_version values: published bytes differ, finish the roll-out. core pure: slower, same bytes.",
    _BUILD,
)
# fmt: on

METRICS: Final[tuple[Metric, ...]] = tuple(m for m in list(globals().values()) if isinstance(m, Metric))
