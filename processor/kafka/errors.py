"""Translation of aiokafka errors into the errors of processor.errors; nothing else does it.

RunStepsError
├── BrokerRefused
│   ├── PermissionMissing   an ACL: this principal may not do it
│   └── TopicMissing        there is no topic of this name
├── BrokerUnavailable
│   ├── OffsetsUnstable   a transaction that may change the offsets is still open
│   └── ReadStalled       a reader's positions stand still below the end of the log
├── CorruptLog
│   └── OffsetLost        the log no longer holds the offset we must continue from
└── RecordTooLarge        a record that its topic will not take
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Final, cast

from aiokafka import errors
from aiokafka.errors import KafkaError

from processor.errors import BrokerRefused, BrokerUnavailable, CorruptLog, Fenced, RunStepsError
from processor.kafka import error_codes

_NONE: Final[Mapping[int, tuple[int, str]]] = MappingProxyType({})


class PermissionMissing(BrokerRefused):
    """The broker does not allow this principal an operation."""


class TopicMissing(BrokerRefused):
    """The brokers say that there is no topic of this name. `similar`: names that may have been meant."""

    def __init__(self, topic: str, similar: Collection[str] = ()) -> None:
        like = f"names like it: {', '.join(similar)}; " if similar else ""
        super().__init__(
            f"topic {topic}: does not exist",
            hint=f"{like}name another, or create it (`run-steps serve --create-topics` does)",
        )
        self.topic = topic
        self.similar = tuple(similar)


class OffsetLost(CorruptLog):
    """Retention (or a truncation) took the offset that a partition must continue from."""

    def __init__(self, message: str, *, partition: int | None = None, offset: int | None = None) -> None:
        super().__init__(
            message,
            hint="records are gone: restore the topic; or, to go on with what is left, stop all workers, then "
            f"`run-steps reset --partition {'N' if partition is None else partition} --to earliest`; and raise the "
            "topic's retention",
        )
        self.partition = partition
        self.offset = offset


class OffsetsUnstable(BrokerUnavailable):
    """Some offsets may still change: a writer's transaction over them is open. `partitions` says which.

    `stable` has the answers for the others that were asked for.
    """

    def __init__(
        self, message: str, *, partitions: Collection[int], stable: Mapping[int, tuple[int, str]] = _NONE
    ) -> None:
        super().__init__(message, hint="the writer named in the offset's metadata holds a transaction open")
        self.partitions = frozenset(partitions)
        self.stable = stable


class ReadStalled(BrokerUnavailable):
    """The positions of `partitions` did not move for too long, below the end of the log."""

    def __init__(self, message: str, *, partitions: Collection[int], hint: str) -> None:
        super().__init__(message, hint=hint)
        self.partitions = frozenset(partitions)


class RecordTooLarge(RunStepsError):
    """A record, or a batch of several, that its topic will not take. It was not written, nor was what it came with.

    Args:
        size: bytes of the record, or of the largest of the batch, as it stands in the batch.
        limit: the largest batch that the topic takes, if it is known.
        records: of the batch that the broker refused; 1: it is the record that is too large.
    """

    exit_code = 65

    def __init__(self, topic: str, size: int, limit: int = 0, records: int = 1) -> None:
        most = f"; the lower of max.message.bytes and segment.bytes is {limit}" if limit else ""
        what = f"a record is larger than the topic takes (got {size} bytes{most})"
        if records > 1:
            what = f"a batch of {records} records is larger than the topic takes (the largest has {size} bytes{most})"
        super().__init__(
            f"topic {topic}: {what}",
            hint="raise max.message.bytes of the topic; its segment.bytes must hold a whole batch, too",
        )
        self.topic, self.size = topic, size


_FENCED: Final[tuple[type[Exception], ...]] = (
    errors.CommitFailedError,
    errors.IllegalGenerationError,
    errors.IllegalStateError,
    errors.InvalidProducerEpoch,
    errors.InvalidProducerIdMapping,
    errors.InvalidTxnState,
    errors.OutOfOrderSequenceNumber,
    errors.ProducerFenced,
    errors.RebalanceInProgressError,
    errors.UnknownMemberIdError,
    errors.UnknownProducerId,
    error_codes.FencedInstanceIdError,
    error_codes.ProducerFencedError,
    error_codes.TransactionAbortableError,
)

_REFUSED: Final[dict[type[Exception], str]] = {
    errors.TopicAuthorizationFailedError: "grant this principal Read on what it reads and Write on what it writes",
    errors.GroupAuthorizationFailedError: "grant this principal Read on the consumer group",
    errors.ClusterAuthorizationFailedError: "grant this principal IdempotentWrite on the cluster",
    errors.TransactionalIdAuthorizationFailed: "grant this principal Write and Describe on the transactional id "
    '(prefixed with the group id), or set [delivery] mode = "at_least_once"',
    errors.SaslAuthenticationFailed: "check the user name and the password (or the token) of [kafka]",
    errors.AuthenticationFailedError: "check the user name and the password (or the token) of [kafka]",
    errors.UnsupportedSaslMechanismError: "set [kafka] sasl_mechanism to one that the broker offers",
    errors.IllegalSaslStateError: "this listener does not speak SASL: check [kafka] security_protocol and the port",
    errors.IncompatibleBrokerVersion: "Apache Kafka 2.5 or newer is needed for exactly once; "
    'set [delivery] mode = "at_least_once" for brokers without transactions',
    errors.UnsupportedVersionError: "Apache Kafka 2.5 or newer is needed",
    errors.UnknownTopicOrPartitionError: "create the topic, or start with --create-topics",
    errors.InvalidTopicError: "the topic's name is not allowed by the broker",
    errors.InvalidTransactionTimeout: "lower the transaction timeout, or raise the broker's transaction.max.timeout.ms",
    errors.InvalidSessionTimeoutError: "keep the session timeout between the broker's group.min.session.timeout.ms "
    "and group.max.session.timeout.ms",
    errors.InvalidGroupIdError: "the group id is not allowed by the broker",
    errors.InconsistentGroupProtocolError: "another kind of consumer is using this group id: choose another",
    errors.InvalidConfigurationError: "the broker does not take one of the topic's settings",
    errors.InvalidReplicationFactorError: "there are fewer brokers than replicas asked for",
    errors.InvalidPartitionsError: "the number of partitions is not allowed",
    errors.PolicyViolationError: "the broker's policy forbids it: ask those who run the cluster",
    errors.TopicAlreadyExistsError: "the topic exists already",
    errors.OffsetMetadataTooLargeError: "raise the broker's offset.metadata.max.bytes",
    errors.InvalidTimestampError: "the topic refuses the timestamp of a record, which is its source record's: set its "
    "message.timestamp.before.max.ms and message.timestamp.after.max.ms (before Kafka 3.6: "
    "message.timestamp.difference.max.ms) no tighter than the source's",
    errors.RecordTooLargeError: "raise [source] partition_fetch_bytes above the largest record",
    errors.UnsupportedCodecError: "pip install cramjam",
    error_codes.GroupMaxSizeReachedError: "raise the broker's group.max.size, or run fewer workers",
    error_codes.UnsupportedCompressionTypeError: "choose another compression",
    error_codes.InvalidRecordError: "a record breaks a rule of its topic (a compacted topic needs keys)",
}

_PERMISSION: Final = (
    errors.TopicAuthorizationFailedError,
    errors.GroupAuthorizationFailedError,
    errors.ClusterAuthorizationFailedError,
    errors.TransactionalIdAuthorizationFailed,
)
_LOST: Final = (errors.OffsetOutOfRangeError, errors.NoOffsetForPartitionError)
_BY_NAME: Final = {error.__name__: error for error in errors.kafka_errors.values()}


def translate(error: BaseException, where: str) -> RunStepsError:
    """This program's error for an aiokafka error. `where` begins the message: group, topic or transactional id.

    Returns:
        `BrokerRefused` (the broker said no; a person must act), `Fenced` (others own it now; restart from the log),
        `OffsetLost`, `CorruptLog`, or `BrokerUnavailable` for what may pass with time. An error of ours comes back as
        it is.
    """
    if isinstance(error, RunStepsError):
        return error
    error = _root(error)
    text = _text(error)
    if isinstance(error, errors.InvalidProducerIdMapping):
        return Fenced(
            f"{where}: the broker has forgotten this transactional id ({text})",
            hint="it was idle for longer than the broker's transactional.id.expiration.ms; a restart gets a new "
            "producer id, nothing is lost",
        )
    if isinstance(error, error_codes.FencedInstanceIdError):
        return Fenced(
            f"{where}: another process uses the same source.instance_id ({text})",
            hint="give every process an instance_id of its own, or none",
        )
    if isinstance(error, _FENCED):
        return Fenced(
            f"{where}: no longer ours ({text})", hint="another member took over; the log says what to do next"
        )
    if isinstance(error, _LOST):
        partition, offset = _place(error)
        return OffsetLost(
            f"{where}: partition {partition}: "
            + (f"the log does not hold offset {offset}" if offset is not None else "no offset to continue from"),
            partition=partition,
            offset=offset,
        )
    if isinstance(error, errors.CorruptRecordException):
        return CorruptLog(f"{where}: {text}", hint="check the broker's disks; the record cannot be read as it stands")
    for kind, hint in _REFUSED.items():
        if isinstance(error, kind):
            refused = PermissionMissing if isinstance(error, _PERMISSION) else BrokerRefused
            return refused(f"{where}: refused ({text})", hint=hint)
    if isinstance(error, NotImplementedError):  # what the library raises when no version is common
        return BrokerRefused(f"{where}: {text}", hint="Apache Kafka 2.5 or newer is needed")
    if isinstance(error, TimeoutError):
        return BrokerUnavailable(f"{where}: no answer in time", hint="check the brokers; a restart tries again")
    return BrokerUnavailable(f"{where}: {text}", hint="check the brokers; a restart tries again")


@contextmanager
def translated(where: str | Callable[[], str]) -> Iterator[None]:
    """Context that translates aiokafka errors raised in it into this program's errors."""
    try:
        yield
    except (
        KafkaError,
        errors.ConsumerStoppedError,
        errors.IllegalOperation,
        NotImplementedError,
        OSError,
        TimeoutError,
    ) as error:
        raise translate(error, where if isinstance(where, str) else where()) from error


def _root(error: BaseException) -> BaseException:
    """The most specific error: the library wraps some in a bare `KafkaError`, as cause or as text."""
    while type(error) is KafkaError and error.__cause__ is not None:
        error = error.__cause__
    if type(error) is KafkaError:
        for name in re.findall(r"\w+", str(error)):
            if name in _BY_NAME:
                return cast(BaseException, _BY_NAME[name](str(error)))
    return error


def _text(error: BaseException) -> str:
    return (str(error) or type(error).__name__).replace("\n", " ")[:300]


def _place(error: BaseException) -> tuple[int | None, int | None]:
    """Partition and offset of an offset error: its argument is {partition: offset} or the partition."""
    what = error.args[0] if error.args else None
    if isinstance(what, dict) and what:
        partition, offset = next(iter(what.items()))
        return partition.partition, offset
    return getattr(what, "partition", None), None
