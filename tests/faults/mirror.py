"""A second cluster, filled by the real MirrorMaker 2: as docs/second-cluster.md says, with its mistakes, and killed.

Its settings are read from that page, so what is tried is what is written there. The source holds committed and aborted
transactions: MirrorMaker 2 copies no markers, so offsets do not mean the same records on the two clusters.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from confluent_kafka import KafkaException, Producer

from processor.broker import node as embedded
from processor.broker import parts, probe
from processor.core.headers import FIRST_OFFSET, LAST_OFFSET, SOURCE_OFFSET
from processor.simulate import Parameters, Produced, Simulation
from processor.simulate.expected import compare
from tests import kafka_tools as kt
from tests.faults.audit_check import prove
from tests.faults.cluster import Cluster
from tests.faults.lab import Tally
from tests.faults.proxy import HOST
from tests.faults.service import ended
from tests.faults.worker_fleet import Ends, Fleet, Offsets, Topics, eventually
from tests.kafka_tools import Got, Names, Sent

VERSION: Final = "4.3.1"
PAGE: Final = Path(__file__).parents[2] / "docs" / "second-cluster.md"
REFUSED: Final = 65
_PARTITIONS: Final = 4
_RECORDS: Final = 3000
_PER_TRANSACTION: Final = 50
_START_S: Final = 120.0
"""For MirrorMaker 2 to start its workers, its connectors and their tasks on a busy machine."""

_ONE_BROKER: Final[Mapping[str, str]] = {
    **{
        f"{what}.replication.factor": "1"
        for what in (
            "checkpoints.topic",
            "config.storage",
            "heartbeats.topic",
            "offset-syncs.topic",
            "offset.storage",
            "status.storage",
        )
    },
    "replication.factor": "1",
    "offset.storage.partitions": "1",
    "status.storage.partitions": "1",
}
"""What clusters of one broker need, and fewer partitions of its own topics."""

_MISTAKE: Final[Mapping[str, str]] = {
    "first->second.sync.group.offsets.enabled": "true",
    "first->second.emit.checkpoints.enabled": "true",
    "first->second.sync.group.offsets.interval.seconds": "1",
    "first->second.emit.checkpoints.interval.seconds": "1",
}
"""The group's offsets mirrored with their metadata."""

_OF_THE_LOG: Final = frozenset({FIRST_OFFSET, LAST_OFFSET, SOURCE_OFFSET})
"""The evidence that names offsets: the only headers that may differ between two clusters."""


def settings_of_the_page(block: str) -> dict[str, str]:
    """The properties that docs/second-cluster.md shows under this comment."""
    block = PAGE.read_text().partition(f"```properties\n# {block}\n")[2].partition("```")[0]
    rows = [line.partition("=") for line in block.splitlines() if line.strip() and not line.startswith("#")]
    assert rows, f"{PAGE}: no properties"
    return {name.strip(): value.strip() for name, _, value in rows}


