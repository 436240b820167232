"""What `processor.kafka` takes for granted about aiokafka, and its fast fetch path on crafted bytes. No broker."""

from __future__ import annotations

import ast
import inspect
import re
import struct
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import aiokafka
import google_crc32c
import pytest
from aiokafka import conn, errors, partitioner
from aiokafka.client import AIOKafkaClient
from aiokafka.consumer.fetcher import Fetcher, FetchResult, PartitionRecords
from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.producer.producer import AIOKafkaProducer
from aiokafka.producer.sender import BaseHandler, Sender
from aiokafka.producer.transaction_manager import TransactionManager
from aiokafka.protocol.types import Int16, Int32, UnsignedVarInt32
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.legacy_records import LegacyRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.record.util import calc_crc32c
from aiokafka.structs import TopicPartition
from hypothesis import given, settings
from hypothesis import strategies as st

from processor.errors import BrokerRefused, BrokerUnavailable, CorruptLog, Fenced, RunStepsError
from processor.kafka import aiokafka_compat as pinned
from processor.kafka import error_codes, wire
from processor.kafka.errors import OffsetLost, PermissionMissing, translate
from processor.kafka.fetch import BatchFetcher, BatchRecords, BatchResult, CheckedRecords
from processor.kafka.records import murmur2
from tests.examples import examples

ROOM = Path(pinned.__file__).parent

# --- private names --------------------------------------------------------------------------------------------------

MODULES = {
    "aiokafka",
    "aiokafka.abc",
    "aiokafka.admin",
    "aiokafka.admin.config_resource",
    "aiokafka.client",
    "aiokafka.conn",
    "aiokafka.consumer.fetcher",
    "aiokafka.consumer.group_coordinator",
    "aiokafka.consumer.subscription_state",
    "aiokafka.coordinator.assignors.roundrobin",
    "aiokafka.errors",
    "aiokafka.producer",
    "aiokafka.producer.message_accumulator",
    "aiokafka.producer.sender",
    "aiokafka.producer.transaction_manager",
    "aiokafka.protocol.admin",
    "aiokafka.protocol.abstract",
    "aiokafka.protocol.api",
    "aiokafka.protocol.commit",
    "aiokafka.protocol.coordination",
    "aiokafka.protocol.group",
    "aiokafka.protocol.metadata",
    "aiokafka.protocol.produce",
    "aiokafka.protocol.transaction",
    "aiokafka.protocol.types",
    "aiokafka.record.control_record",
    "aiokafka.record.default_records",
    "aiokafka.record.memory_records",
    "aiokafka.record.util",
    "aiokafka.structs",
}

SIGNATURES: dict[Callable[..., Any], str] = {
    PartitionRecords.__init__: "(self, tp, records, aborted_transactions, fetch_offset, key_deserializer, "
    "value_deserializer, check_crcs, isolation_level)",
    FetchResult.__init__: "(self, tp, *, assignment, partition_records, backoff)",
    FetchResult.getall: "(self, max_records=None)",
    Fetcher._proc_fetch_request: "(self, assignment, node_id, request)",
    Fetcher._create_fetch_waiter: "(self)",
    Fetcher._notify: "(self, future)",
    Fetcher.end_offsets: "(self, partitions, timeout_ms)",
    Fetcher.beginning_offsets: "(self, partitions, timeout_ms)",
    GroupCoordinator._do_commit_offsets: "(self, assignment, offsets)",
    GroupCoordinator._send_req: "(self, request)",
    GroupCoordinator.ensure_coordinator_known: "(self)",
    GroupCoordinator.coordinator_dead: "(self)",
    GroupCoordinator.check_errors: "(self)",
    Sender._do_init_pid: "(self, node_id)",
    BaseHandler.do: "(self, node_id)",
    TransactionManager.fatal_error: "(self, exc)",
    AIOKafkaProducer.send_batch: "(self, batch, topic, *, partition)",
    AIOKafkaClient._get_conn: "(self, node_id, *, group=<ConnectionGroup.DEFAULT: 0>, no_hint=False)",
    AIOKafkaClient._wait_on_metadata: "(self, topic)",
    AIOKafkaClient._metadata_update: "(self, cluster_metadata, topics)",
    conn.AIOKafkaConnection.send: "(self, request, expect_response=True)",
    conn.AIOKafkaConnection._create_reader_task: "(self)",
    conn.AIOKafkaConnection._handle_frame: "(self, resp)",
    conn.AIOKafkaConnection.close: "(self, reason=None, exc=None)",
}


