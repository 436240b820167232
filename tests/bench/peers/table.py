"""What the figures say: one line per contestant, and in words where a peer is ahead of us."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Final, NamedTuple

from tests.bench.measure import Run, figure
from tests.bench.peers.trial import Trial


class Column(NamedTuple):
    """A figure by which runs are compared. `better`: 1 if more is better, -1 if less is."""

    name: str
    unit: str
    of: Callable[[Run], float]
    better: int


COLUMNS: Final = (
    Column("per CPU-second", "events/CPU-s", lambda run: run.per_cpu_s, 1),
    Column("by the clock", "events/s", lambda run: run.per_s, 1),
    Column("broker CPU", "us/event", lambda run: run.broker_us, -1),
    Column("peak memory", "MiB", lambda run: run.rss_bytes / 2**20, -1),
)
PER_CPU_S: Final = COLUMNS[0]


class Entry(NamedTuple):
    """All rounds of one contestant."""

    name: str
    exactly_once: bool
    trials: Sequence[Trial]

    @property
    def promise(self) -> str:
        return "exactly once" if self.exactly_once else "at least once"

    @property
    def runs(self) -> list[Run]:
        """What it took, round by round; nothing if a round was not finished."""
        runs = [trial.run for trial in self.trials if trial.run is not None]
        return runs if len(runs) == len(self.trials) else []

    @property
    def is_correct(self) -> bool:
        return all(
            not trial.problem and trial.verdict.is_correct(exactly_once=self.exactly_once) for trial in self.trials
        )

    @property
    def told(self) -> str:
        """`yes`, or what was wrong in the first round that was."""
        for trial in self.trials:
            if trial.problem:
                return f"NO: {trial.problem} ({trial.verdict})"
            if not trial.verdict.is_correct(exactly_once=self.exactly_once):
                return f"NO: {trial.verdict}"
        doubled = max(trial.verdict.doubled for trial in self.trials)
        return f"yes, {doubled} doubled" if doubled else "yes"


def table(ceilings: Mapping[str, Sequence[Run]], ours: Sequence[Entry], peers: Sequence[Entry]) -> str:
    """Medians. The ratio is to ours of the same promise, in events per CPU-second; a ceiling's to ours exactly once."""
    head = [f"{column.name}, {column.unit}" for column in COLUMNS]
    lines = [
        f"| | promise | {' | '.join(head)} | x ours | correct |",
        f"|---|---|{'---:|' * (len(head) + 1)}---|",
    ]
    for name, runs in ceilings.items():
        cells = [figure(median(map(c.of, runs))) for c in COLUMNS]
        lines.append(f"| {name} | | {' | '.join(cells)} | {_ratio(runs, ours[0].runs)} | |")
    for entry in (*ours, *peers):
        cells = [figure(median(map(c.of, entry.runs))) if entry.runs else "" for c in COLUMNS]
        ratio = _ratio(entry.runs, counterpart(entry, ours).runs)
        lines.append(f"| {entry.name} | {entry.promise} | {' | '.join(cells)} | {ratio} | {entry.told} |")
    return "\n".join(lines)


def counterpart(entry: Entry, ours: Sequence[Entry]) -> Entry:
    """Ours with the same promise."""
    return next(our for our in ours if our.exactly_once == entry.exactly_once)


def _ratio(runs: Sequence[Run], ours: Sequence[Run]) -> str:
    return f"{median(ratios(PER_CPU_S, runs, ours)):.2f}" if runs and ours else ""


def ratios(column: Column, runs: Sequence[Run], ours: Sequence[Run]) -> list[float]:
    """Theirs to ours, round by round."""
    return [column.of(theirs) / column.of(our) for theirs, our in zip(runs, ours, strict=True)]


def ahead(ours: Sequence[Entry], peers: Sequence[Entry]) -> list[str]:
    """A sentence for each column in which a peer is better than ours with the same promise; and who was not correct."""
    told = []
    for peer in peers:
        our = counterpart(peer, ours)
        if not peer.runs or not our.runs:
            continue
        for column in COLUMNS:
            found = ratios(column, peer.runs, our.runs)
            wins = sum(ratio**column.better > 1 for ratio in found)
            if median(found) ** column.better <= 1:
                continue
            theirs, own = (figure(median(map(column.of, entry.runs))) for entry in (peer, our))
            flaw = "" if peer.is_correct else ", but what it published is not correct"
            told.append(
                f"{peer.name} is ahead of run-steps ({peer.promise}) in {column.name}: {theirs} against {own} "
                f"{column.unit} ({median(found):.2f} x, in {wins} of {len(found)} rounds){flaw}."
            )
    compared = [peer.name for peer in peers if peer.runs and counterpart(peer, ours).runs]
    if compared and not told:
        told.append("No peer is ahead of run-steps in any column.")
    wrong = [entry for entry in (*ours, *peers) if not entry.is_correct]
    return [*told, *(f"{entry.name}: not correct: {entry.told.removeprefix('NO: ')}." for entry in wrong)]


def crash_table(entries: Sequence[Entry], events: int) -> str:
    """What each kill fell into, and what came out after all; a line per round."""
    lines = [
        "| | promise | committed at the kills | lost | doubled | foreign | correct |",
        "|---|---|---|---:|---:|---:|---|",
    ]
    for entry in entries:
        for trial in entry.trials:
            at = ", ".join(f"{share:.0%}" for share in (done / events for done in trial.killed_at)) or "not killed"
            verdict, told = trial.verdict, entry._replace(trials=[trial]).told
            counts = f"{verdict.lost} | {verdict.doubled} | {verdict.foreign}"
            lines.append(f"| {entry.name} | {entry.promise} | {at} | {counts} | {told} |")
    return "\n".join(lines)


def crash_words(entries: Sequence[Entry], events: int) -> list[str]:
    """Who kept the promise, who did not; and whose kills proved nothing."""
    told: list[str] = []
    kept: list[str] = []
    for entry in entries:
        if any(trial.killed_at and trial.killed_at[-1] >= events for trial in entry.trials):
            told.append(f"{entry.name}: a kill came after the work was done and proves nothing: kill sooner.")
        if not entry.is_correct:
            told.append(f"{entry.name} did not keep its promise ({entry.promise}): {entry.told.removeprefix('NO: ')}.")
        elif all(any(done < events for done in trial.killed_at) for trial in entry.trials):
            kept.append(entry.name)
    return [*told, f"Kept their promise: {', '.join(kept) or 'none'}."]
