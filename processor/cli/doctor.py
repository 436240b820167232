"""`run-steps doctor`."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from typing import TYPE_CHECKING, Annotated

import typer

from processor.cli.options import ConfigOption, connection_of, end_with, load_settings
from processor.cli.terminal import plain
from processor.printable import print_json
from processor.printable_console import Console

if TYPE_CHECKING:
    from processor.doctor.findings import Finding

_STYLES = {"green": "green", "yellow": "yellow", "red": "bold red"}


def doctor(
    config: ConfigOption = None,
    longest_stop_h: Annotated[
        float, typer.Option(min=0, max=876_000, help="Longest planned stop of all workers, in hours.")
    ] = 24.0,
    everything: Annotated[bool, typer.Option("--all", help="List green findings as well.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check a live cluster for what a worker needs, and name the remedy of each fault. Changes nothing.

    Addresses and credentials, brokers, permissions, topics, group, transactions, keying, clocks. Exit code 0: nothing
    is red; 1: a fault was found.
    """
    settings = load_settings(config)
    from processor.doctor.examination import examine
    from processor.doctor.findings import Light, worst

    connection = connection_of(settings)
    findings = asyncio.run(examine(settings, connection, longest_stop_s=longest_stop_h * 3600))
    light = worst(findings)
    if as_json:
        print_json({"light": light.value, "findings": [finding._asdict() for finding in findings]})
    else:
        _print(findings, everything=everything)
    end_with(1 if light is Light.RED else 0)


def _print(findings: list[Finding], *, everything: bool) -> None:
    """Print the lights; without a terminal, without colours and as wide as needed."""
    console = Console(width=None if sys.stdout.isatty() else 1000, highlight=False, soft_wrap=True)
    for finding in findings:
        light = finding.light.value
        if light == "green" and not everything:
            continue
        head = f"{plain(finding.area)}: {plain(finding.subject)}"
        console.print(f"[{_STYLES[light]}]{light:<6}[/] {head}: {plain(finding.what)}")
        if finding.remedy:
            console.print(f"       remedy: {plain(finding.remedy)}")
    numbers = Counter(finding.light.value for finding in findings)
    console.print(f"{numbers['red']} red, {numbers['yellow']} yellow, {numbers['green']} green")