def test_the_library_is_the_one_we_know() -> None:
    pinned.verify()


@pytest.mark.parametrize(
    ("owner", "name"), [(owner, name) for owner, names in pinned.PRIVATE.items() for name in sorted(names)]
)
def test_every_private_name_is_where_we_look_for_it(owner: type, name: str) -> None:
    assert pinned.declares(owner, name)


@pytest.mark.parametrize("function", SIGNATURES, ids=lambda function: function.__qualname__)
def test_every_function_takes_what_we_give_it(function: Callable[..., Any]) -> None:
    assert str(inspect.signature(function)) == SIGNATURES[function]


def test_the_table_of_private_names_is_complete_and_no_longer_than_needed() -> None:
    used = {name for path in ROOM.glob("*.py") for name in private_names(path)} - {"_replace"}  # of a NamedTuple
    listed = {name for names in pinned.PRIVATE.values() for name in names}
    assert used - listed == set(), "used but not listed in pinned.PRIVATE"
    assert listed - used == set(), "listed in pinned.PRIVATE but not used"


def test_the_table_of_the_librarys_modules_is_complete() -> None:
    imported: set[str] = set()
    for path in ROOM.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                imported.add(node.module or "")
    assert {module for module in imported if module.split(".")[0] == "aiokafka"} == MODULES


