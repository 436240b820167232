"""Lives of a worker, scripted: which end is followed by another life, after what pause, and which by the last word."""

from __future__ import annotations

import asyncio
import io
import multiprocessing
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from processor.audit.selfaudit.selfaudit import SelfAudit
from processor.config.settings import Delivery, Kafka, Settings, Supervisor
from processor.errors import BrokerRefused, BrokerUnavailable, Fenced, RunStepsError
from processor.kafka.errors import OffsetLost
from processor.serve import broker_availability, processes, supervisor
from processor.serve.broker_availability import BrokerAvailability
from processor.serve.circuit_breaker import Tripped
from processor.serve.processes import _Child, _watch_children, _worst_exit
from processor.serve.supervisor import _CurrentWorker, _supervise
from processor.serve.topic_watch import TopicWatch
from processor.telemetry.happenings import BreakerTripped, ChildEnded, Happening, StateChanged, WorkerRestarted
from processor.telemetry.kafka_happenings import BrokerBack, BrokerLost
from processor.telemetry.telemetry import Telemetry

AWAY = BrokerUnavailable("broker b:1: nothing listens there", hint="start it")
FENCED = Fenced("group: moved on")

End = BaseException | Callable[[asyncio.Event], Any] | None


class Scene:
    """The lives to come, and what was told of them. A life is an error, something to await, or an orderly end."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.lives: list[End] = []
        self.starts: list[BaseException | None] = []
        self.asked: list[BaseException | None] = []
        self.begun = 0
        self.told: list[Happening] = []
        self.telemetry = Telemetry(stream=io.StringIO(), format="json", heard=self.told.append)
        self.stop = asyncio.Event()
        self.settings = Settings(
            kafka=Kafka(unavailable_after_s=60),
            delivery=Delivery(commit_timeout_s=0.2),
            supervisor=Supervisor(max_restarts=3, backoff_initial_s=0.001, backoff_max_s=0.004),
        )
        scene = self

        class Scripted:
            def __init__(self, *_: object, **__: object) -> None:
                scene.begun += 1

            async def run(self, stop: asyncio.Event) -> None:
                end = scene.lives.pop(0) if scene.lives else None
                if isinstance(end, BaseException):
                    raise end
                if end is not None:
                    await end(stop)

        async def check(*_: object, **__: object) -> dict[str, int]:
            if scene.starts and (error := scene.starts.pop(0)) is not None:
                raise error
            return {}

        async def begin(_: object, checking: Callable[[], Awaitable[dict[str, int]]]) -> dict[str, int]:
            return await checking()

        async def ask(*_: object) -> None:
            if scene.asked and (error := scene.asked.pop(0) if len(scene.asked) > 1 else scene.asked[0]) is not None:
                raise error

        monkeypatch.setattr(supervisor, "Worker", Scripted)
        monkeypatch.setattr(supervisor, "check_or_create_topics", check)
        monkeypatch.setattr(TopicWatch, "begin", begin)
        monkeypatch.setattr(TopicWatch, "look", ask)
        monkeypatch.setattr(supervisor, "_PROBE_EVERY_S", 0.02)
        monkeypatch.setattr(broker_availability, "_LEAST_S", 0.05)

    def gives_up_soon(self) -> None:
        """For what reaches the limit: where a machine stands still for so long, the others would reach it, too."""
        self.settings = self.settings.model_copy(update={"kafka": Kafka(unavailable_after_s=0.3)})

    async def play(self) -> None:
        async with asyncio.timeout(60):
            await _supervise(self.settings, self.telemetry, _CurrentWorker(), self.stop, create_topics=False)

    def heard(self, kind: type[Any]) -> list[Any]:
        return [happening for happening in self.told if isinstance(happening, kind)]


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    scene = Scene(monkeypatch)
    yield scene
    scene.telemetry.close()


async def test_an_orderly_end_is_the_end(scene: Scene) -> None:
    await scene.play()
    assert scene.begun == 1
    assert scene.heard(WorkerRestarted) == []


async def test_a_fenced_life_is_followed_by_another(scene: Scene) -> None:
    scene.lives = [FENCED, FENCED]
    await scene.play()
    assert scene.begun == 3
    assert [h.backoff_s for h in scene.heard(WorkerRestarted)] == [0.001, 0.002]
    assert StateChanged("restarting") in scene.told


async def test_the_pause_grows_to_its_limit(scene: Scene) -> None:
    scene.settings = scene.settings.model_copy(
        update={"supervisor": Supervisor(max_restarts=9, backoff_initial_s=0.001, backoff_max_s=0.004)}
    )
    scene.lives = [FENCED] * 5
    await scene.play()
    assert [h.backoff_s for h in scene.heard(WorkerRestarted)] == [0.001, 0.002, 0.004, 0.004, 0.004]


async def test_too_many_fenced_lives_end_with_75(scene: Scene) -> None:
    scene.lives = [FENCED] * 9
    with pytest.raises(Fenced, match="4 restarts within 600 s; last: group: moved on") as caught:
        await scene.play()
    assert caught.value.exit_code == 75
    assert scene.begun == 4


async def test_restarts_are_forgotten_with_time(scene: Scene) -> None:
    scene.settings = scene.settings.model_copy(
        update={
            "supervisor": Supervisor(max_restarts=1, restart_window_s=0.05, backoff_initial_s=0.06, backoff_max_s=0.06)
        }
    )
    scene.lives = [FENCED] * 4
    await scene.play()
    assert scene.begun == 5


async def test_a_bug_is_survived_so_often_and_its_words_are_not_repeated(scene: Scene) -> None:
    """An exception of nobody's class may quote a record."""
    scene.lives = [KeyError("the user's own words")] * 9
    with pytest.raises(RunStepsError, match="4 restarts within 600 s; last: KeyError") as caught:
        await scene.play()
    assert caught.value.exit_code == 70
    assert "own words" not in str(caught.value)


