"""`run-steps top`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Annotated, Final

import typer

from processor.cli.options import end_with
from processor.cli.terminal import plain
from processor.cli.worker_http import DEFAULT_ADDRESS, ask, url_of
from processor.printable_console import Console

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table

    from processor.telemetry.worker_view import Rates, WorkerView

_TIMEOUT_S: Final = 3.0


def top(
    addresses: Annotated[
        list[str] | None,
        typer.Argument(metavar="ADDRESS", help=f"Workers, by their HTTP address. Default: {DEFAULT_ADDRESS}."),
    ] = None,
    every: Annotated[float, typer.Option("--every", min=0.5, max=86_400, help="Seconds between two updates.")] = 2.0,
    once: Annotated[
        bool, typer.Option("--once", help="Read twice for rates, print once and exit: 1 if a worker is not healthy.")
    ] = False,
) -> None:
    """Watch workers: partitions, lag, rates, open steps, and the reasons of /healthz."""
    from rich.live import Live

    urls = [url_of(address) for address in addresses or [DEFAULT_ADDRESS]]
    console = Console()
    with ThreadPoolExecutor(max_workers=len(urls)) as pool:
        before = list(pool.map(_look, urls))
        if once:
            time.sleep(every)
            now = list(pool.map(_look, urls))
            console.print(_screen(before, now))
            if any(worker.unreachable or worker.reasons for worker in now):
                end_with(1)
            return
        with Live(_screen(before, before), console=console, screen=console.is_terminal, auto_refresh=False) as live:
            while True:
                time.sleep(every)
                now = list(pool.map(_look, urls))
                live.update(_screen(before, now), refresh=True)
                before = now


def _look(url: str) -> WorkerView:
    from processor.telemetry.worker_view import WorkerView, view

    try:
        _, exposition = _get(f"{url}/metrics")
        status, health = _get(f"{url}/healthz")
        return view(url, time.monotonic(), exposition, () if status == 200 else health.splitlines())
    except (OSError, ValueError, KeyError) as error:
        return WorkerView(
            url, time.monotonic(), unreachable=str(getattr(error, "reason", error)) or type(error).__name__
        )


def _get(url: str) -> tuple[int, str]:
    status, body = ask(url, _TIMEOUT_S)
    if status not in (200, 503):
        raise OSError(f"status {status} for {url}")
    return status, body.decode("utf-8", "replace")


def _screen(before: Sequence[WorkerView], now: Sequence[WorkerView]) -> Group:
    from rich.console import Group

    from processor.telemetry.worker_view import rates

    grown = [rates(earlier, worker) for earlier, worker in zip(before, now, strict=True)]
    parts: list[Table | str] = [_workers(now, grown), "", _partitions(now, grown)]
    complaints = [
        f"{plain(worker.address)}: {plain(reason)}"
        for worker in now
        for reason in (*worker.reasons, *filter(None, [worker.unreachable]))
    ]
    if complaints:
        parts += ["", "[bold]not well[/bold]", *complaints]
    return Group(*parts)


def _workers(now: Sequence[WorkerView], grown: Sequence[Rates]) -> Table:
    table = _table("worker", "state", "steps/s", "rejected/s", "restarts", "version")
    for worker, rate in zip(now, grown, strict=True):
        address = plain(worker.address.partition("://")[2])
        if worker.unreachable:
            table.add_row(address, "[red]unreachable[/red]")
            continue
        state = ", ".join(sorted(set(worker.states))) or "-"
        table.add_row(
            address,
            f"[{'red' if worker.reasons else 'green'}]{plain(state)}[/]",
            _number(rate.published),
            _number(rate.rejected),
            _number(worker.restarts),
            plain(worker.version),
        )
    return table


def _partitions(now: Sequence[WorkerView], grown: Sequence[Rates]) -> Table:
    table = _table("partition", "worker", "lag", "lag s", "records/s", "open", "oldest s", "committed")
    partitions = ((p.number, place, p) for place, worker in enumerate(now) for p in worker.partitions.values())
    owned = sorted(partitions, key=lambda one: one[:2])
    for number, place, partition in owned:
        restoring = partition.restored is not None and partition.restored < 1
        table.add_row(
            str(number),
            str(place + 1),
            f"[yellow]restoring {partition.restored:.0%}[/yellow]"
            if restoring
            else f"[yellow]paused[/yellow] {_number(partition.lag_records)}"
            if partition.paused
            else _number(partition.lag_records),
            _number(partition.lag_s),
            _number(grown[place].applied.get(number)),
            _number(partition.open_steps),
            _number(partition.oldest_s),
            _number(partition.committed),
        )
    return table


def _table(*columns: str) -> Table:
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in columns:
        words = column in {"worker", "state", "version"}
        table.add_column(column, justify="left" if words else "right", overflow="fold")
    return table


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:,.1f}" if value != round(value) else f"{value:,.0f}"
