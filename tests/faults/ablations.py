"""Each safeguard taken out in turn: does a test miss it? `python -m tests.faults.ablations` (part of `make faults`).

A safeguard is a few lines of the product. It is taken out of a copy of the project, never of the project itself, and
the tests that must miss it are run in the copy, worker processes included. A safeguard that no test misses is untested,
or needless.

To add one: a row in `SAFEGUARDS`, whose `text` stands exactly once in its file; `tests/faults/test_ablations.py` sees
to that, so that a row does not go stale when the code moves on.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
_COPIED: Final = ("processor", "tests", "config", "docs", "deploy", "pyproject.toml", "README.md", "CHANGELOG.md")
_DEADLINE_S: Final = 900


@dataclass(frozen=True, slots=True)
class Safeguard:
    """What is taken out, where, and the tests of which at least one must fail then."""

    name: str
    title: str
    file: str
    text: str
    """Stands exactly once in the file."""
    instead: str
    tests: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Found:
    """What came of one."""

    name: str
    title: str
    verdict: str
    """missed (as it must be), NOT MISSED, NO END (which a slow machine has, too), or BROKEN: the tests did not run."""
    by: tuple[str, ...]
    seconds: float


_WRITER: Final = "processor/kafka/writer.py"
_TRANSACTIONS: Final = "processor/kafka/transactions.py"
_CONSUMER: Final = "processor/kafka/consumer.py"
_WORKER: Final = "processor/serve/worker.py"
_UNIT: Final = "processor/serve/unit.py"
_RESTORE: Final = "processor/serve/restore.py"
_OF_WRITER: Final = "tests/broker/test_kafka_writer.py::"
_OF_CONSUMER: Final = "tests/broker/test_kafka_consumer.py::"
_LATE: Final = "tests/faults/test_late.py::"
_OF_WORKER: Final = "tests/shell/test_worker.py::"
_OF_TRANSACTIONS: Final = "tests/shell/test_transactions.py::"
_OF_STALLS: Final = "tests/shell/test_stalls.py::"
_MACHINE: Final = "tests/shell/test_exactly_once_machine.py::"

SAFEGUARDS: Final = (
    Safeguard(
        "token-at-the-last-moment",
        "the membership is checked again right before a transaction is committed",
        _TRANSACTIONS,
        "                require_token()\n",
        "",
        (f"{_OF_WRITER}test_a_token_that_changes_at_the_last_moment_aborts_the_unit",),
    ),
    Safeguard(
        "token-before-anything",
        "a unit of another generation is refused before anything is sent",
        _WRITER,
        "            self._require_alive()\n            self._require_token(unit)\n            if not",
        "            self._require_alive()\n            if not",
        (f"{_OF_WRITER}test_a_unit_of_another_generation_is_refused_before_anything_is_sent",),
    ),
    Safeguard(
        "error-ends-the-writer",
        "a writer whose transaction's outcome is unknown is not used again",
        _WRITER,
        "            self.dead = True\n            self._link.cut()\n",
        "            self._link.cut()\n",
        (
            f"{_OF_WRITER}test_a_commit_that_is_cancelled_ends_the_writer",
            f"{_OF_WRITER}test_a_writer_that_was_taken_over_ends_as_fenced",
        ),
    ),
    Safeguard(
        "offsets-fenced-by-the-group",
        "a transaction's offsets carry generation and member",
        "processor/kafka/link.py",
        "*identity, token, {self._topic: rows})",
        '*identity, GroupToken(-1, "", None), {self._topic: rows})',
        (f"{_OF_WRITER}test_the_broker_refuses_who_is_not_the_member_it_says",),
    ),
    Safeguard(
        "aborts-what-was-refused",
        "a transaction that the group refused is aborted before the next begins",
        _TRANSACTIONS,
        "            except (_GroupFenced, Fenced, _Refusal) as reason:\n"
        "                await self._abort(offsets, in_doubt=False)\n",
        "            except (_GroupFenced, Fenced, _Refusal) as reason:\n",
        (f"{_OF_WRITER}test_the_broker_refuses_who_is_not_the_member_it_says",),
    ),
    Safeguard(
        "too-large-is-found-first",
        "a record that its topic refuses is found before anything is sent",
        "processor/kafka/record_batches.py",
        "                raise RecordTooLarge(topic, size)\n",
        "                pass\n",
        (f"{_OF_WRITER}test_a_record_too_large_is_found_before_anything_is_sent",),
    ),
    Safeguard(
        "stable-offsets",
        "an owner starts from offsets that no pending transaction can change",
        _CONSUMER,
        "await self._committed(partitions, require_stable=True)",
        "await self._committed(partitions, require_stable=False)",
        (f"{_OF_CONSUMER}test_stable_offsets_wait_for_the_pending_transaction",),
    ),
    Safeguard(
        "claim-of-this-generation",
        "a claim of another generation is not sent",
        _CONSUMER,
        "            if token.generation < 0 or self.token() != token:\n",
        "            if token.generation < 0 and self.token() != token:\n",
        (
            f"{_OF_CONSUMER}test_a_claim_of_an_old_generation_is_not_even_sent",
            f"{_OF_CONSUMER}test_an_evicted_member_has_no_generation_and_commits_nothing",
        ),
    ),
    Safeguard(
        "gate-before-drain",
        "on revocation the gate closes before the unit drains",
        _WORKER,
        "        self._pollable, self._assigned, self._assigned_in, self._unserved = (), [], -1, []\n",
        "        self._assigned, self._assigned_in, self._unserved = [], -1, []\n",
        (f"{_OF_WORKER}test_the_gate_closes_before_the_drain",),
    ),
    Safeguard(
        "batch-of-this-epoch",
        "a batch that was fetched before a rebalance is dropped",
        _WORKER,
        "        is_open = bool(pollable) and epoch == self.assignment_epoch\n",
        "        is_open = bool(pollable)\n",
        (f"{_OF_WORKER}test_a_batch_of_an_old_epoch_is_dropped", f"{_OF_WORKER}test_the_gate_closes_before_the_drain"),
    ),
    Safeguard(
        "unit-of-its-first-record",
        "a unit belongs to the generation in which its first record was applied",
        _UNIT,
        "        token = self.token or token_now()\n",
        "        token = token_now()\n",
        (f"{_OF_WORKER}test_a_unit_of_an_old_generation_is_dropped",),
    ),
    Safeguard(
        "nothing-after-eviction",
        "who was evicted drains nothing",
        _WORKER,
        "            if self._consumer.token().generation >= 0 and not self._is_broken:\n",
        "            if not self._is_broken:\n",
        (f"{_OF_WORKER}test_after_an_eviction_nothing_is_committed",),
    ),
    Safeguard(
        "nothing-after-an-error",
        "a worker whose loop an error ended drains nothing",
        _WORKER,
        "            if self._consumer.token().generation >= 0 and not self._is_broken:\n",
        "            if self._consumer.token().generation >= 0:\n",
        (f"{_OF_WORKER}test_a_revocation_commits_nothing_of_what_an_error_broke_off",),
    ),
    Safeguard(
        "restored-before-committed",
        "nothing is committed for a partition that is still being restored",
        _UNIT,
        "            if not owned.state.is_live or position < owned.committed.offset:\n",
        "            if position < 0:\n",
        (f"{_OF_WORKER}test_a_partition_that_is_being_restored_is_not_committed",),
    ),
    Safeguard(
        "parked-is-committed",
        "a state that was kept over a rebalance is used only if it is what the group has committed",
        _WORKER,
        "if stable.get(p) == o.committed}",
        "if p in stable}",
        (f"{_OF_WORKER}test_a_retained_state_that_is_not_what_is_committed_is_restored",),
    ),
    Safeguard(
        "one-drain-at-a-time",
        "a revocation that meets the end of the loop waits for its drain",
        _WORKER,
        "            async with asyncio.timeout(budget_s), self._draining:\n",
        "            async with asyncio.timeout(budget_s):\n",
        (f"{_OF_WORKER}test_a_revocation_that_meets_the_end_of_the_loop_drains_with_it",),
    ),
    Safeguard(
        "too-large-goes-without-value",
        "a dead letter that is too large is published without its value",
        "processor/kafka/output_records.py",
        "        record = form\n        if batch_bytes(form) <= limit:\n            break\n",
        "        break\n",
        ("tests/shell/test_output_records.py", "tests/broker/test_bad_input_live.py"),
    ),
    Safeguard(
        "claim",
        "a new owner commits the old offsets anew: the old one's generation is refused from then on",
        _RESTORE,
        "                await self._claim(claims)\n",
        "",
        ("tests/faults/test_zombie.py", "tests/faults/test_rebalance.py"),
    ),
    Safeguard(
        "claim-in-a-transaction",
        "a claim is a transaction: a lost answer to it costs no membership, and its late copy is refused",
        _WORKER,
        "            claim=self._writer.claim,\n",
        "            claim=self._consumer.claim,\n",
        (f"{_MACHINE}test_without_faults_none_dies",),
    ),
    Safeguard(
        "nothing-after-a-lost-answer",
        "before transaction.version 2, a request without an answer is not said again in the same epoch",
        _TRANSACTIONS,
        "            except Unanswered as error:\n                raise _InDoubt from error\n"
        "            except NotSent:\n",
        "            except Unanswered:\n                answers = {}\n            except NotSent:\n",
        (f"{_LATE}test_a_late_copy_of_a_classic_transaction",),
    ),
    Safeguard(
        "epoch-after-a-lost-end",
        "before transaction.version 2, an EndTxn without an answer is followed by a new epoch",
        _TRANSACTIONS,
        "commit=True, v2=False),\n                first=lambda a: a[0],\n                doubt=_InDoubt,\n",
        "commit=True, v2=False),\n                first=lambda a: a[0],\n",
        (f"{_OF_TRANSACTIONS}test_before_version_2_a_lost_end_is_settled_in_a_new_epoch",),
    ),
    Safeguard(
        "takeover",
        "a dead writer's open transaction is ended at once",
        _RESTORE,
        "        if self._own:\n            await self._end_absent_writers(partitions, began)\n",
        "",
        ("tests/faults/test_zombie.py",),
    ),
    Safeguard(
        "takeover-of-the-absent",
        "a writer that is a member of the group is not fenced by a new owner",
        _RESTORE,
        " if writer not in members}",
        "}",
        (f"{_OF_WORKER}test_a_living_writer_is_not_taken_over_for_an_open_transaction",),
    ),
    Safeguard(
        "takeover-of-the-described",
        "an answer about the group that does not name ourselves is worth nothing: with members of KIP-848 it is empty",
        _RESTORE,
        "        if not members or (self._own and self._own not in members):\n",
        "        if False:\n",
        (
            f"{_OF_WORKER}test_of_a_group_that_does_not_name_ourselves_none_is_taken_for_dead",
            "tests/broker/test_mixed_group.py",
        ),
    ),
    Safeguard(
        "waits-for-the-writer",
        "nothing is claimed before the writer has ended what its last incarnation left open",
        _WORKER,
        "        await self._writer_started.wait()  # it ends what its last incarnation left open, "
        "and commits the claims\n",
        "",
        (f"{_OF_WORKER}test_nothing_is_claimed_before_the_writer_is_there",),
    ),
    Safeguard(
        "parked-after-a-drain",
        "a state is kept over a rebalance only if all that it has applied is committed",
        _WORKER,
        "if o.state.is_live} if drained else {}",
        "if o.state.is_live}",
        (f"{_OF_WORKER}test_after_an_eviction_nothing_is_committed",),
    ),
    Safeguard(
        "claim-goes-on",
        "a rebalance does not cut a claim off half done",
        _WRITER,
        "            await asyncio.shield(commit)",
        "            await commit",
        (f"{_MACHINE}test_a_first_claim_that_a_rebalance_cuts_off_is_not_counted_as_made",),
    ),
    Safeguard(
        "highest-committed",
        "an offset below one that this process has seen is never a position to start from",
        _RESTORE,
        "            self._highest.require(stable, self._settings.source.topic, self._settings.source.group_id)\n",
        "",
        (f"{_MACHINE}test_random_interleavings_publish_each_outcome_once",),
    ),
    Safeguard(
        "stall-without-an-answer",
        "a partition of which no fetch was ever answered ends the worker, too",
        "processor/serve/partition_report.py",
        "            self._require_progress(owned, now, NO_ANSWER)\n",
        "",
        (f"{_OF_STALLS}test_a_partition_that_is_not_fetched",),
    ),
    Safeguard(
        "drain-bounds-the-rebalance",
        "the group waits for a member no longer than for its drain",
        "processor/serve/clients.py",
        "min(source.rebalance_timeout_ms, int((delivery.drain_timeout_s + _REJOIN_S) * 1000))",
        "source.rebalance_timeout_ms",
        (f"{_OF_STALLS}test_the_group_waits_for_a_drain_and_no_longer",),
    ),
    Safeguard(
        "waits-over-incarnations",
        "a wait counts from when it began: a restart is no progress",
        "processor/serve/stalls.py",
        "            wait.reason = reason\n",
        "            self._waits[key] = _Wait(reason, self._monotonic(), self._monotonic())\n",
        (f"{_OF_STALLS}test_a_restart_is_no_progress",),
    ),
)


def ablate(safeguard: Safeguard, work: Path) -> Found:
    """Take one out of a copy and run its tests there."""
    began = time.monotonic()
    copy = work / safeguard.name
    for name in _COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, copy / name, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
        elif source.exists():
            copy.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, copy / name)
    path = copy / safeguard.file
    text = path.read_text()
    if text.count(safeguard.text) != 1:
        return Found(safeguard.name, safeguard.title, "BROKEN: its text is not in the code any more", (), 0.0)
    path.write_text(text.replace(safeguard.text, safeguard.instead))
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *safeguard.tests]
    environment = os.environ | {"PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
    log = work / f"{safeguard.name}.log"
    with log.open("wb") as out:
        try:
            code: int | None = subprocess.run(
                command, cwd=copy, env=environment, stdout=out, stderr=out, timeout=_DEADLINE_S
            ).returncode
        except subprocess.TimeoutExpired:
            code = None
    said = log.read_text(errors="replace")
    by = tuple(re.findall(r"^(?:FAILED|ERROR) (\S+)", said, re.MULTILINE))
    if code is None:
        verdict, by = "NO END", (f"not within {_DEADLINE_S} s",)
    elif code == 0:
        verdict = "NOT MISSED"
    elif code == 1 and by:
        verdict = "missed"
    else:
        verdict = f"BROKEN: pytest ended with {code}, see {log}"
    shutil.rmtree(copy, ignore_errors=True)
    return Found(safeguard.name, safeguard.title, verdict, by, round(time.monotonic() - began, 1))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run them, print a table, return 1 if one is not missed."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.ablations")
    parser.add_argument("--only", default="", help="names, with commas between")
    parser.add_argument("--json", type=Path, default=ROOT / "build" / "ablations.json", dest="report")
    given = parser.parse_args(arguments)
    names = [name for name in given.only.split(",") if name]
    chosen = [safeguard for safeguard in SAFEGUARDS if not names or safeguard.name in names]
    work = Path(tempfile.mkdtemp(prefix="run-steps-ablations-"))
    found: list[Found] = []
    for safeguard in chosen:
        one = ablate(safeguard, work)
        found.append(one)
        by = ", ".join(test.rpartition("::")[2] for test in one.by)
        sys.stdout.write(f"{one.name:<30}{one.verdict:<12}{one.seconds:>7} s  {by}\n")
        sys.stdout.flush()
    given.report.parent.mkdir(parents=True, exist_ok=True)
    given.report.write_text(json.dumps([asdict(one) for one in found], indent=1) + "\n")
    sys.stdout.write(f"{sum(one.verdict == 'missed' for one in found)} of {len(found)} are missed; logs: {work}\n")
    return 0 if found and all(one.verdict == "missed" for one in found) else 1


if __name__ == "__main__":
    sys.exit(main())