@pytest.mark.parametrize(
    "error",
    [
        BrokerRefused("no"),
        OffsetLost("gone", partition=1, offset=2),
        Tripped("too much", hint="look", rejected=3, of_records=4, run_length=3),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_what_no_restart_mends_ends_at_once(scene: Scene, error: RunStepsError) -> None:
    scene.lives = [error]
    with pytest.raises(type(error)) as caught:
        await scene.play()
    assert caught.value is error
    assert scene.begun == 1


async def test_the_breaker_is_told_with_its_numbers(scene: Scene) -> None:
    tripped = Tripped(
        "too much",
        hint="look",
        rejected=3,
        of_records=4,
        run_length=2,
        topic="in",
        partition=5,
        offsets=(7, 9),
        reason="not_json",
    )
    scene.lives = [tripped]
    with pytest.raises(Tripped):
        await scene.play()
    assert scene.heard(BreakerTripped) == [BreakerTripped(3, 4, 2, "in", 5, 7, 9, "not_json")]


async def test_a_broker_away_is_waited_for_and_does_not_count_as_restarts(scene: Scene) -> None:
    scene.starts = [AWAY] * 10
    await scene.play()
    assert scene.begun == 1
    assert len(scene.heard(BrokerLost)) == 10
    assert len(scene.heard(BrokerBack)) == 1


async def test_a_broker_away_for_too_long_ends_with_75_saying_which_and_since_when(scene: Scene) -> None:
    scene.gives_up_soon()
    scene.starts = [AWAY] * 10_000
    began = time.monotonic()
    with pytest.raises(BrokerUnavailable) as caught:
        await scene.play()
    assert time.monotonic() - began >= 0.3
    assert caught.value.exit_code == 75
    said = str(caught.value)
    assert "127.0.0.1:9092: not usable since 2" in said
    assert "nothing listens there" in said
    assert "start it" in said
    assert "unavailable_after_s = 0.3" in said


async def test_a_broker_that_answers_and_is_of_no_use_is_away_too(scene: Scene) -> None:
    """Topics can be asked for, yet every life fails soon: a coordinator or a partition without a leader."""
    scene.gives_up_soon()
    scene.lives = [AWAY] * 10_000
    with pytest.raises(BrokerUnavailable, match="not usable since"):
        await scene.play()


class Clock:
    """What the supervisor reads in place of the machine's clock."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        for module in (supervisor, broker_availability):
            monkeypatch.setattr(module, "time", self)

    def monotonic(self) -> float:
        return self.now


async def test_a_life_that_lasted_begins_the_time_anew(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)

    async def fails(_: asyncio.Event) -> None:
        clock.now += 0.01
        raise AWAY

    async def lasts(_: asyncio.Event) -> None:
        await asyncio.sleep(0)  # the probe notes when this life began
        clock.now += 0.45  # longer than two commits may take
        scene.asked = [None, None]
        while len(scene.asked) > 1:  # noqa: ASYNC110 - until the probe has asked
            await asyncio.sleep(0.005)
        raise AWAY

    scene.gives_up_soon()

    scene.lives = [fails, lasts, AWAY, AWAY]
    await scene.play()
    assert scene.begun == 5


async def test_silence_in_a_life_that_does_not_notice_ends_it(scene: Scene) -> None:
    async def idle(stop: asyncio.Event) -> None:
        await stop.wait()

    scene.gives_up_soon()
    scene.lives = [idle]
    scene.asked = [AWAY]
    with pytest.raises(BrokerUnavailable, match="not usable since"):
        await scene.play()
    assert scene.begun == 1


async def test_silence_that_passes_is_survived_by_the_same_life(scene: Scene) -> None:
    async def idle(stop: asyncio.Event) -> None:
        while not scene.heard(BrokerBack):  # noqa: ASYNC110 - telemetry has no event for it
            await asyncio.sleep(0.005)

    scene.lives = [idle]
    scene.asked = [None, AWAY, AWAY, None]
    await scene.play()
    assert scene.begun == 1
    assert len(scene.heard(BrokerLost)) == 2


async def test_a_drain_that_fails_is_not_an_orderly_end(scene: Scene) -> None:
    async def ends_badly(stop: asyncio.Event) -> None:
        scene.stop.set()
        raise AWAY

    scene.lives = [ends_badly]
    with pytest.raises(BrokerUnavailable):
        await scene.play()
    assert scene.begun == 1


async def test_stop_ends_a_pause(scene: Scene) -> None:
    scene.settings = scene.settings.model_copy(
        update={"supervisor": Supervisor(backoff_initial_s=60, backoff_max_s=60), "kafka": Kafka()}
    )
    scene.lives = [FENCED]

    async def stop_once_it_pauses() -> None:
        while not scene.heard(WorkerRestarted):  # noqa: ASYNC110 - telemetry has no event to wait for
            await asyncio.sleep(0)
        scene.stop.set()

    stopping = asyncio.create_task(stop_once_it_pauses())
    await scene.play()
    await stopping
    assert scene.begun == 1


async def test_stop_ends_a_start_that_hangs(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    async def hang(*_: object, **__: object) -> dict[str, int]:
        await asyncio.Event().wait()
        return {}

    monkeypatch.setattr(supervisor, "check_or_create_topics", hang)
    scene.settings = scene.settings.model_copy(update={"kafka": Kafka()})
    asyncio.get_running_loop().call_later(0.05, scene.stop.set)
    await scene.play()
    assert scene.begun == 0


async def test_a_start_that_hangs_is_bounded(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    async def hang(*_: object, **__: object) -> dict[str, int]:
        await asyncio.Event().wait()
        return {}

    monkeypatch.setattr(supervisor, "check_or_create_topics", hang)
    scene.gives_up_soon()
    with pytest.raises(BrokerUnavailable, match="no answer within"):
        await scene.play()


def test_the_time_runs_from_when_the_broker_was_last_heard(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    contact = BrokerAvailability(scene.settings, scene.telemetry)
    clock.now += 20
    contact.answered(clock.now)
    assert contact.left_s() == 60
    clock.now += 10
    contact.failed(AWAY)
    (lost,) = scene.heard(BrokerLost)
    assert lost.silent_s == 10
    assert contact.left_s() == 50


def test_a_broker_that_is_away_is_a_reason_that_leaves_the_worker_healthy(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For 95 s of an outage /healthz of a worker at its end named nothing."""
    clock = Clock(monkeypatch)
    contact = BrokerAvailability(scene.settings, scene.telemetry)
    current = _CurrentWorker(availability=contact)
    assert current.healthz().reasons == []
    clock.now += 10
    contact.failed(AWAY)
    clock.now += 10
    health = current.healthz()
    assert (health.ok, health.reasons) == (
        True,
        ["broker 127.0.0.1:9092: not usable for 20 s; at 60 s (kafka.unavailable_after_s) the process ends with 75"],
    )
    contact.answered(clock.now)
    assert current.healthz().reasons == []


def test_a_mismatch_is_a_reason_that_leaves_the_worker_healthy_and_outlives_it() -> None:
    class Found(SelfAudit):
        def __init__(self) -> None: ...

        def reasons(self) -> list[str]:
            return ["self-audit: look"]

    health = _CurrentWorker(audit=Found()).healthz()
    assert (health.ok, health.reasons) == (True, ["self-audit: look"])


def test_a_task_that_never_ends_does_not_keep_the_process() -> None:
    program = """
import asyncio, sys
from processor.serve import process_exit
from processor.errors import Fenced
process_exit._EXIT_S = 0.5

async def stubborn():
    while True:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            pass

async def main():
    kept = asyncio.create_task(stubborn())
    await asyncio.sleep(0)
    raise Fenced("the last word")

process_exit.run_to_exit(main())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 75
    assert "the last word" in done.stderr
    assert "ended by force" in done.stderr


@pytest.mark.parametrize(("codes", "status"), [([0, None], 0), ([0, 65, -9], 65), ([0, -9], 70), ([-15, 65], 70)])
def test_a_process_that_a_signal_ended_gives_an_exit_status_of_the_contract(
    codes: list[int | None], status: int
) -> None:
    assert _worst_exit(codes) == status


class Ended:
    """A worker process that is over."""

    def __init__(self, code: int) -> None:
        self.exitcode = code

    def is_alive(self) -> bool:
        return False


@pytest.mark.parametrize(
    ("code", "again"),
    [(64, False), (65, False), (70, True), (71, True), (74, False), (75, False), (77, False), (78, False), (-9, True)],
)
async def test_which_end_of_a_worker_process_is_followed_by_another(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, code: int, again: bool
) -> None:
    ours, theirs = multiprocessing.Pipe()

    def child(ended_with: int) -> Any:
        return _Child("0", Ended(ended_with), ours)  # type: ignore[arg-type]

    spawned: list[int] = []

    def spawn(_: Settings, number: int) -> Any:
        spawned.append(number)
        return child(78)

    monkeypatch.setattr(processes, "_spawn", spawn)
    ended = await _watch_children(scene.settings, scene.telemetry, [child(code)], scene.stop)
    assert spawned == ([0] if again else [])
    assert ended == (78 if again else code)
    assert scene.heard(ChildEnded)[0] == ChildEnded("0", code, again)
    for end in (ours, theirs):
        end.close()
