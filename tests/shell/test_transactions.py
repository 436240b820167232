"""Transactions against a scripted cluster: any request may be lost, late or repeated, and every unit is there once."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processor.errors import BrokerRefused, Fenced, RunStepsError
from processor.kafka import transactions
from processor.kafka.consumer import Committed, GroupToken
from processor.kafka.errors import RecordTooLarge
from processor.kafka.transactions import Transactions
from tests.shell.scripted_cluster import TOKEN, Cluster, Fate, ScriptedBatch, ScriptedLink

UNITS = 4
OUT = "out"


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transactions, "_FIRST_PAUSE_S", 0)


def on(link: ScriptedLink) -> Transactions:
    return Transactions(link, where="transactional id me", group_id="group", source_topic="in")


def batches_of(unit: int) -> list[ScriptedBatch]:
    """Two partitions of the output, and a second batch on one of them."""
    places = ((0, "a"), (1, "b"), (0, "c"))
    return [ScriptedBatch(OUT, partition, f"{unit}{name}") for partition, name in places]


async def one(
    writer: Transactions, unit: int, *, token: GroupToken = TOKEN, require: Callable[[], None] = lambda: None
) -> RunStepsError | None:
    return await writer.commit(lambda: batches_of(unit), {0: Committed(unit + 1, f"unit {unit}")}, token, require)


def in_turn(*fates: Fate) -> Callable[[], Fate]:
    """These fates for the first requests; all later ones are answered."""
    waiting = iter(fates)
    return lambda: next(waiting, Fate.ANSWERED)


async def served(cluster: Cluster, new_link: Callable[[], ScriptedLink]) -> None:
    """Commit all units as a worker does: after an error a new writer goes on from the committed offset."""
    for incarnation in range(40):
        writer = on(new_link())
        try:
            await writer.start()
            at = cluster.offsets.get(0, Committed(0, "")).offset
            assert await writer.commit(list, {0: Committed(at, f"claim {incarnation}")}, TOKEN, lambda: None) is None
            for unit in range(at, UNITS):
                assert await one(writer, unit) is None
                assert cluster.offsets[0] == Committed(unit + 1, f"unit {unit}"), "it said that this is committed"
                assert f"{unit}a" in cluster.visible
            return
        except RunStepsError:
            continue
    raise AssertionError("no end")


def check(cluster: Cluster) -> None:
    expected = Counter(batch.name for unit in range(UNITS) for batch in batches_of(unit))
    assert Counter(cluster.visible) == expected
    assert cluster.offsets[0].offset == UNITS
    assert cluster.went_back == []


@pytest.mark.parametrize("v2", [True, False], ids=["v2", "classic"])
async def test_without_faults_no_request_is_repeated(v2: bool) -> None:
    cluster = Cluster(v2)
    link = ScriptedLink(cluster, in_turn())
    writer = on(link)
    await writer.start()
    assert await one(writer, 0) is None
    assert await one(writer, 1) is None
    assert cluster.visible == ["0a", "0b", "0c", "1a", "1b", "1c"]
    assert cluster.offsets == {0: Committed(2, "unit 1")}
    one_unit = ["Produce", "Produce", "TxnOffsetCommit", "Produce", "EndTxn(commit)"]
    if not v2:
        one_unit = [
            "AddPartitionsToTxn", "Produce", "Produce", "AddOffsetsToTxn", "Produce", "TxnOffsetCommit",
            "EndTxn(commit)",
        ]  # fmt: skip
    assert Counter(link.sent) == Counter(["InitProducerId", *one_unit, *one_unit])
    assert writer.recovered == 0


@given(data=st.data(), v2=st.booleans(), aborts=st.booleans())
def test_any_request_may_be_lost_or_late(data: st.DataObject, v2: bool, aborts: bool) -> None:
    """Each unit is published once and with its offset, whatever is lost, and whenever late copies arrive."""
    cluster = Cluster(v2, aborts_when_raised=aborts)
    faults = data.draw(st.integers(0, 10), label="faults")
    late: list[Callable[[], object]] = []

    def fate() -> Fate:
        nonlocal faults
        if faults and data.draw(st.integers(0, 2), label="fault?") == 0:
            faults -= 1
            return data.draw(st.sampled_from([f for f in Fate if f is not Fate.ANSWERED]))
        return Fate.ANSWERED

    def arrivals(waiting: int) -> int:
        return data.draw(st.integers(0, waiting), label="arrivals") if waiting else 0

    def turns() -> int:
        return data.draw(st.integers(0, 2), label="turns") if faults else 0

    async def scenario() -> None:
        await served(cluster, lambda: ScriptedLink(cluster, fate, arrivals, turns, late))
        for request in late:
            request()

    asyncio.run(scenario())
    check(cluster)


@pytest.mark.parametrize("v2", [True, False], ids=["v2", "classic"])
@pytest.mark.parametrize("fate", [Fate.ANSWER_LOST, Fate.LATE, Fate.LOST, Fate.NOT_SENT, Fate.BUSY])
@pytest.mark.parametrize("nth", range(9))
@pytest.mark.parametrize("gap", [0, 1, 3, 5])
def test_one_fault_at_every_request(v2: bool, fate: Fate, nth: int, gap: int) -> None:
    """A late copy arrives some requests after its own, between transactions or inside the next."""
    cluster = Cluster(v2)
    late: list[Callable[[], object]] = []
    counted = iter(range(1000))
    since = iter(range(1000))

    def fates() -> Fate:
        return fate if next(counted) == nth else Fate.ANSWERED

    def arrivals(waiting: int) -> int:
        return waiting if waiting and next(since) >= gap else 0

    asyncio.run(served(cluster, lambda: ScriptedLink(cluster, fates, arrivals, late=late)))
    for request in late:
        request()
    check(cluster)


async def test_a_lost_end_of_version_2_is_said_again_and_nothing_is_begun_anew() -> None:
    cluster = Cluster(v2=True)
    link = ScriptedLink(cluster, in_turn(*[Fate.ANSWERED] * 5, Fate.ANSWER_LOST, Fate.LOST))
    writer = on(link)
    await writer.start()
    assert await one(writer, 0) is None
    assert link.sent[-3:] == ["EndTxn(commit)"] * 3
    assert (writer.recovered, cluster.epoch) == (0, 1)


@pytest.mark.parametrize(("fate", "anew"), [(Fate.ANSWER_LOST, 0), (Fate.LATE, 1)], ids=["committed", "not committed"])
async def test_before_version_2_a_lost_end_is_settled_in_a_new_epoch(fate: Fate, anew: int) -> None:
    """The offsets that are read back say whether it was committed; the unit is written anew only if it was not."""
    cluster = Cluster(v2=False)
    link = ScriptedLink(cluster, in_turn(*[Fate.ANSWERED] * 7, fate))
    writer = on(link)
    await writer.start()
    assert await one(writer, 0) is None
    assert link.sent[7:10] == ["EndTxn(commit)", "EndTxn(abort)", "InitProducerId"]
    assert (writer.recovered, cluster.epoch) == (anew, 1)
    for request in link.late:
        request()
    assert await one(writer, 1) is None
    assert Counter(cluster.visible) == Counter(["0a", "0b", "0c", "1a", "1b", "1c"])


@pytest.mark.parametrize("v2", [True, False], ids=["v2", "classic"])
async def test_a_member_that_the_group_does_not_know_is_aborted_and_the_writer_lives_on(v2: bool) -> None:
    cluster = Cluster(v2)
    writer = on(ScriptedLink(cluster, in_turn()))
    await writer.start()
    assert isinstance(await one(writer, 0, token=TOKEN._replace(generation=0)), Fenced)
    assert (cluster.visible, cluster.offsets, cluster.open) == ([], {}, False)

    def moved_on() -> None:
        raise Fenced("the group has moved on")

    assert isinstance(await one(writer, 0, require=moved_on), Fenced)
    assert (cluster.visible, cluster.offsets, cluster.open) == ([], {}, False)
    assert await one(writer, 0) is None
    assert cluster.visible == ["0a", "0b", "0c"]


@pytest.mark.parametrize("v2", [True, False], ids=["v2", "classic"])
@pytest.mark.parametrize(("code", "ours"), [(10, RecordTooLarge), (87, BrokerRefused)])
async def test_a_record_that_is_refused_is_aborted_and_the_writer_lives_on(
    v2: bool, code: int, ours: type[RunStepsError], monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = Cluster(v2)
    writer = on(ScriptedLink(cluster, in_turn()))
    await writer.start()
    append = cluster._append
    monkeypatch.setattr(cluster, "_append", lambda place, batch: code if place == (OUT, 1) else append(place, batch))
    refused = await one(writer, 0)
    assert type(refused) is ours
    assert OUT in str(refused)
    assert (cluster.visible, cluster.offsets, cluster.open) == ([], {}, False)
    monkeypatch.undo()
    assert await one(writer, 0) is None
    assert sorted(cluster.visible) == ["0a", "0b", "0c"]


async def test_an_offset_that_a_late_request_moved_ends_the_writer() -> None:
    """Up to Kafka 3.9 a raised epoch does not keep a late TxnOffsetCommit out: what is read back must be what was."""
    cluster = Cluster(v2=False)
    link = ScriptedLink(cluster, in_turn(*[Fate.ANSWERED] * 14, Fate.LOST))
    writer = on(link)
    await writer.start()
    assert await one(writer, 0) is None
    stable = link.stable_offsets

    async def moved(*_: object) -> dict[int, Committed] | None:
        await stable([0], 1.0)
        return {0: Committed(0, "of long ago")}

    link.stable_offsets = moved  # type: ignore[assignment]
    with pytest.raises(RunStepsError, match="not what was committed last"):
        await one(writer, 1)


@pytest.mark.parametrize("repeat", ["EndTxn", "TxnOffsetCommit"])
def test_the_cluster_shows_what_a_repeat_in_the_same_epoch_does(repeat: str) -> None:
    """A control: said again in its epoch, as clients do, a late copy commits the next transaction in its middle."""
    cluster = Cluster(v2=False)
    _, me = cluster.init_producer(transactions.NO_IDENTITY)

    def steps(unit: int) -> Iterator[None]:
        place = (OUT, 0)
        cluster.add_partitions(me, [place])
        yield
        cluster.produce({place: f"{me.epoch}|{unit}|{unit}".encode()})
        yield
        cluster.add_group(me)
        cluster.commit_offsets(me, TOKEN, {0: Committed(unit + 1, "")})
        yield

    for _ in steps(0):
        pass
    cluster.end(me, commit=True)
    following = steps(1)
    next(following), next(following)
    if repeat == "EndTxn":
        cluster.end(me, commit=True)
        assert (cluster.visible, cluster.offsets[0].offset) == (["0", "1"], 1), "its record without its offset"
    else:
        next(following)
        cluster.commit_offsets(me, TOKEN, {0: Committed(1, "")})
        cluster.end(me, commit=True)
        assert (cluster.visible, cluster.offsets[0].offset) == (["0", "1"], 1), "the offset did not move"