def private_names(path: Path) -> Iterator[str]:
    """The library's private names in a file: reached for, overridden or set. Our own are left out."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for owner in (node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)):
        spelled = {getattr(base, "id", None) or getattr(base, "attr", None) for base in owner.bases}
        bases = [known for known in pinned.PRIVATE if known.__name__ in spelled]
        own = {name for name in defined_in(owner) if not any(pinned.declares(base, name) for base in bases)}
        yield from filter(is_private, defined_in(owner) - own)
        yield from (node.attr for node in attributes(owner) if on_self(node) and node.attr not in own)
    yield from (node.attr for node in attributes(tree) if not on_self(node))
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and path.name != "aiokafka_compat.py":
            yield from re.findall("^_[a-z][a-z_]+$", node.value)


def attributes(tree: ast.AST) -> Iterator[ast.Attribute]:
    yield from (node for node in ast.walk(tree) if isinstance(node, ast.Attribute) and is_private(node.attr))


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def on_self(node: ast.Attribute) -> bool:
    holder = node.value.func if isinstance(node.value, ast.Call) else node.value
    return isinstance(holder, ast.Name) and holder.id in {"self", "cls", "super"}


def defined_in(owner: ast.ClassDef) -> set[str]:
    """Methods, class attributes, and attributes set on self."""
    names = {node.name for node in owner.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    names |= {node.id for node in ast.walk(owner) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    return names | {node.attr for node in attributes(owner) if on_self(node) and isinstance(node.ctx, ast.Store)}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda patch: patch.setattr(aiokafka, "__version__", "0.15.0"), "0.15.0"),
        (lambda patch: patch.setattr(pinned, "MemoryRecords", Path), "compiled form"),
        (lambda patch: patch.setattr(pinned, "PRIVATE", {Fetcher: frozenset({"_gone"})}), "Fetcher has no _gone"),
    ],
)
def test_anything_else_is_refused_with_a_reason(
    change: Callable[[pytest.MonkeyPatch], None], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    change(monkeypatch)
    with pytest.raises(RunStepsError, match=says):
        pinned.verify()


def test_a_function_that_lost_the_name_is_not_rebound() -> None:
    with pytest.raises(RunStepsError, match="FetchResult"):
        pinned.with_globals(Fetcher.end_offsets, FetchResult=object)


def test_other_users_of_the_library_see_none_of_it() -> None:
    import aiokafka.consumer.consumer as consumer
    import aiokafka.consumer.fetcher as fetcher
    import aiokafka.producer.producer as producer

    assert fetcher.MemoryRecords is MemoryRecords
    assert fetcher.PartitionRecords is PartitionRecords
    assert fetcher.FetchResult is FetchResult
    assert consumer.Fetcher is Fetcher
    assert producer.Sender is Sender
    assert conn.READER_LIMIT == 2**16


# --- errors ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", error_codes.ERRORS)
def test_the_newer_codes_have_names(error: type[errors.BrokerResponseError]) -> None:
    assert errors.for_code(error.errno) is error


@pytest.mark.parametrize(
    ("error", "ours"),
    [
        (errors.ProducerFenced(), Fenced),
        (errors.CommitFailedError(), Fenced),
        (errors.KafkaError("FencedInstanceIdError()"), Fenced),
        (errors.TopicAuthorizationFailedError("t"), PermissionMissing),
        (errors.OffsetOutOfRangeError({TopicPartition("t", 3): 17}), OffsetLost),
        (errors.CorruptRecordException(), CorruptLog),
        (errors.InvalidTimestampError(), BrokerRefused),
        (errors.RequestTimedOutError(), BrokerUnavailable),
        (TimeoutError(), BrokerUnavailable),
        (NotImplementedError("Support for TxnOffsetCommit v2 has not yet been added"), BrokerRefused),
    ],
)
def test_every_error_has_our_word_for_it(error: Exception, ours: type[RunStepsError]) -> None:
    assert type(translate(error, "here")) is ours


def test_an_expired_transactional_id_is_told_as_that() -> None:
    told = translate(errors.InvalidProducerIdMapping(), "transactional id x")
    assert isinstance(told, Fenced)
    assert "has forgotten this transactional id" in told.message
    assert "transactional.id.expiration.ms" in told.hint


def test_want_of_memory_is_no_corrupt_record() -> None:
    class Starved:
        next_fetch_offset = 0

        def take(self, _: int | None) -> None:
            raise MemoryError

    result = BatchResult.__new__(BatchResult)
    result._topic_partition = TopicPartition("t", 0)
    result._partition_records = cast(BatchRecords, Starved())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BatchResult, "check_assignment", lambda *_: True)
        patch.setattr(BatchResult, "has_more", lambda *_: True)
        with pytest.raises(MemoryError):
            result.getall(1)


def test_a_wrapped_error_is_judged_by_its_cause() -> None:
    wrapped = errors.KafkaError("Unexpected error during batch delivery")
    wrapped.__cause__ = error_codes.ProducerFencedError()
    assert isinstance(translate(wrapped, "here"), Fenced)


def test_a_lost_offset_says_which() -> None:
    lost = translate(errors.OffsetOutOfRangeError({TopicPartition("t", 3): 17}), "topic t")
    assert isinstance(lost, OffsetLost)
    assert (lost.partition, lost.offset) == (3, 17)


# --- the wire -------------------------------------------------------------------------------------------------------


def text(value: str) -> bytes:
    return bytes(UnsignedVarInt32.encode(len(value) + 1)) + value.encode()


NO_TAGS = b"\x00"


def test_offsets_in_a_transaction_carry_the_membership() -> None:
    request = wire.TxnOffsetCommit("me", "group", 7, 3, (5, "member", None), {"t": [(2, 40, "meta")]})
    sent = request.prepare({28: (0, 5)})
    assert sent.API_VERSION == 3
    assert sent.encode() == (
        text("me") + text("group") + struct.pack(">qh", 7, 3) + Int32.encode(5) + text("member") + b"\x00"
        + b"\x02" + text("t") + b"\x02" + struct.pack(">iqi", 2, 40, -1) + text("meta") + NO_TAGS * 3
    )  # fmt: skip
    with pytest.raises(NotImplementedError):
        request.prepare({28: (0, 2)})  # a broker without fencing is refused, not asked in the old form


def test_the_answer_to_offsets_in_a_transaction_reads_as_the_old_one() -> None:
    row = Int32.encode(2) + Int16.encode(22) + NO_TAGS
    answer = Int32.encode(0) + b"\x02" + text("t") + b"\x02" + row + NO_TAGS + NO_TAGS
    assert wire.TxnOffsetCommitResponse_v3.decode(answer).errors == [("t", [(2, 22)])]


def test_stable_offsets_are_asked_for_where_the_broker_knows_how() -> None:
    request = wire.OffsetFetch("g", "t", [0, 1], require_stable=True)
    sent = request.prepare({9: (1, 8)})
    assert sent.encode() == text("g") + b"\x02" + text("t") + b"\x03" + struct.pack(">ii", 0, 1) + b"\x00\x01\x00"
    assert request.prepare({9: (1, 5)}).API_VERSION == 3
    row = struct.pack(">iqi", 1, 9, -1) + text("m") + Int16.encode(88) + NO_TAGS
    answer = Int32.encode(0) + b"\x02" + text("t") + b"\x02" + row + NO_TAGS + Int16.encode(0) + NO_TAGS
    assert wire.OffsetFetchResponse_v7.decode(answer).topics == [("t", [(1, 9, "m", 88)])]


@pytest.mark.parametrize(("most", "version"), [(1, 0), (3, 3), (6, 4)])
def test_a_producer_id_is_asked_for_in_the_newest_common_form(most: int, version: int) -> None:
    sent = wire.InitProducerId("me", 5000).prepare({22: (0, most)})
    assert version == sent.API_VERSION
    assert sent.encode().endswith(struct.pack(">iqh", 5000, -1, -1) + NO_TAGS if version else struct.pack(">i", 5000))


def test_topic_ids_are_asked_for_where_the_broker_knows_them() -> None:
    request = wire.TopicIds(["t"])
    sent = request.prepare({3: (0, 13)})
    assert sent.encode() == b"\x02" + bytes(16) + text("t") + NO_TAGS + b"\x00\x00\x00" + NO_TAGS
    assert request.prepare({3: (0, 9)}).API_VERSION == 4
    assert request.prepare({3: (0, 3)}).API_VERSION == 2
    partition = struct.pack(">hiii", 0, 0, 1, 1) + b"\x02" + Int32.encode(1) + b"\x02" + Int32.encode(1)
    topic = Int16.encode(0) + text("t") + bytes(range(16)) + b"\x00" + b"\x02" + partition + b"\x01" + NO_TAGS
    broker = Int32.encode(1) + text("h") + Int32.encode(9092) + b"\x00" + NO_TAGS
    answer = Int32.encode(0) + b"\x02" + broker + text("cluster") + Int32.encode(1) + b"\x02" + topic
    answer += Int32.encode(0) + NO_TAGS + Int32.encode(0) + NO_TAGS
    decoded = wire.MetadataResponse_v10.decode(answer)
    assert wire.topic_ids(decoded) == ("cluster", {"t": "AAECAwQFBgcICQoLDA0ODw"})
    assert wire.Uuid.encode("AAECAwQFBgcICQoLDA0ODw") == bytes(range(16))


@given(st.binary(max_size=40))
def test_keys_go_where_the_java_client_sends_them(key: bytes) -> None:
    assert murmur2(key) == partitioner.murmur2(key)


# --- the fast fetch path --------------------------------------------------------------------------------------------

CONTROL = 0x20
TRANSACTIONAL = 0x10
ABORT, COMMIT = 0, 1


def sealed(batch: bytearray) -> bytes:
    struct.pack_into(">I", batch, 17, calc_crc32c(bytes(batch[21:])))
    return bytes(batch)


def data(base: int, count: int, *, pid: int = -1, codec: int = 0, gap: int = 0) -> bytes:
    """A batch of `count` records from offset `base`; `gap` offsets at its end were compacted away."""
    builder = DefaultRecordBatchBuilder(2, codec, int(pid >= 0), pid, 0, 0, 1 << 20)
    for i in range(count):
        header = [("h", b"%d" % i), ("none", None)] if i % 2 else []
        builder.append(i, 1000 + base + i, key=None if i % 3 else b"k", value=b"v%d" % (base + i), headers=header)
    batch = bytearray(builder.build())
    struct.pack_into(">q", batch, 0, base)
    struct.pack_into(">i", batch, 23, count - 1 + gap)
    return sealed(batch)


def control(base: int, kind: int, pid: int) -> bytes:
    builder = DefaultRecordBatchBuilder(2, 0, 1, pid, 0, -1, 1 << 20)
    builder.append(0, 1000, key=struct.pack(">hh", 0, kind), value=struct.pack(">hi", 0, 0), headers=[])
    batch = bytearray(builder.build())
    struct.pack_into(">q", batch, 0, base)
    struct.pack_into(">h", batch, 21, CONTROL | TRANSACTIONAL)
    return sealed(batch)


def emptied(batch: bytes) -> bytes:
    """What the log cleaner may leave of a batch: its header, without compression."""
    header = bytearray(batch[:61])
    struct.pack_into(">i", header, 8, 49)
    header[22] &= ~0x07
    struct.pack_into(">i", header, 57, 0)
    return sealed(header)


def legacy(magic: int, first: int, count: int, *, codec: int = 0) -> bytes:
    """Records as brokers before 0.11 wrote them: each a batch of its own; compressed, one with the last's offset."""
    builder = LegacyRecordBatchBuilder(magic, codec, 1 << 20)
    for i in range(first, first + count):
        builder.append(i, 1000 + i, key=b"k", value=b"v%d" % i)
    written = bytearray(builder.build())
    if codec:
        struct.pack_into(">q", written, 0, first + count - 1)
    return bytes(written)


