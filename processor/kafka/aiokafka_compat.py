"""The pinned aiokafka version, and the private names of it that this package uses.

aiokafka 0.14.0 lacks what exactly-once needs (KIP-447) and has faults that matter here. Both are fixed by subclasses
and by `with_globals` functions, never by patching the library: other users of aiokafka in the process see it untouched.
The price is that private names are used. They are all listed in `PRIVATE`, `verify` looks for them at start-up, and
`tests/shell/test_kafka_contract.py` holds the list complete.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import FunctionType
from typing import Any, Final, TypeVar, cast

import aiokafka
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.client import AIOKafkaClient
from aiokafka.conn import AIOKafkaConnection
from aiokafka.consumer.fetcher import Fetcher, FetchResult
from aiokafka.consumer.group_coordinator import GroupCoordinator, NoGroupCoordinator
from aiokafka.consumer.subscription_state import SubscriptionState
from aiokafka.producer.message_accumulator import BatchBuilder, MessageAccumulator, MessageBatch
from aiokafka.producer.sender import BaseHandler, InitPIDHandler, Sender
from aiokafka.producer.transaction_manager import TransactionManager
from aiokafka.protocol.group import JoinGroupRequest
from aiokafka.record.default_records import DefaultRecordBatch
from aiokafka.record.memory_records import MemoryRecords

from processor.errors import RunStepsError

F = TypeVar("F", bound=Callable[..., Any])

VERSION: Final = "0.14.0"

PRIVATE: Final[Mapping[type, frozenset[str]]] = {
    AIOKafkaAdminClient: frozenset({"_client", "_get_cluster_metadata", "_send_request", "_send_to_controller"}),
    BatchBuilder: frozenset({"_build", "_set_producer_state"}),
    AIOKafkaClient: frozenset(
        {
            "_bootstrap_servers",
            "_conns",
            "_get_conn",
            "_md_synchronizer",
            "_metadata_update",
            "_on_connection_closed",
            "_sync_task",
            "_wait_on_metadata",
        }
    ),
    AIOKafkaConnection: frozenset(
        {
            "_create_reader_task",
            "_handle_frame",
            "_loop",
            "_protocol",
            "_read",
            "_request_timeout",
            "_requests",
            "_sasl_oauth_token_provider",
            "_versions",
            "_writer",
        }
    ),
    AIOKafkaConsumer: frozenset({"_client", "_closed", "_coordinator", "_fetcher", "_subscription"}),
    AIOKafkaProducer: frozenset({"_closed", "_message_accumulator", "_sender"}),
    FetchResult: frozenset({"_partition_records", "_topic_partition", "_update_position"}),
    Fetcher: frozenset(
        {
            "_closed",
            "_create_fetch_waiter",
            "_fetch_task",
            "_fetch_waiters",
            "_isolation_level",
            "_notify",
            "_pending_tasks",
            "_prefetch_backoff",
            "_proc_fetch_request",
            "_records",
            "_subscriptions",
            "_wait_consume_future",
        }
    ),
    GroupCoordinator: frozenset(
        {
            "_commit_refresh_task",
            "_coordination_task",
            "_do_commit_offsets",
            "_group_instance_id",
            "_heartbeat_task",
            "_maybe_leave_group",
            "_send_req",
        }
    ),
    JoinGroupRequest: frozenset({"_rebalance_timeout"}),
    NoGroupCoordinator: frozenset({"_reset_committed_task"}),
    MessageAccumulator: frozenset({"_batch_size", "_append_batch", "_batches"}),
    MessageBatch: frozenset({"_drain_waiter"}),
    BaseHandler: frozenset({"_sender"}),
    InitPIDHandler: frozenset(),
    Sender: frozenset({"_do_init_pid", "_txn_manager"}),
    SubscriptionState: frozenset({"_last_fetch_ended"}),
    TransactionManager: frozenset({"_transaction_waiter"}),
}
"""Private names by the class that owns them."""


def with_globals(function: F, **names: object) -> F:
    """A copy of the function in which some of its module's global names refer to other objects.

    This is how one of our classes takes the place of the library's own inside a long method without a copy of that
    method here, and without touching the module that everybody else imports.
    """
    original = cast(FunctionType, function)
    unknown = names.keys() - set(original.__code__.co_names)
    if unknown or original.__closure__:
        raise _mismatch(f"{original.__qualname__} does not refer to {', '.join(sorted(unknown)) or 'globals only'}")
    copy = FunctionType(
        original.__code__,
        {**original.__globals__, **names},
        original.__name__,
        original.__defaults__,
    )
    copy.__kwdefaults__ = original.__kwdefaults__
    copy.__qualname__ = original.__qualname__
    copy.__doc__ = original.__doc__
    return cast(F, copy)


def verify() -> None:
    """Refuse to start with an aiokafka, or a Python mode, that was not tested.

    Raises:
        RunStepsError: another version, pure-Python records (28 times slower, silently), `python -O` (the library's
            transaction state checks are asserts), or a private name that is not there.
    """
    if aiokafka.__version__ != VERSION:
        raise _mismatch(f"version {aiokafka.__version__} is installed")
    for part in (DefaultRecordBatch, MemoryRecords):
        if "_crecords" not in part.__module__:
            raise RunStepsError(
                f"aiokafka: {part.__name__}: its compiled form is not in use (got {part.__module__})",
                hint="unset AIOKAFKA_NO_EXTENSIONS and install aiokafka from a wheel built for this platform",
            )
    if not __debug__:
        raise RunStepsError(
            "python: started with -O, which removes the checks that guard transactions",
            hint="unset PYTHONOPTIMIZE and start without -O",
        )
    for owner, names in PRIVATE.items():
        missing = sorted(name for name in names if not declares(owner, name))
        if missing:
            raise _mismatch(f"{owner.__name__} has no {', '.join(missing)}")


def declares(owner: type, name: str) -> bool:
    """Whether a class has this attribute, or sets it on its instances in `__init__`."""
    if hasattr(owner, name):
        return True
    makers = (vars(base).get("__init__") for base in owner.__mro__)
    return any(name in maker.__code__.co_names for maker in makers if isinstance(maker, FunctionType))


def _mismatch(what: str) -> RunStepsError:
    return RunStepsError(
        f"aiokafka: this build of run-steps is tested with {VERSION} and no other: {what}",
        hint=f"pip install aiokafka=={VERSION}",
    )
