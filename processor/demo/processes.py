"""Workers of the demo: real processes, queried only over their HTTP endpoints."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from processor.errors import RunStepsError

_PAGE_S: Final = 2.0
_PUBLISHED: Final = re.compile(rb"^runstep_steps_published_total\{[^}]*\} ([0-9.e+]+)$", re.MULTILINE)


def environment(bootstrap: str) -> dict[str, str]:
    """Settings for the workers, and nothing of the user's own settings: the demo must not touch another broker."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("RUN_STEPS_")}
    return own | {
        "RUN_STEPS_KAFKA__BOOTSTRAP_SERVERS": bootstrap,
        # The shortest that brokers take by default: a killed worker is missed after this.
        "RUN_STEPS_SOURCE__SESSION_TIMEOUT_MS": "6000",
        "RUN_STEPS_SOURCE__HEARTBEAT_INTERVAL_MS": "1000",
        # A worker left over by a killed demo must not look for its broker for long.
        "RUN_STEPS_KAFKA__UNAVAILABLE_AFTER_S": "20",
        # All records are dated yesterday: to the clock on the wall every open step is overdue.
        "RUN_STEPS_STEPS__IDLE_GRACE_S": "86400",
        "RUN_STEPS_HTTP__PORT": "0",
        "RUN_STEPS_LOG__FORMAT": "json",
    }


class WorkerProcess:
    """One `run-steps serve`, in a process group of its own: a terminal's Ctrl-C goes to the demo, which stops it."""

    def __init__(self, name: str, env: Mapping[str, str], log_path: Path) -> None:
        self.name = name
        self.log_path = log_path
        self._url = ""
        with log_path.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "processor", "serve"],
                env=dict(env),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    @property
    def url(self) -> str:
        """Base URL of its endpoints; empty until it is logged."""
        if not self._url:
            self._url = next((str(line["url"]) for line in self.happened("listening")), "")
        return self._url

    def happened(self, event: str) -> list[dict[str, Any]]:
        """The lines of its log about one kind of happening."""
        found = []
        for line in self.log_path.read_bytes().splitlines():
            with contextlib.suppress(ValueError):  # the last line may be half written
                row = json.loads(line)
                if row.get("event") == event:
                    found.append(row)
        return found

    async def owns(self) -> frozenset[int] | None:
        """The partitions it has restored and works on; None while it is not ready."""
        body = await self._page("/readyz")
        if not body:
            return None
        said = json.loads(body)
        return frozenset(said["assigned"]) if said["ok"] else None

    async def published(self) -> int:
        """Steps it has published, as its metrics say."""
        return sum(int(float(count)) for count in _PUBLISHED.findall(await self._page("/metrics")))

    def check(self) -> None:
        """Raises `RunStepsError` if it has ended, with the end of its log."""
        code = self._process.poll()
        if code is not None:
            raise RunStepsError(
                f"demo: worker {self.name}: it ended by itself (exit {code}); its log ends:\n{self.tail()}"
            )

    def tail(self, lines: int = 8) -> str:
        return "\n".join(self.log_path.read_text(errors="replace").splitlines()[-lines:])

    def kill(self) -> None:
        """SIGKILL: no drain, no LeaveGroup, perhaps an open transaction."""
        self._process.kill()
        self._process.wait()

    def ask_to_stop(self) -> None:
        if self.is_alive:
            self._process.send_signal(signal.SIGTERM)

    async def _page(self, path: str) -> bytes:
        return await asyncio.to_thread(_get, self.url + path) if self.url else b""

    def join(self, timeout_s: float) -> int:
        """Its exit code; it is killed when it takes longer."""
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()
            return self._process.returncode


def stop_all(workers: Sequence[WorkerProcess], timeout_s: float) -> None:
    for worker in workers:
        worker.ask_to_stop()
    for worker in workers:
        worker.join(timeout_s)


def _get(url: str) -> bytes:
    """The page, whatever its status; empty if there is no answer."""
    try:
        with _direct.open(url, timeout=_PAGE_S) as answer:
            body: bytes = answer.read()
            return body
    except urllib.error.HTTPError as error:
        with error:
            return error.read()
    except OSError:
        return b""


_direct: Final = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # loopback needs no proxy
