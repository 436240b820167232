"""Filter for --steps, --runs and --threads. It limits the report, not the fold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from processor.audit.judge.transition_observer import Belongs
from processor.audit.judge.verdicts import Finding, FindingKind
from processor.audit.replay.task import StepFilter


class Ids(msgspec.Struct, frozen=True):
    """Fields of a snapshot that the filter reads."""

    run_id: str | None = None
    thread_id: str | None = None


read_ids: Final = msgspec.json.Decoder(Ids, strict=False).decode


def belonging(only: StepFilter) -> Belongs:
    """Whether a step is one of those that are reported; None while a run or thread that would tell is not known."""

    def belongs(step_id: str, fields: Mapping[str, Any]) -> bool | None:
        run_id, thread_id = fields.get("run_id"), fields.get("thread_id")
        if is_named(only, step_id, run_id, thread_id):
            return True
        return None if (only.runs and not run_id) or (only.threads and not thread_id) else False

    return belongs


def is_named(only: StepFilter, step_id: str, run_id: object, thread_id: object) -> bool:
    return step_id in only.steps or run_id in only.runs or thread_id in only.threads


def is_wanted(only: StepFilter, finding: Finding, value: bytes | None) -> bool:
    """Whether a finding is reported. `value`: of the record that it is about, where there is one."""
    if finding.kind is not FindingKind.STEP:
        return False
    step_id = finding.identity[0]
    if step_id in only.steps:
        return True
    if not (only.runs or only.threads) or value is None:
        return False
    try:
        ids = read_ids(value)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):  # anybody may have written it
        return False
    return is_named(only, step_id, ids.run_id, ids.thread_id)
