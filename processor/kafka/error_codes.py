# mypy: allow-subclassing-any
"""Broker error codes that are newer than aiokafka, registered with it when this module is imported."""

from __future__ import annotations

from typing import Final

from aiokafka import errors


class FencedLeaderEpochError(errors.BrokerResponseError):
    errno = 74
    message = "FENCED_LEADER_EPOCH"
    description = "The leader epoch in the request is older than the broker's."
    retriable = True
    invalid_metadata = True


class UnknownLeaderEpochError(errors.BrokerResponseError):
    errno = 75
    message = "UNKNOWN_LEADER_EPOCH"
    description = "The leader epoch in the request is newer than the broker's."
    retriable = True


class UnsupportedCompressionTypeError(errors.BrokerResponseError):
    errno = 76
    message = "UNSUPPORTED_COMPRESSION_TYPE"
    description = "The broker does not support this compression."


class OffsetNotAvailableError(errors.BrokerResponseError):
    errno = 78
    message = "OFFSET_NOT_AVAILABLE"
    description = "The leader's high watermark has not caught up after an election."
    retriable = True


class GroupMaxSizeReachedError(errors.BrokerResponseError):
    errno = 81
    message = "GROUP_MAX_SIZE_REACHED"
    description = "The consumer group has reached its maximum number of members."


class FencedInstanceIdError(errors.BrokerResponseError):
    errno = 82
    message = "FENCED_INSTANCE_ID"
    description = "Another consumer registered the same group instance id."


class InvalidRecordError(errors.BrokerResponseError):
    errno = 87
    message = "INVALID_RECORD"
    description = "The broker refused a record (a compacted topic needs keys)."


class UnstableOffsetCommitError(errors.BrokerResponseError):
    errno = 88
    message = "UNSTABLE_OFFSET_COMMIT"
    description = "A transaction that may change the offset is still pending."
    retriable = True


class ThrottlingQuotaExceededError(errors.BrokerResponseError):
    errno = 89
    message = "THROTTLING_QUOTA_EXCEEDED"
    description = "The quota of this client is used up."
    retriable = True


class ProducerFencedError(errors.BrokerResponseError):
    errno = 90
    message = "PRODUCER_FENCED"
    description = "A newer producer with the same transactional id has started."


class TransactionAbortableError(errors.BrokerResponseError):
    errno = 120
    message = "TRANSACTION_ABORTABLE"
    description = "The transaction can only be aborted."


ERRORS: Final[tuple[type[errors.BrokerResponseError], ...]] = (
    FencedLeaderEpochError,
    UnknownLeaderEpochError,
    UnsupportedCompressionTypeError,
    OffsetNotAvailableError,
    GroupMaxSizeReachedError,
    FencedInstanceIdError,
    InvalidRecordError,
    UnstableOffsetCommitError,
    ThrottlingQuotaExceededError,
    ProducerFencedError,
    TransactionAbortableError,
)

# A change for the whole process, and it only adds: codes that the library would call UnknownError get their names. Its
# handlers look errors up here by code, so there is no narrower place.
for _error in ERRORS:
    errors.kafka_errors.setdefault(_error.errno, _error)

UNSTABLE: Final = UnstableOffsetCommitError.errno
GROUP_FENCED: Final = (errors.IllegalGenerationError, errors.UnknownMemberIdError, FencedInstanceIdError)
"""Errors of TxnOffsetCommit for a member that is fenced: abort, then rejoin (as the Java client does)."""
