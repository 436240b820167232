"""`make bench-peers`: our worker beside other stream processors, in turn, on one topic of one broker."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from processor.broker import Broker
from tests import kafka_tools
from tests.bench import loops, worker
from tests.bench.load import Expected
from tests.bench.measure import PURE, Book, Build, Run, compiled
from tests.bench.peers import table
from tests.bench.peers.environments import BUILD, ROOT, Unavailable, versions
from tests.bench.peers.jobs import JOBS
from tests.bench.peers.roster import PEERS, Peer, chosen
from tests.bench.peers.table import COLUMNS, PER_CPU_S, Entry
from tests.bench.peers.trial import Contestant, Trial, attempt
from tests.compiled_wheel import missing

PARTITIONS: Final = 8
OURS: Final = {"run-steps-eo": True, "run-steps-alo": False}
CEILINGS: Final = {"upstream": "upstream getmany, doing nothing", "fast": "our fast loop, doing nothing"}

_SESSION_MS: Final = 6_000
"""In crash tests, where it can be set: how long the group waits for the killed member. The shortest a broker allows."""

Enter = Callable[[], Contestant]


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201


# --- who runs ------------------------------------------------------------------------------------------------------


def _our_life(name: str, broker: Broker, source: str, events: int, is_killed: bool, build: Build) -> Contestant:
    settings = {"RUN_STEPS_DELIVERY__MODE": "exactly_once" if OURS[name] else "at_least_once"}
    if is_killed:
        settings["RUN_STEPS_SOURCE__SESSION_TIMEOUT_MS"] = str(_SESSION_MS)
        settings["RUN_STEPS_SOURCE__HEARTBEAT_INTERVAL_MS"] = str(_SESSION_MS // 6)
    group = f"{name}-{uuid.uuid4().hex[:8]}"
    life = worker.Life(broker, source, group, PARTITIONS, settings, build)
    return Contestant(name, OURS[name], group, life.topics, partial(life.start, events))


def _peer_life(peer: Peer, command: list[str], broker: Broker, source: str, is_killed: bool, job: str) -> Contestant:
    group = f"{peer.name}-{uuid.uuid4().hex[:8]}"
    topics = worker.make_outputs(broker, group, PARTITIONS)
    directory = _state(group)
    directory.mkdir(parents=True)
    env = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "BENCH_BOOTSTRAP": broker.bootstrap,
        "BENCH_SOURCE": source,
        "BENCH_JOB": job,
        "BENCH_GROUP": group,
        "BENCH_PARTITIONS": str(PARTITIONS),
        "BENCH_DIRECTORY": str(directory),
        "BENCH_EXACTLY_ONCE": str(int(peer.exactly_once)),
        **({"BENCH_SESSION_MS": str(_SESSION_MS)} if is_killed else {}),
        **peer.env,
    }

    def start() -> subprocess.Popen[str]:
        with (BUILD / f"{peer.name}.log").open("a", encoding="utf-8") as log:
            return subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=log, text=True)

    return Contestant(peer.name, peer.exactly_once, group, topics, start)


def _state(group: str) -> Path:
    return BUILD / "state" / group


def _forget(broker: Broker, who: Contestant) -> None:
    """Its topics and its files: the next to come finds the broker and the disk as this one did."""
    client = kafka_tools.admin(broker.bootstrap)
    own = [topic for topic in client.list_topics(timeout=kafka_tools.DEADLINE_S).topics if who.group in topic]
    for deleted in client.delete_topics(own).values():
        deleted.result(kafka_tools.DEADLINE_S)
    shutil.rmtree(_state(who.group), ignore_errors=True)


def _commands(peers: Sequence[Peer]) -> tuple[dict[str, list[str]], dict[str, str]]:
    """How each peer is started; and who is left out, and why. An environment that several share is tried once."""
    commands: dict[str, list[str]] = {}
    left_out: dict[str, str] = {}
    failed: dict[str, str] = {}
    for peer in peers:
        try:
            if (why := failed.get(peer.environment.name)) is not None:
                raise Unavailable(why)
            commands[peer.name] = peer.environment.command(peer.program, _say)
        except Unavailable as exc:
            failed[peer.environment.name] = left_out[peer.name] = str(exc)
            _say(f"left out: {peer.name}: {exc}")
    return commands, left_out


# --- the rounds ----------------------------------------------------------------------------------------------------


def _rounds(
    broker: Broker,
    source: str,
    expected: Expected,
    enters: dict[str, Enter],
    *,
    rounds: int,
    kills: Sequence[float],
    patience_s: float,
) -> tuple[dict[str, list[Run]], dict[str, Entry]]:
    """Everybody in turn, `rounds` times; the ceilings too, unless it is about kills."""
    ceilings: dict[str, list[Run]] = {}
    trials: dict[str, list[Trial]] = {}
    promise: dict[str, bool] = {}
    for number in range(rounds):
        for which, name in CEILINGS.items() if not kills else ():
            run = loops.measured(which, broker, source, f"{source}.{which}.{number}", expected.events)
            ceilings.setdefault(name, []).append(run)
        for name, enter in enters.items():
            who = enter()
            trial = attempt(who, broker, source, expected, kills=kills, patience_s=patience_s)
            _forget(broker, who)
            trials.setdefault(name, []).append(trial)
            promise[name] = who.exactly_once
            told = f"{trial.run.per_cpu_s:,.0f} events/CPU-s, " if trial.run else ""
            _say(f"round {number + 1}: {name}: {told}{trial.problem or 'done'}; {trial.verdict}")
    return ceilings, {name: Entry(name, promise[name], taken) for name, taken in trials.items()}


def _note_figures(book: Book, ceilings: dict[str, list[Run]], ours: list[Entry], peers: list[Entry]) -> None:
    for name, runs in ceilings.items():
        book.note(name, [run.per_cpu_s for run in runs], PER_CPU_S.unit)
    for entry in (*ours, *peers):
        our = table.counterpart(entry, ours)
        for column in COLUMNS if entry.runs else ():
            against = (our.name, [column.of(run) for run in our.runs]) if our.runs else None
            book.note(f"{entry.name}: {column.name}", list(map(column.of, entry.runs)), column.unit, against=against)
        book.note(f"{entry.name}: correct", [float(entry.is_correct)], "1 = yes")


def _note_crashes(book: Book, entries: list[Entry]) -> None:
    for entry in entries:
        book.note(f"{entry.name}: lost", [float(t.verdict.lost) for t in entry.trials], "steps")
        book.note(f"{entry.name}: doubled", [float(t.verdict.doubled) for t in entry.trials], "steps")
        book.note(f"{entry.name}: correct", [float(entry.is_correct)], "1 = yes")


def _asked() -> tuple[argparse.Namespace, list[Peer]]:
    """The options, and the peers that they name; what cannot be done ends the process."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.peers", description=__doc__)
    names = ", ".join(peer.name for peer in PEERS)
    parser.add_argument("--peers", default="all", help=f"all, none, or (beginnings of) names with commas: {names}")
    parser.add_argument("--job", choices=JOBS, default="calls", help="what is on the topic (default %(default)s)")
    parser.add_argument("--events", type=int, default=1_000_000, help="on the topic (default %(default)s)")
    parser.add_argument("--rounds", type=int, help="interleaved rounds (default 3; with --kills: 1)")
    parser.add_argument(
        "--kills",
        type=lambda text: [float(word) for word in text.split(",")],
        default=[],
        metavar="SECONDS,...",
        help="crash test: kill -9 so long after the first record, start again, once for each; no figures then",
    )
    parser.add_argument("--patience", type=float, default=900.0, help="seconds one run may take (default %(default)s)")
    parser.add_argument(
        "--pure", action="store_true", help="ours with the core as Python, as where there is no compiler"
    )
    asked = parser.parse_args()
    asked.rounds = asked.rounds or (1 if asked.kills else 3)
    try:
        peers = chosen(asked.peers)
    except ValueError as exc:
        parser.error(str(exc))
    if not Path("/proc/self/task").exists():
        parser.error("needs Linux: processes are watched through /proc")
    return asked, peers