class Log(NamedTuple):
    raw: bytes
    aborted: list[tuple[int, int]]


def upstream(log: Log, start: int, isolation: int) -> tuple[list[Any], int]:
    source = PartitionRecords(TP, MemoryRecords(log.raw), list(log.aborted), start, None, None, True, isolation)
    return [plain(record) for record in source], source.next_fetch_offset


def ours(log: Log, start: int, isolation: int, cuts: Sequence[int | None] = (None,)) -> tuple[list[Any], int]:
    """Take by the given limits, the last one repeated to the end; check every step of the way."""
    source = BatchRecords(TP, CheckedRecords(log.raw), list(log.aborted), start, None, None, True, isolation)
    got: list[Any] = []
    limits = list(cuts)
    while True:
        limit = limits.pop(0) if len(limits) > 1 else limits[0]
        records, more = source.take(limit)
        assert limit is None or len(records) <= limit
        got += [plain(record) for record in records]
        assert not got or source.next_fetch_offset > got[-1][0]
        if not more:
            return got, source.next_fetch_offset


def plain(record: Any) -> tuple[Any, ...]:
    return record.offset, record.timestamp, record.key, record.value, tuple(record.headers)


TP = TopicPartition("t", 0)
READ_UNCOMMITTED, READ_COMMITTED = 0, 1