class MirrorMaker:
    """The dedicated MirrorMaker 2 process between two clusters. Leaving the block ends it.

    Args:
        home: for its settings and its log; made anew.
        topics: those that it mirrors.
        changes: over the settings of the page.
        block: which settings of the page: those from `first` to `second`, or those back.
    """

    def __init__(
        self,
        home: Path,
        first: Cluster,
        second: Cluster,
        topics: list[str],
        changes: Mapping[str, str] | None = None,
        *,
        block: str = "mm2.properties",
    ) -> None:
        home.mkdir(parents=True)
        self.log_path = home / "mirror-maker.log"
        shown = settings_of_the_page(block)
        told = {
            **shown,
            "first.bootstrap.servers": first.bootstrap,
            "second.bootstrap.servers": second.bootstrap,
            **{name: ",".join(topics) for name in shown if name.endswith(".topics")},
            **_ONE_BROKER,
            **(changes or {}),
        }
        path = home / "mm2.properties"
        path.write_text("".join(f"{name} = {value}\n" for name, value in told.items()))
        java = parts.find_java().command
        options = ("-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData")
        logs = "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"
        main = "org.apache.kafka.connect.mirror.MirrorMaker"
        with self.log_path.open("wb") as log:
            self._process = subprocess.Popen(
                [str(java), *options, logs, "-cp", os.pathsep.join(map(str, _jars())), main, str(path)],
                cwd=home,
                env=embedded._environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._watchdog = embedded._watch(self._process.pid, None)

    def until(self, what: str, is_so: Callable[[], Any], within_s: float = _START_S) -> None:
        """Wait for something that the mirror does."""

        def so() -> Any:
            assert self._process.poll() is None, f"MirrorMaker 2 ended with {self._process.returncode}: {self.tail()}"
            with contextlib.suppress(KafkaException, AssertionError):  # a topic that is not there yet
                return is_so()
            return False

        try:
            eventually(what, so, within_s, every_s=0.25)
        except AssertionError as error:
            error.add_note(self.tail())
            raise

    def tail(self) -> str:
        return self.log_path.read_text(errors="replace")[-3000:]

    def kill(self) -> None:
        """SIGKILL: what it has copied and not flushed to its own topics is forgotten."""
        self._process.kill()
        self._process.wait(10)

    def close(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(10)
        watchdog, self._watchdog = self._watchdog, None
        if watchdog is not None:
            watchdog.communicate(b"done\n")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _jars() -> list[Path]:
    text = Path(__file__).with_name("mirror.txt").read_text()
    wanted = sorted(map(parts._jar, parts._entries(text)), key=lambda jar: jar.file_name)
    cache = parts.cache_dir() / f"mirror-maker-{VERSION}"
    return parts.obtain_jars(cache, source=parts.repository(), wanted=wanted)


# --- the two ways --------------------------------------------------------------------------------------------------


def both(home: Path, tally: Tally, seconds: float) -> None:
    """As the page says, its two mistakes, and a mirror that is killed: each once, whatever the time that is given."""
    tally.home = str(home)
    _jars()
    with Cluster(home / "first") as first, Cluster(home / "second") as second:
        as_the_page_says(first, second, home / "page", tally)
        with_the_group(first, second, home / "group", tally)
        without_isolation(first, second, home / "aborted", tally)
        killed(first, second, home / "killed", tally)


def as_the_page_says(first: Cluster, second: Cluster, home: Path, tally: Tally) -> None:
    """The source alone is mirrored: a worker there publishes each step once, as the one here did; replay proves it."""
    names = _names(tally)
    here = Topics.create(first.bootstrap, names, _PARTITIONS)
    there = Topics.create(second.bootstrap, names, _PARTITIONS, mirrored=[here.source])
    simulation, records = _load(here, tally)
    published_here = _work(here, home / "first", simulation, tally)
    with MirrorMaker(home / "mirror", first, second, [here.source]) as mirror:
        mirror.until("the source is mirrored", lambda: _ends(there) == dict(Counter(r.partition for r in records)))
        tally.notes.append(f"the source ends at {_ends(here)} on the first cluster, at {_ends(there)} on the second")
        _see(tally, _ends(here) != _ends(there), "the offsets are the same: the scenario is void")
        _see(tally, _contents(here, here.source) == _contents(there, there.source), "the mirrored source differs")
        _see(tally, not kt.committed(second.bootstrap, there.group, there.source), "the group was mirrored")
        published_there = _work(there, home / "second", simulation, tally)
    for what in ("published", "set aside"):
        same = published_here[what] == published_there[what]
        _see(tally, same, f"what was {what} differs between the clusters in more than offsets")
    tally.rounds += 1
    tally.records += len(records)


def with_the_group(first: Cluster, second: Cluster, home: Path, tally: Tally) -> None:
    """The group's offsets are mirrored, and the outcome topics, which is allowed: a worker there ends with 65."""
    names = _names(tally)
    here = Topics.create(first.bootstrap, names, _PARTITIONS)
    there = Topics.create(second.bootstrap, names, _PARTITIONS, mirrored=[here.source, *here.outcomes])
    simulation, records = _load(here, tally)
    _work(here, home / "first", simulation, tally)
    planted = next(iter(here.outcomes))
    _abort(here.bootstrap, planted, 0)
    kt.produce(here.bootstrap, planted, [Sent(b"{}", b"after what was aborted", partition=0)])
    right = kt.committed(first.bootstrap, here.group, here.source)
    with MirrorMaker(home / "mirror", first, second, [here.source, *here.outcomes], _MISTAKE) as mirror:
        for topic in here.outcomes:
            wanted = _contents(here, topic)
            mirror.until(f"{topic} is mirrored", partial(_has, there, topic, len(wanted)))
            _see(tally, _contents(there, topic) == wanted, f"{topic}: the mirrored records differ, or are more")
        mirror.until(
            "the group's offsets are mirrored",
            lambda: len(kt.committed(second.bootstrap, there.group, there.source)) == _PARTITIONS,
        )
    copied = kt.committed(second.bootstrap, there.group, there.source)
    told = {partition: (right[partition][0], offset) for partition, (offset, _) in copied.items()}
    tally.notes.append(f"committed on the first cluster, and what the mirror made of it: {told}")
    texts = [{p: text for p, (_, text) in found.items()} for found in (right, copied)]
    is_verbatim = texts[0] == texts[1] and all(texts[0].values())
    _see(tally, is_verbatim, "the metadata is not the first cluster's, word for word")
    before = {topic: len(_contents(there, topic)) for topic in there.outcomes}
    (home / "second").mkdir()
    with Fleet(there, home / "second") as fleet:
        (process,) = fleet.start()
        code = process.ended(90)
        said = process.log_path.read_text(errors="replace")
    names_both = f"is of another cluster ({first.cluster_id}; this one is {second.cluster_id})"
    _see(tally, code == REFUSED, f"the worker ended with {code}, not with {REFUSED}")
    _see(tally, names_both in said, f"the worker does not name both clusters: {process.tail()[-400:]}")
    _see(tally, "docs/second-cluster.md" in said, "the worker does not name the page")
    _see(tally, before == {topic: len(_contents(there, topic)) for topic in there.outcomes}, "something was published")
    _see(tally, not kt.read_topic(there.bootstrap, there.dead_letter), "something was set aside")
    _see(tally, copied == kt.committed(second.bootstrap, there.group, there.source), "the worker committed offsets")
    tally.rounds += 1
    tally.faults += 1
    tally.records += len(records)


def without_isolation(first: Cluster, second: Cluster, home: Path, tally: Tally) -> None:
    """The page's isolation level left at its default: what was aborted arrives as good records, and the lab sees it.

    Records of aborted transactions that come to a processor are published by it: no worker can tell them from others.
    """
    names = _names(tally)
    here = Topics.create(first.bootstrap, names, _PARTITIONS)
    there = Topics.create(second.bootstrap, names, _PARTITIONS, mirrored=[here.source])
    _, records = _load(here, tally)
    default = {"first.consumer.isolation.level": "read_uncommitted"}
    wanted = dict(Counter(r.partition for r in records))
    with MirrorMaker(home / "mirror", first, second, [here.source], default) as mirror:
        mirror.until("the source is mirrored", lambda: all(_ends(there)[p] >= end for p, end in wanted.items()))
        mirror.until("what was aborted is mirrored", lambda: sum(_ends(there).values()) == len(records) + _PARTITIONS)
        strangers = len(_contents(there, there.source)) - len(_contents(here, here.source))
    _see(tally, strangers == _PARTITIONS, f"{strangers} aborted records arrived, not {_PARTITIONS}")
    tally.notes.append(f"without consumer.isolation.level {strangers} aborted records arrive as good ones")
    tally.rounds += 1
    tally.faults += 1
    tally.records += len(records)


def killed(first: Cluster, second: Cluster, home: Path, tally: Tally) -> None:
    """With the page's settings for exactly once a mirror that is killed, twice, copies each record once."""
    names = _names(tally)
    here = Topics.create(first.bootstrap, names, _PARTITIONS)
    there = Topics.create(second.bootstrap, names, _PARTITIONS, mirrored=[here.source])
    _, records = _load(here, tally)
    wanted = _contents(here, here.source)
    once = settings_of_the_page("mm2-exactly-once.properties")
    for life in ("one", "two", "three"):
        once["listeners"] = f"http://{HOST}:{next(probe.free_ports())}"
        with MirrorMaker(home / life, first, second, [here.source], once) as mirror:
            mirror.until("the source is mirrored", partial(_has, there, here.source, len(wanted)))
            if life != "three":
                mirror.kill()
                tally.faults += 1
            else:  # what is copied again comes before what is new
                _abort(here.bootstrap, here.source, 0)
                kt.produce(
                    here.bootstrap, here.source, [Sent(b"{}", b"the last", partition=p) for p in range(_PARTITIONS)]
                )
                mirror.until(
                    "what came since is mirrored", partial(_has, there, here.source, len(wanted) + _PARTITIONS)
                )
    as_here = _contents(there, here.source) == _contents(here, here.source)
    _see(tally, as_here, "the source that a killed mirror copied differs")
    tally.rounds += 1
    tally.records += len(records)


def _see(tally: Tally, is_so: bool, otherwise: str) -> None:
    if not is_so:
        tally.problems.append(otherwise)


def _names(tally: Tally) -> Names:
    prefix = f"{tally.scenario}-{tally.seed}-{uuid.uuid4().hex[:6]}"
    return Names(prefix, f"{prefix}.group")


# --- what goes in and comes out ------------------------------------------------------------------------------------


def _load(topics: Topics, tally: Tally) -> tuple[Simulation, list[Produced]]:
    """Write a simulated log in transactions, after one per partition that is aborted."""
    simulation = Simulation(
        Parameters(
            records=_RECORDS,
            seed=tally.seed,
            partitions=_PARTITIONS,
            open_runs=20,
            deltas=6,
            hung=0.1,
            interrupted=0.2,
            responses=0.4,
        )
    )
    records = list(simulation)
    for partition in range(_PARTITIONS):
        own = [record for record in records if record.partition == partition]
        _abort(topics.bootstrap, topics.source, partition, own[0].timestamp)
        producer = _producer(topics.bootstrap)
        for some in _parts(own):
            producer.begin_transaction()
            for r in some:
                producer.produce(
                    topics.source, r.value, r.key, partition=partition, headers=list(r.headers), timestamp=r.timestamp
                )
            producer.commit_transaction(30)
    return simulation, records


def _parts(records: list[Produced]) -> Iterator[list[Produced]]:
    for at in range(0, len(records), _PER_TRANSACTION):
        yield records[at : at + _PER_TRANSACTION]


def _abort(bootstrap: str, topic: str, partition: int, timestamp: int = 0) -> None:
    """Write the end of a step, and abort it: no `read_committed` reader may see it."""
    producer = _producer(bootstrap)
    producer.begin_transaction()
    producer.produce(
        topic, ended(f"step_aborted_{partition}"), b"run_aborted", partition=partition, timestamp=timestamp
    )
    assert producer.flush(30) == 0
    producer.abort_transaction(30)


def _producer(bootstrap: str) -> Producer:
    producer = Producer({"bootstrap.servers": bootstrap, "transactional.id": uuid.uuid4().hex, "log_level": 2})
    producer.init_transactions(30)
    return producer


def _work(topics: Topics, home: Path, simulation: Simulation, tally: Tally) -> Mapping[str, Counter[Any]]:
    """Run a worker to the end of the log, see what came out, prove it by replay; returns it without offsets."""
    home.mkdir(parents=True)
    with Fleet(topics, home) as fleet, Offsets(topics) as offsets:
        fleet.start()
        fleet.await_ready()
        offsets.await_at(_ends(topics), 90)
        fleet.stop()  # asserts exit 0
        published = [got for topic in topics.outcomes for got in kt.read_topic(topics.bootstrap, topic)]
        letters = kt.read_topic(topics.bootstrap, topics.dead_letter)
        tally.count(compare(simulation.expected, published, letters, dict(topics.outcomes)))
        prove(fleet, home)
    return {
        "published": Counter(map(_without_offsets, published)),
        "set aside": Counter(map(_without_offsets, letters)),
    }


def _without_offsets(got: Got) -> Any:
    headers = tuple((name, value) for name, value in got.headers if name not in _OF_THE_LOG)
    return got.topic, got.partition, got.key, got.value, headers


def _contents(topics: Topics, topic: str) -> list[Got]:
    """What `read_committed` readers see of a topic, in order, whatever the offsets."""
    return [replace(got, offset=0) for got in kt.read_topic(topics.bootstrap, topic)]


def _has(topics: Topics, topic: str, count: int) -> bool:
    return len(_contents(topics, topic)) >= count


def _ends(topics: Topics) -> dict[int, int]:
    return Ends(topics.bootstrap).high_watermarks(topics.source, range(topics.partitions))
