"""Finding of a check: severity (green, yellow, red), what was found, and the remedy."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import NamedTuple


class Light(StrEnum):
    """Severity. Green: in order. Yellow: works now, but not always, or could not be checked. Red: does not work."""

    GREEN = "green"
    YELLOW = "yellow"
    RED = "red"


class Finding(NamedTuple):
    """Finding of one check. `subject`: which topic, group, broker. Yellow and red ones have a remedy."""

    area: str
    light: Light
    subject: str
    what: str
    remedy: str = ""


def worst(findings: Iterable[Finding]) -> Light:
    lights = {finding.light for finding in findings}
    return next((light for light in (Light.RED, Light.YELLOW) if light in lights), Light.GREEN)