def main() -> int:
    asked, peers = _asked()
    kills: list[float] = asked.kills
    rounds: int = asked.rounds
    commands, left_out = _commands(peers)
    build = PURE if asked.pure or missing() else compiled(Path("build", "bench", "native").absolute())
    libraries = {peer.environment.name: ", ".join(versions(peer.environment.name)) for peer in peers}
    book = Book(
        {
            "job": asked.job,
            "rounds": rounds,
            "events": asked.events,
            "kills": kills,
            "peers": libraries,
            "left out": left_out,
        }
    )
    book.notes.append(f"ours: the core {'as Python' if build is PURE else 'compiled, as in the image'}")
    with Broker.start(light=False, heap_mb=1024, progress=_say) as broker:
        source = f"bench.{uuid.uuid4().hex[:8]}"
        expected = JOBS[asked.job](broker, source, asked.events, PARTITIONS)
        size = expected.bytes / expected.events
        book.notes.append(
            f"topic: {expected.events} events of {size:.0f} B, {len(expected.lines)} steps, {PARTITIONS} partitions"
        )
        enters: dict[str, Enter] = {
            name: partial(_our_life, name, broker, source, expected.events, bool(kills), build) for name in OURS
        }
        for peer in peers:
            if peer.name in commands:
                enters[peer.name] = partial(
                    _peer_life, peer, commands[peer.name], broker, source, bool(kills), asked.job
                )
        ceilings, entries = _rounds(
            broker, source, expected, enters, rounds=rounds, kills=kills, patience_s=asked.patience
        )
    ours = [entries[name] for name in OURS]
    others = [entry for name, entry in entries.items() if name not in OURS]
    if kills:
        shown = table.crash_table([*ours, *others], expected.events)
        told = table.crash_words([*ours, *others], expected.events)
        _note_crashes(book, [*ours, *others])
    else:
        shown, told = table.table(ceilings, ours, others), table.ahead(ours, others)
        _note_figures(book, ceilings, ours, others)
    told += [f"Left out: {name}: {why}" for name, why in left_out.items()]
    job = "" if asked.job == "calls" else f"-{asked.job}"
    name = f"bench-peers{job}-kills" if kills else f"bench-peers{job}"
    book.write(Path("build", f"{name}.json"))
    page = "\n".join([shown, "", *(f"- {line}" for line in told), "", book.under(), ""])
    Path("build", f"{name}.md").write_text(page, encoding="utf-8")
    _say(f"\n{page}\nwritten: build/{name}.md, build/{name}.json")
    return 0 if all(entry.is_correct for entry in ours) else 1


if __name__ == "__main__":
    sys.exit(main())