PLAIN = Log(data(0, 5) + data(5, 3), [])
ABORTED = Log(data(0, 3, pid=1) + data(3, 2, pid=2) + control(5, ABORT, 1) + data(6, 2, pid=1) + control(8, COMMIT, 2)
              + control(9, COMMIT, 1), [(1, 0)])  # fmt: skip
LONELY_MARKER = Log(control(0, ABORT, 9) + data(1, 2), [])
GAPS = Log(data(0, 3, gap=4) + emptied(data(7, 2)) + data(9, 1, gap=2), [])
CODECS = Log(data(0, 9, codec=1) + data(9, 9, codec=2) + data(18, 9, codec=3) + data(27, 9, codec=4), [])
MAGIC_0 = Log(legacy(0, 0, 2) + legacy(0, 2, 3, codec=1) + legacy(0, 5, 1), [])
MAGIC_1 = Log(legacy(1, 0, 2) + legacy(1, 2, 3, codec=1) + legacy(1, 5, 1), [])


@pytest.mark.parametrize("isolation", [READ_UNCOMMITTED, READ_COMMITTED])
@pytest.mark.parametrize("start", [0, 1, 4, 7])
@pytest.mark.parametrize("log", [PLAIN, ABORTED, LONELY_MARKER, GAPS, CODECS, MAGIC_0, MAGIC_1])
def test_it_takes_what_upstream_takes(log: Log, start: int, isolation: int) -> None:
    expected = upstream(log, start, isolation)
    assert ours(log, start, isolation) == expected
    for limit in range(1, 6):
        assert ours(log, start, isolation, [limit]) == expected


def test_the_crafted_logs_say_what_they_mean() -> None:
    assert [row[0] for row in upstream(ABORTED, 0, READ_COMMITTED)[0]] == [3, 4, 6, 7]
    assert [row[0] for row in upstream(ABORTED, 0, READ_UNCOMMITTED)[0]] == [0, 1, 2, 3, 4, 6, 7]
    assert upstream(ABORTED, 0, READ_COMMITTED)[1] == 10
    assert upstream(GAPS, 0, READ_COMMITTED) == (upstream(GAPS, 0, READ_UNCOMMITTED)[0], 12)


