"""Checkpoints of entries: their keys, how one is written and how it is read back."""

from __future__ import annotations

from typing import Final

import msgspec

from processor.core.checkpoint_format import CheckpointEntry
from processor.core.effects import Checkpoint, Status
from processor.core.entry import Entry
from processor.core.merge import pack, unpack
from processor.core.responses.response import ENTRY
from processor.core.run_steps.step import WITH_IDS
from processor.core.wire_types import RunEnd

CHECKPOINT_VERSION: Final = 1
IDS_VERSION: Final = 3
"""Of a run step with event ids. Earlier programs cannot read it: they refuse it, with an error that names it."""
RESPONSE_VERSION: Final = 4
"""Of a response. Earlier programs refuse it in the same way; their own responses have version 2."""
encode_checkpoint: Final = msgspec.msgpack.Encoder().encode
_decode_checkpoint: Final = msgspec.msgpack.Decoder(CheckpointEntry).decode


def step_key(step_id: str) -> bytes:
    return b"s" + step_id.encode()


def run_key(run_id: str) -> bytes:
    return b"r" + run_id.encode()


def key_of(entry: Entry) -> bytes:
    return step_key(entry.key) if entry.run is None else run_key(entry.key)


def checkpoint_of(entry: Entry, applied_below: int, log: str) -> Checkpoint:
    """The checkpoint of an entry that has taken in all records below `applied_below`."""
    run = entry.run
    if run is not None:
        body = pack([run.run_id, run.status, run.ended_at, run.last_error])
    else:
        body = entry.packed()
    version = CHECKPOINT_VERSION
    if run is None and entry.key.startswith(ENTRY):
        version = RESPONSE_VERSION
    elif run is None and body.startswith(WITH_IDS):
        version = IDS_VERSION
    value = CheckpointEntry(
        version,
        "step" if run is None else "run",
        applied_below,
        entry.touched_ms,
        entry.touched_offset,
        entry.due_s,
        entry.status.value,
        entry.inferred,
        entry.refused,
        entry.irregular,
        entry.run_id,
        body,
        entry.opened_s,
        log,
        entry.fold_version,
    )
    return Checkpoint(key_of(entry), encode_checkpoint(value))


def gone_checkpoint(key: bytes, last_offset: int, log: str) -> Checkpoint:
    """Gone marker of a forgotten step, whose records up to `last_offset` must not be taken for another step."""
    value = CheckpointEntry(CHECKPOINT_VERSION, "gone", touched_offset=last_offset, log=log)
    return Checkpoint(key, encode_checkpoint(value))


def read_checkpoint(key: bytes, value: bytes) -> CheckpointEntry:
    """One checkpoint.

    Raises:
        ValueError: it is not one of ours or comes from a newer version.
    """
    try:
        found = _decode_checkpoint(value)
        key[1:].decode()
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ValueError(f"checkpoint {key[:80]!r}: {error}") from None
    if not CHECKPOINT_VERSION <= found.version <= RESPONSE_VERSION:
        known = f"this program reads up to {RESPONSE_VERSION}"
        raise ValueError(f"checkpoint {key[:80]!r}: version {found.version}, {known}")
    return found


def entry_of(name: str, checkpoint: CheckpointEntry) -> Entry:
    """The entry that a checkpoint of a step or a run holds. `due_s`, and an open step's `run_id`, are left out."""
    entry = Entry(name, checkpoint.touched_offset)
    entry.applied_below = checkpoint.applied_below
    entry.touched_ms = checkpoint.touched_ms
    status = Status(checkpoint.status)
    entry.status = status
    entry.checkpointed = True
    if checkpoint.kind == "run":
        run_id, run_status, ended_at, last_error = unpack(checkpoint.body)
        entry.hold_run(RunEnd(run_id, run_status, ended_at, last_error))
    else:
        entry.opened_s = checkpoint.opened_s
        if checkpoint.refused:
            entry.refuse()
        else:
            entry.hold_packed(checkpoint.body)
        if status is not Status.IN_PROGRESS:
            entry.run_id = checkpoint.run_id
    entry.fold_version = checkpoint.fold_version
    entry.inferred, entry.refused, entry.irregular = checkpoint.inferred, checkpoint.refused, checkpoint.irregular
    return entry
