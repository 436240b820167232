"""A paused partition stands still and nothing else does: in the worker's loop, and by whom it may be asked for."""

from __future__ import annotations

from typing import Any

import pytest
from aiohttp.test_utils import make_mocked_request

from processor.serve.http import CONTROL_HEADER, Aggregator, Controlled, OneWorker, Server
from processor.serve.pauses import Pauses
from processor.telemetry.happenings import PartitionPaused, PartitionResumed, PartitionStatus
from tests.shell.test_http import Worker as ShownWorker
from tests.shell.test_http import ask, served
from tests.shell.test_worker import World, living, steps

ALLOWED = {CONTROL_HEADER: "1"}


# --- the loop ---------------------------------------------------------------------------------------------------------


async def test_the_others_go_on_and_nothing_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World({0: steps(10, "a"), 1: steps(10, "b")})
    async with living(world, monkeypatch) as life:
        await life.assign(0, 1)
        await life.applied(3)
        assert life.worker.control(1, "INC-7").status == 200
        await life.member.inside_poll(0)
        await life.applied()
        await life.interval()
        assert {p: c.offset for p, c in world.committed.items()} == {0: 10, 1: 3}, "what was applied is committed"
        assert life.worker.control(1, None) == Controlled(200, "partition 1 is resumed; it was paused: INC-7")
        await life.member.inside_poll(0, 1)
        await life.finished()
        life.assert_equal()


async def test_a_worker_whose_partitions_are_all_paused_commits_what_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World({0: steps(10)})
    async with living(world, monkeypatch) as life:
        await life.assign(0)
        await life.applied(4)
        life.worker.control(0, "INC-7")
        await life.member.inside_poll()
        await life.interval()
        assert world.committed[0].offset == 4
        life.worker.control(0, None)
        await life.member.inside_poll(0)
        await life.finished()
        life.assert_equal()