@st.composite
def logs(draw: st.DrawFn) -> Log:
    """Any interleaving of plain and transactional batches of three producers, gaps and compacted batches among them."""
    raw, offset, aborted = b"", 0, []
    open_since: dict[int, int] = {}
    for _ in range(draw(st.integers(0, 12))):
        pid = draw(st.sampled_from([-1, 1, 2, 3]))
        if pid in open_since and draw(st.booleans()):
            kind = draw(st.sampled_from([ABORT, COMMIT]))
            if kind == ABORT:
                aborted.append((pid, open_since[pid]))
            del open_since[pid]
            raw += control(offset, kind, pid)
            offset += 1
            continue
        if pid >= 0:
            open_since.setdefault(pid, offset)
        count, gap = draw(st.integers(1, 6)), draw(st.integers(0, 3))
        batch = data(offset, count, pid=pid, codec=draw(st.sampled_from([0, 4])), gap=gap)
        raw += emptied(batch) if draw(st.integers(0, 9)) == 0 else batch
        offset += count + gap
    return Log(raw, aborted)


@settings(max_examples=examples(150), deadline=None)
@given(logs(), st.integers(0, 40), st.sampled_from([0, 1]), st.lists(st.integers(1, 9), min_size=1, max_size=5))
def test_it_takes_what_upstream_takes_of_any_log(log: Log, start: int, isolation: int, cuts: list[int]) -> None:
    assert ours(log, start, isolation, cuts) == upstream(log, start, isolation)


def test_the_position_after_a_cut_is_behind_the_last_record_taken() -> None:
    source = BatchRecords(TP, CheckedRecords(data(0, 5, gap=3)), [], 0, None, None, True, READ_COMMITTED)
    assert [record.offset for record in source.take(2)[0]] == [0, 1]
    assert source.next_fetch_offset == 2
    assert [record.offset for record in source.take(3)[0]] == [2, 3, 4]
    assert source.next_fetch_offset == 8, "the gap belongs to the batch"


def test_an_emptied_control_batch_is_passed_over() -> None:
    """Upstream raises on it at the same offset for ever, on a compacted topic that was written in transactions."""
    log = Log(data(0, 2, pid=1) + emptied(control(2, ABORT, 1)) + data(3, 1), [])
    with pytest.raises(errors.KafkaError, match="did not contain any records"):
        upstream(log, 0, READ_COMMITTED)
    got, position = ours(log, 0, READ_COMMITTED)
    assert [row[0] for row in got] == [0, 1, 3]
    assert position == 4


def test_a_wrong_checksum_stops_before_the_batch() -> None:
    broken = bytearray(data(3, 2))
    broken[-1] ^= 1
    source = BatchRecords(TP, CheckedRecords(data(0, 3) + bytes(broken)), [], 0, None, None, True, READ_COMMITTED)
    assert len(source.take(3)[0]) == 3
    assert source.next_fetch_offset == 3
    with pytest.raises(errors.CorruptRecordException, match="offset 3"):
        source.take(1)
    assert source.next_fetch_offset == 3


def batches(log: Log) -> list[tuple[int, int, int]]:
    """Base offset, begin and end in bytes of each batch; the last may reach beyond what is there."""
    found, begin = [], 0
    while begin < len(log.raw):
        offset, length = struct.unpack_from(">qi", log.raw, begin)
        found.append((offset, begin, begin + 12 + length))
        begin += 12 + length
    return found


