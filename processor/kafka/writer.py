"""Writers of units: records and offsets in one transaction (exactly once), or one after the other (at least once).

A writer ends with its first error that is not a clean abort: whether the broker committed is then unknown, and only the
log shows it. Make a new one with the same transactional id (which ends an open transaction), and read the offsets
again. What follows a lost response is in kafka/transactions.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, Protocol

from processor.errors import BrokerRefused, Fenced
from processor.kafka import aiokafka_compat as pinned
from processor.kafka import wire
from processor.kafka.client_config import Connection
from processor.kafka.consumer import Committed, GroupToken
from processor.kafka.diagnosis import explained
from processor.kafka.errors import translated
from processor.kafka.idempotent_producer import ProducerSession
from processor.kafka.link import BrokerLink
from processor.kafka.record_batches import (
    AckPositions,
    RecordBatch,
    RecordBatches,
    mark_retrieved,
    writer_ended,
)
from processor.kafka.records import OutRecord
from processor.kafka.transactions import Transactions

_NO_LIMITS: Final[Mapping[str, int]] = MappingProxyType({})
NO_MEMBER: Final = GroupToken(-1, "", None)
"""Token of the units of a writer that is no member of its group."""
_START_S: Final = 10.0
"""At least so long for a producer id: a young cluster first makes the topic of the transactions."""


@dataclass(slots=True)
class Unit:
    """Unit of a commit: records, checkpoints, and the source offsets (by partition) that they account for.

    `token` is the membership under which the first record of the unit was applied; in any other it is void.
    `ack_positions` has the index in `records` of each record whose position is wanted: a commit sets
    (partition, offset); a position that the broker does not return stays None.
    """

    token: GroupToken
    records: list[OutRecord] = field(default_factory=list)
    offsets: dict[int, Committed] = field(default_factory=dict)
    checkpoints: list[OutRecord] = field(default_factory=list)
    ack_positions: AckPositions = field(default_factory=dict)


class Writer(Protocol):
    """Commits units. `dead` is True after an error that leaves the outcome unknown: replace the writer."""

    @property
    def transactional_id(self) -> str | None: ...
    @property
    def dead(self) -> bool: ...
    @property
    def recovered(self) -> int:
        """How many transactions were begun anew after a lost answer."""

    async def start(self) -> None: ...
    async def commit(self, unit: Unit) -> None: ...
    async def claim(self, offsets: Mapping[int, Committed]) -> None:
        """Commit offsets alone, as the member that we are now. Raises what `commit` raises."""

    async def stop(self, timeout_s: float) -> None: ...


class TransactionalWriter:
    """Exactly once: one transaction per unit, its offsets fenced by the group (KIP-98, KIP-447, KIP-890).

    Args:
        transactional_id: names this writer across its incarnations; a new one ends the transaction of the last.
        group_id, source_topic: whose offsets a unit carries.
        token_now: the consumer's membership at the moment; a unit of another one is refused.
        transaction_timeout_ms: after this long the broker aborts what we left open.
        commit_timeout_s: how long one unit may take, all retries included.
        compression: None, "gzip", "snappy", "lz4" or "zstd".
        limits: max.message.bytes of the topics written to; what is not named has Kafka's own default.
        is_member: False for a writer that is no member of its group, and the only one that commits its offsets: then
            its transactional id alone fences it, and it reads the offsets after `start`.
    """

    def __init__(
        self,
        connection: Connection,
        *,
        transactional_id: str,
        group_id: str,
        source_topic: str,
        token_now: Callable[[], GroupToken],
        transaction_timeout_ms: int = 15_000,
        commit_timeout_s: float = 20.0,
        compression: str | None = None,
        limits: Mapping[str, int] = _NO_LIMITS,
        is_member: bool = True,
    ) -> None:
        self._connection = connection
        self._is_member = is_member
        self._transactional_id = transactional_id
        self._where = f"transactional id {transactional_id}"
        self._token_now = token_now
        self._timeout_s = commit_timeout_s
        self._batching = RecordBatches(limits, compression, transactional=True)
        self._link = BrokerLink(
            connection,
            transactional_id=transactional_id,
            group_id=group_id,
            source_topic=source_topic,
            transaction_timeout_ms=transaction_timeout_ms,
        )
        self._transactions = Transactions(self._link, where=self._where, group_id=group_id, source_topic=source_topic)
        self._one_at_a_time = asyncio.Lock()
        self._started = False
        self.dead = False

    @property
    def transactional_id(self) -> str | None:
        return self._transactional_id

    @property
    def transaction_version(self) -> int:
        """2 where the cluster refuses every late request of an ended transaction (KIP-890), else 1."""
        return 2 if self._transactions.v2 else 1

    @property
    def recovered(self) -> int:
        """How many transactions were begun anew after a lost answer."""
        return self._transactions.recovered

    async def start(self) -> None:
        """Get the producer id; the open transaction of an earlier incarnation is aborted by that.

        Raises:
            BrokerRefused: the broker cannot do transactions, or does not let us.
            BrokerUnavailable: no broker, or its transaction coordinator did not answer in time.
        """
        pinned.verify()
        try:
            async with explained(self._connection, self._where), asyncio.timeout(max(self._timeout_s, _START_S)):
                await self._link.open()
                if not await self._link.client.speaks(wire.TXN_OFFSET_COMMIT, 3):
                    raise BrokerRefused(
                        f"{self._where}: this broker has no transactions fenced by the group",
                        hint='Apache Kafka 2.5 or newer is needed, or set [delivery] mode = "at_least_once"',
                    )
                await self._transactions.start()
        except BaseException:
            self.dead = True
            await self.stop(timeout_s=1.0)
            raise
        self._started = True

    async def commit(self, unit: Unit) -> None:
        """Write a unit, all or nothing; on return it is committed.

        Raises:
            Fenced: the group has moved on. The unit is aborted, and if that went cleanly the writer lives on.
            RecordTooLarge, BrokerRefused: the same of a record that its topic does not take.
            BrokerUnavailable: the writer is dead, the outcome in the log.
        """
        async with self._one_at_a_time:
            self._require_alive()
            self._require_token(unit)
            if not (unit.records or unit.checkpoints or unit.offsets):
                return
            records = [*unit.records, *unit.checkpoints]
            with translated(lambda: f"topics {', '.join(sorted({record.topic for record in records}))}"):
                async with asyncio.timeout(self._timeout_s):
                    partitions = await self._link.partitions_of({record.topic for record in records})
            turn = self._batching.next_turn()
            made = [
                self._batching.batches(records, partitions, turn, unit.ack_positions)
            ]  # raises before anything is sent

            def batches() -> list[RecordBatch]:
                return made.pop() if made else self._batching.batches(records, partitions, turn, unit.ack_positions)

            async with self._ending():
                aborted = await self._transactions.commit(
                    batches, unit.offsets, unit.token, lambda: self._require_token(unit)
                )
        if aborted is not None:
            raise aborted

    async def claim(self, offsets: Mapping[int, Committed]) -> None:
        """Commit offsets in a transaction of their own.

        A plain OffsetCommit that arrives late is valid for as long as the group's generation is, and would move the
        offsets back; one in a transaction is refused. Cancelling the caller leaves the transaction to end by itself:
        a rebalance must not cost the writer.
        """
        if offsets:
            commit = asyncio.create_task(self.commit(Unit(self._token_now(), offsets=dict(offsets))), name="claim")
            commit.add_done_callback(mark_retrieved)
            await asyncio.shield(commit)

    async def stop(self, timeout_s: float) -> None:
        """Close within about `timeout_s`. A transaction that is open stays so, until the next incarnation."""
        self.dead = True
        try:
            async with asyncio.timeout(timeout_s):
                await self._link.close()
        except TimeoutError:
            pass

    def _require_token(self, unit: Unit) -> None:
        if self._is_member:
            _require_token(unit, self._token_now())

    def _require_alive(self) -> None:
        if self.dead or not self._started:
            raise writer_ended(self._where)

    @asynccontextmanager
    async def _ending(self) -> AsyncIterator[None]:
        """A block with a deadline, in which any error ends the writer, cancellation included."""
        try:
            with translated(self._where):
                async with asyncio.timeout(self._timeout_s):
                    yield
        except BaseException:
            self.dead = True
            self._link.cut()
            raise


class IdempotentWriter:
    """At least once: every record acknowledged by all replicas, and only then the offsets, fenced by the group.

    Args:
        claim: the consumer's generation-fenced commit.
        token_now: the consumer's membership at the moment.
    """

    transactional_id: str | None = None
    recovered = 0

    def __init__(
        self,
        connection: Connection,
        *,
        claim: Callable[[Mapping[int, Committed]], Awaitable[None]],
        token_now: Callable[[], GroupToken],
        commit_timeout_s: float = 20.0,
        compression: str | None = None,
        limits: Mapping[str, int] = _NO_LIMITS,
    ) -> None:
        self._claim = claim
        self._token_now = token_now
        self._outlet = ProducerSession(
            connection,
            where="producer",
            commit_timeout_s=commit_timeout_s,
            compression=compression,
            limits=limits,
        )

    @property
    def dead(self) -> bool:
        return self._outlet.dead

    async def start(self) -> None:
        """Get a producer id. Raises `BrokerRefused` or `BrokerUnavailable`."""
        await self._outlet.start()

    async def commit(self, unit: Unit) -> None:
        """Write the records, then commit the offsets. After an error all, some or none of the records are there.

        Checkpoints come in between: one that stood before its outputs would let a restart skip what it has not
        published, and one that was forgotten before the offsets moved on would be missed by a restart from there.
        """
        self._outlet.require_alive()
        _require_token(unit, self._token_now())
        records = await self._outlet.batches(unit.records, unit.ack_positions)
        kept = await self._outlet.batches([record for record in unit.checkpoints if record.value is not None])
        forgotten = await self._outlet.batches([record for record in unit.checkpoints if record.value is None])
        await self._acked(records)
        await self._acked(kept)
        _require_token(unit, self._token_now())
        await self._claim(unit.offsets)
        await self._acked(forgotten)

    async def claim(self, offsets: Mapping[int, Committed]) -> None:
        await self._claim(offsets)

    async def _acked(self, batches: list[RecordBatch]) -> None:
        if batches:
            async with self._outlet.ending():
                await _all(await self._outlet.send(batches))

    async def stop(self, timeout_s: float) -> None:
        await self._outlet.stop(timeout_s)


async def takeover(connection: Connection, transactional_id: str, timeout_s: float) -> bool:
    """Fence a dead writer: initialising its transactional id aborts its open transaction.

    Only for a writer that is known to be gone: a live one is fenced as well. Returns whether it had a transaction
    open: a writer that stopped in order has none.

    Raises:
        BrokerRefused, BrokerUnavailable
    """
    where = f"takeover of {transactional_id}"
    link = BrokerLink(
        connection, transactional_id=transactional_id, group_id="", source_topic="", transaction_timeout_ms=15_000
    )
    try:
        async with explained(connection, where), asyncio.timeout(timeout_s):
            await link.open()
            transactions = Transactions(link, where=where, group_id="", source_topic="")
            await transactions.start()
            return transactions.found_open
    finally:
        await link.close()


def _require_token(unit: Unit, now: GroupToken) -> None:
    if unit.token.generation < 0 or unit.token != now:
        raise Fenced(
            f"group: a unit of generation {unit.token.generation} in generation {now.generation}",
            hint="the group rebalanced: drop the unit, its records come again from the log",
        )


async def _all(acks: Sequence[Coroutine[Any, Any, None]]) -> None:
    """Wait for all, or for the first error; after one, stop waiting for the other answers."""
    waiting = [asyncio.create_task(ack) for ack in acks]
    try:
        await asyncio.gather(*waiting)
    finally:
        for task in waiting:
            task.cancel()
