"""Time that the brokers have been unavailable, and when to give up."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from typing import Final, TypeVar

from processor.config.settings import Settings
from processor.errors import BrokerUnavailable
from processor.telemetry.kafka_happenings import BrokerBack, BrokerLost
from processor.telemetry.telemetry import Telemetry

_Answer = TypeVar("_Answer")
_LEAST_S: Final = 1.0  # for one attempt, however little of the time is left


class BrokerGaveUp(BrokerUnavailable):
    """The broker was not usable for `unavailable_after_s`: the worker is not restarted."""


class BrokerAvailability:
    """Time since the broker was last usable, over all incarnations: `unavailable_after_s` runs once.

    An answer does not make it usable: with a partition or a coordinator without a leader, incarnations begin and
    fail. So the time runs on until an incarnation outlives the outage, or lasts longer than a commit that fails.
    """

    def __init__(self, settings: Settings, telemetry: Telemetry) -> None:
        self._bootstrap = settings.kafka.bootstrap_servers
        self._limit_s = settings.kafka.unavailable_after_s
        self._sound_s = 2 * settings.delivery.commit_timeout_s
        self._telemetry = telemetry
        self._good_at = time.monotonic()
        self._since: float | None = None
        self._silent = False

    def left_s(self) -> float:
        since = self._good_at if self._since is None else self._since
        return max(0.0, since + self._limit_s - time.monotonic())

    def reasons(self) -> list[str]:
        """A sentence for /healthz while the broker does not answer. A restart would not bring it back."""
        if not self._silent or self._since is None:
            return []
        away_s = time.monotonic() - self._since
        return [
            f"broker {self._bootstrap}: not usable for {away_s:.0f} s; at {self._limit_s:g} s "
            "(kafka.unavailable_after_s) the process ends with 75"
        ]

    def answered(self, incarnation_began: float) -> None:
        """Note that the broker answered a request, in the incarnation that began then."""
        now = time.monotonic()
        if self._silent and self._since is not None:
            self._telemetry.happened(BrokerBack(self._bootstrap, now - self._since))
        self._silent = False
        if self._since is None or self._since >= incarnation_began or now - incarnation_began >= self._sound_s:
            self._since, self._good_at = None, now

    def failed(self, error: BrokerUnavailable) -> None:
        """Note a failure. Raises `BrokerUnavailable`, with the time of the last success, once the limit is reached."""
        now = time.monotonic()
        self._silent = True
        if self._since is None:
            self._since = self._good_at
        silent_s = now - self._since
        self._telemetry.happened(BrokerLost(self._bootstrap, silent_s, error))
        if silent_s >= self._limit_s:
            since = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(time.time() - silent_s))
            raise BrokerGaveUp(
                f"kafka: {self._bootstrap}: not usable since {since} ({silent_s:.0f} s); last: {error.message}",
                hint=f"{error.hint}; the limit is [kafka] unavailable_after_s = {self._limit_s:g}; nothing is lost, "
                "a restart goes on from the log",
            ) from error

    async def bounded(self, asking: Awaitable[_Answer]) -> _Answer:
        """Await with the time that is left as the timeout. Raises `BrokerUnavailable`."""
        left_s = max(_LEAST_S, self.left_s())
        try:
            async with asyncio.timeout(left_s):
                return await asking
        except TimeoutError:
            raise BrokerUnavailable(
                f"broker {self._bootstrap}: no answer within {left_s:.0f} s",
                hint="check the brokers, and what lies between",
            ) from None