def flipped(raw: bytes, bit: int) -> bytes:
    broken = bytearray(raw)
    broken[bit // 8] ^= 1 << bit % 8
    return bytes(broken)


MIXED = Log(data(40, 2) + data(42, 3, codec=4, gap=1) + control(46, ABORT, 7) + emptied(data(47, 1)) + data(48, 1)
            + data(49, 5)[:-1], [])  # fmt: skip
"""Plain, compressed, a marker, emptied by compaction, and a batch that the end of the response cut off."""


@pytest.fixture(params=["c", "python"])
def implementation(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """What the library of checksums runs on; in Python alone it is too slow to be asked at all."""
    if request.param == "python":
        monkeypatch.setattr(google_crc32c, "implementation", "python")
        monkeypatch.setattr(google_crc32c, "value", None)
    return str(request.param)


def test_checksums_are_taken_by_the_library_that_uses_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bytes] = []

    def value(content: bytes) -> int:
        asked.append(content)
        return int(calc_crc32c(content))

    monkeypatch.setattr(google_crc32c, "value", value)
    ours(MIXED, 40, READ_COMMITTED)
    assert google_crc32c.implementation == "c"
    assert asked == [MIXED.raw[begin + 21 : end] for _, begin, end in batches(MIXED)[:-1]]


def test_the_fetcher_is_given_it() -> None:
    made = BatchFetcher._proc_fetch_request.__globals__
    assert (made["MemoryRecords"], made["PartitionRecords"]) == (CheckedRecords, BatchRecords)


def test_intact_batches_pass_whatever_takes_their_checksums(implementation: str) -> None:
    for log in (PLAIN, ABORTED, GAPS, CODECS, MAGIC_0, MAGIC_1, MIXED):
        assert ours(log, 0, READ_COMMITTED) == upstream(log, 0, READ_COMMITTED)


def test_every_wrong_bit_of_every_batch_is_found_and_its_batch_named(implementation: str) -> None:
    for base, begin, end in batches(MIXED)[:-1]:
        for bit in range((begin + 17) * 8, end * 8):
            with pytest.raises(errors.CorruptRecordException, match=f"wrong checksum at offset {base}$"):
                ours(Log(flipped(MIXED.raw, bit), []), 40, READ_COMMITTED)


@pytest.mark.parametrize("log", [MAGIC_0, MAGIC_1])
def test_every_wrong_bit_of_an_older_format_is_found(log: Log) -> None:
    for base, begin, end in batches(log):
        for bit in range((begin + 12) * 8, end * 8):
            # Lengths in them are read before their checksum is; `BatchResult` makes one error of all.
            with pytest.raises((errors.CorruptRecordException, SystemError)):
                ours(Log(flipped(log.raw, bit), []), 0, READ_COMMITTED)
        with pytest.raises(errors.CorruptRecordException, match=f"wrong checksum at offset {base}$"):
            ours(Log(flipped(log.raw, end * 8 - 1), []), 0, READ_COMMITTED)


def test_what_comes_before_a_broken_batch_can_be_taken(implementation: str) -> None:
    whole = ours(MIXED, 40, READ_COMMITTED)[0]
    for base, _, end in batches(MIXED)[:-1]:
        broken = CheckedRecords(flipped(MIXED.raw, end * 8 - 1))
        source = BatchRecords(TP, broken, [], 40, None, None, True, READ_COMMITTED)
        taken: list[Any] = []
        with pytest.raises(errors.CorruptRecordException, match=f"offset {base}$"):
            taken.extend(plain(record) for _ in range(99) for record in source.take(1)[0])
        assert taken == [record for record in whole if record[0] < base]
        assert source.next_fetch_offset == base


@pytest.mark.parametrize("log", [CODECS, MAGIC_1, MIXED])
def test_a_response_may_end_anywhere(log: Log) -> None:
    for end in range(len(log.raw)):
        cut = Log(log.raw[:end], [])
        assert ours(cut, 0, READ_COMMITTED) == upstream(cut, 0, READ_COMMITTED)


@settings(max_examples=examples(300), deadline=None)
@given(
    st.one_of(logs(), st.sampled_from([MAGIC_0, MAGIC_1, MIXED])),
    st.lists(st.integers(0, 1 << 20), max_size=3),
    st.integers(0, 1 << 20),
)
def test_it_judges_every_batch_as_upstream_does(log: Log, bits: list[int], end: int) -> None:
    raw = log.raw
    for bit in bits:
        raw = flipped(raw, bit % (len(raw) * 8)) if raw else raw
    raw = raw[: len(raw) - end % 100]
    records, same = CheckedRecords(raw), MemoryRecords(raw)
    assert records.size_in_bytes() == same.size_in_bytes()
    while same.has_next():
        assert records.has_next()
        try:
            batch = same.next_batch()
        except (errors.CorruptRecordException, SystemError) as error:
            with pytest.raises(type(error)):
                records.next_batch()
            return
        assert records.is_intact(records.next_batch()) is batch.validate_crc()
    assert not records.has_next()


def test_without_the_checksum_test_it_is_not_looked_at() -> None:
    broken = bytearray(data(0, 2))
    broken[17] ^= 1
    source = BatchRecords(TP, CheckedRecords(bytes(broken)), [], 0, None, None, False, READ_COMMITTED)
    assert len(source.take(None)[0]) == 2