async def test_a_pause_is_no_stall(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long it lasts; and the time of the pause does not count afterwards."""
    world = World({0: steps(10), 1: steps(10)})
    async with living(world, monkeypatch) as life:
        await life.assign(0, 1)
        await life.applied(3)
        life.worker.control(1, "INC-7")
        await life.member.inside_poll(0)
        await life.applied()
        await life.interval()
        world.told.clear()
        life.clock.now += 100_000
        await life.interval()
        health = life.worker.healthz()
        assert (health.ok, health.reasons) == (True, ["partition 1 is paused: INC-7"])
        status = [h for h in world.told if isinstance(h, PartitionStatus) and h.partition == 1]
        assert status[-1].lag_high_watermark == 7
        assert PartitionPaused(1, "INC-7") in world.told
        life.clock.now += 100_000  # the last look at it is long ago
        life.worker.control(1, None)
        await life.member.inside_poll(0, 1)
        await life.interval()
        await life.finished()
        life.assert_equal()


async def test_a_pause_ends_where_the_partition_goes_to_another(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World({0: steps(10), 1: steps(10)})
    async with living(world, monkeypatch) as life:
        await life.assign(0, 1)
        await life.applied(3)
        life.worker.control(0, "stays")
        life.worker.control(1, "goes")
        await life.worker.revoked([0, 1])
        world.generation += 1
        life.worker.assigned([0])
        life.member.wake()
        await life.member.inside_poll()
        assert life.worker.control(1, None).status == 404
        await life.worker.revoked([0])
        world.generation += 1
        life.worker.assigned([0, 1])
        life.member.wake()
        await life.member.inside_poll(1)
        life.worker.control(0, None)
        await life.member.inside_poll(0, 1)
        await life.finished()
        life.assert_equal()


async def test_another_reason_takes_the_place_of_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World({0: steps(3)})
    async with living(world, monkeypatch) as life:
        await life.assign(0)
        assert life.worker.control(0, None).status == 409
        assert life.worker.control(0, "").status == 400
        assert life.worker.control(0, "\x1b[31mred").status == 400
        life.worker.control(0, "first")
        life.worker.control(0, "second")
        assert PartitionResumed(0, "first") in world.told
        assert life.worker.healthz().reasons == ["partition 0 is paused: second"]


def test_pauses_are_of_partitions() -> None:
    pauses = Pauses()
    pauses.pause(3, "a")
    assert pauses.without((2, 3, 4)) == (2, 4)
    pauses.keep_only([4])
    assert pauses.without((2, 3, 4)) == (2, 3, 4)
    assert not pauses.resume(3)
    for wrong in ("", " a", "a" * 101, "a\nb", "<b>"):
        with pytest.raises(ValueError, match="reason"):
            pauses.pause(3, wrong)


# --- who may ----------------------------------------------------------------------------------------------------------


class Owner(ShownWorker):
    """Owns one partition."""

    def __init__(self, partition: int) -> None:
        super().__init__()
        self.partition = partition
        self.asked: list[tuple[int, str | None]] = []

    def control(self, partition: int, reason: str | None) -> Controlled:
        self.asked.append((partition, reason))
        return Controlled(200, "done") if partition == self.partition else Controlled(404, "not mine")


def server(owner: Owner, *, control: bool = True) -> Server:
    return Server(OneWorker(owner, lambda: b""), "127.0.0.1", 0, control=control)


@pytest.mark.parametrize(
    ("control", "headers", "told"),
    [
        (False, ALLOWED, "control is off"),
        (True, {}, "is missing"),
        (True, ALLOWED | {"X-Forwarded-For": "192.0.2.1"}, "only from this machine"),
        (True, ALLOWED | {"Forwarded": "for=192.0.2.1"}, "only from this machine"),
        (True, ALLOWED | {"Host": "page.example:8080"}, "name it 127.0.0.1 or localhost"),
        (True, ALLOWED | {"Host": "127.0.0.1.page.example"}, "name it 127.0.0.1 or localhost"),
        (True, ALLOWED | {"Host": "[::1"}, "name it 127.0.0.1 or localhost"),
    ],
)
async def test_who_may_not_is_told_why(control: bool, headers: dict[str, str], told: str) -> None:
    owner = Owner(3)
    listening = server(owner, control=control)
    port = await listening.start()
    try:
        answer = await ask(
            f"http://127.0.0.1:{port}/partitions/3/pause", "POST", headers=headers, json={"reason": "INC-7"}
        )
    finally:
        await listening.stop()
    assert answer.status == 403
    assert told in answer.json["error"]
    assert owner.asked == []


@pytest.mark.parametrize(
    ("peer", "may"),
    [
        (("127.0.0.1", 4), True),
        (("127.8.8.8", 4), True),
        (("::1", 4, 0, 0), True),
        (("::ffff:127.0.0.1", 4, 0, 0), True),
        (("192.0.2.1", 4), False),
        (("::ffff:192.0.2.1", 4, 0, 0), False),
        (("2001:db8::1", 4, 0, 0), False),
        (None, False),
    ],
)
def test_only_this_machine_may(peer: Any, may: bool) -> None:
    class Transport:
        def get_extra_info(self, _: str, default: Any = None) -> Any:
            return peer

    request = make_mocked_request("POST", "/partitions/3/pause", headers=ALLOWED, transport=Transport())
    assert (server(Owner(3))._refusal(request) is None) is may


@pytest.mark.parametrize("host", ["127.0.0.1:8080", "localhost", "LOCALHOST:1", "[::1]:8080", "127.8.8.8"])
def test_this_machine_has_several_names(host: str) -> None:
    class Transport:
        def get_extra_info(self, _: str, default: Any = None) -> Any:
            return ("127.0.0.1", 4)

    headers = ALLOWED | {"Host": host}
    request = make_mocked_request("POST", "/partitions/3/pause", headers=headers, transport=Transport())
    assert server(Owner(3))._refusal(request) is None


async def test_a_request_is_a_reason_or_none() -> None:
    owner = Owner(3)
    listening = server(owner)
    url = f"http://127.0.0.1:{await listening.start()}/partitions"
    try:
        for body in (b"", b"{", b"[]", b"{}", b'{"reason": 7}', b"null", b"\xff", b"[" * 1000):
            assert (await ask(f"{url}/3/pause", "POST", headers=ALLOWED, data=body)).status == 400
        zipped = ALLOWED | {"Content-Encoding": "gzip"}
        assert (await ask(f"{url}/3/pause", "POST", headers=zipped, data=b"{}")).status == 400
        assert owner.asked == []
        assert (await ask(f"{url}/3/pause", "POST", headers=ALLOWED, json={"reason": "INC-7"})).json == {"told": "done"}
        assert (await ask(f"{url}/3/resume", "POST", headers=ALLOWED)).status == 200
        assert (await ask(f"{url}/4/resume", "POST", headers=ALLOWED)).json == {"error": "not mine"}
        assert (await ask(f"{url}/x/resume", "POST", headers=ALLOWED)).status == 404
        assert (await ask(f"{url}/3/pause")).status == 405
    finally:
        await listening.stop()
    assert owner.asked == [(3, "INC-7"), (3, None), (4, None)]


async def test_the_one_port_of_several_workers_finds_the_owner() -> None:
    owners = [Owner(0), Owner(1)]
    listening = [server(owner) for owner in owners]
    urls = {str(n): f"http://127.0.0.1:{await one.start()}" for n, one in enumerate(listening)}
    try:
        async with served(Aggregator(lambda: urls)) as front:
            off = await ask(f"{front}/partitions/1/pause", "POST", headers=ALLOWED, json={"reason": "INC-7"})
            assert off.status == 403
        site = Aggregator(lambda: urls)
        assert await site.control(1, "INC-7") == Controlled(200, "done")
        assert owners[1].asked == [(1, "INC-7")]
        assert (await site.control(7, None)) == Controlled(404, "not mine")
        urls["2"] = ""
        assert (await site.control(7, None)).status == 503, "the third may own it"
    finally:
        for one in listening:
            await one.stop()
