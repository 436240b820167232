"""Debian's Chromium, driven over its DevTools protocol: start it, load a page, press keys, take pictures."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from base64 import b64decode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any, Final

import aiohttp

BINARY: Final = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
PATIENCE_S: Final = 120.0

_KEYS: Final = {"Tab": 9, "Enter": 13, " ": 32, "Escape": 27}


class Tab:
    """One page. What the console said and what the page asked for is kept."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._numbers = count(1)
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._loaded = asyncio.Event()
        self.session = ""
        self._worked_before_s = 0.0
        self.complaints: list[str] = []
        self._asked: dict[str, str] = {}

    @property
    def requests(self) -> list[str]:
        """Addresses that the page asked for and the browser did not refuse."""
        return list(self._asked.values())

    async def listen(self) -> None:
        async for message in self._socket:
            told = json.loads(message.data)
            if "id" in told:
                waiting = self._answers.pop(told["id"])
                if not waiting.done():
                    waiting.set_result(told)
                continue
            happening, details = told["method"], told["params"]
            if happening == "Page.loadEventFired":
                self._loaded.set()
            elif happening == "Network.requestWillBeSent":
                self._asked[details["requestId"]] = details["request"]["url"]
            elif happening == "Network.loadingFailed" and details.get("blockedReason"):
                del self._asked[details["requestId"]]
            elif happening in ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded"):
                self.complaints.append(json.dumps(details)[:500])

    async def call(self, method: str, /, **parameters: Any) -> dict[str, Any]:
        """Ask the browser; raises RuntimeError where it refuses, TimeoutError where it stays silent."""
        number = next(self._numbers)
        self._answers[number] = asyncio.get_running_loop().create_future()
        said: dict[str, Any] = {"id": number, "method": method, "params": parameters}
        if self.session:
            said["sessionId"] = self.session
        await self._socket.send_json(said)
        answer = await asyncio.wait_for(self._answers[number], PATIENCE_S)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        found: dict[str, Any] = answer["result"]
        return found

    async def look(self, *, width: int, height: int = 900, dark: bool = False, script: bool = True) -> None:
        """Set up the window before a page is opened."""
        phone = width < 600
        await self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=phone
        )
        await self.call("Emulation.setTouchEmulationEnabled", enabled=phone)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self.call("Emulation.setEmulatedMedia", features=[scheme])
        await self.call("Emulation.setScriptExecutionDisabled", value=not script)

    async def open(self, address: str) -> None:
        self._loaded.clear()
        self.complaints.clear()
        self._asked.clear()
        self._worked_before_s = 0.0
        self._worked_before_s = await self.worked_s()
        await self.call("Page.navigate", url=address)
        await asyncio.wait_for(self._loaded.wait(), PATIENCE_S)

    async def ask(self, expression: str) -> Any:
        """The value of a JavaScript expression (ours, not the page's: it answers with the page's script off too)."""
        answer = await self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    async def worked_s(self) -> float:
        """CPU seconds that the page's thread has worked since the page was opened."""
        metrics = (await self.call("Performance.getMetrics"))["metrics"]
        return float(next(one["value"] for one in metrics if one["name"] == "TaskDuration")) - self._worked_before_s

    async def press(self, key: str) -> None:
        code = _KEYS[key]
        text = {"Enter": "\r", " ": " "}.get(key)
        common = {"key": key, "code": key, "windowsVirtualKeyCode": code}
        down = {**common, "type": "keyDown" if text else "rawKeyDown"}
        await self.call("Input.dispatchKeyEvent", **down, **({"text": text} if text else {}))
        await self.call("Input.dispatchKeyEvent", type="keyUp", **common)

    async def type(self, text: str) -> None:
        await self.call("Input.insertText", text=text)

    async def picture(self, clip: dict[str, float] | None = None) -> bytes:
        """The whole page as PNG, or a part of it: x, y, width, height, scale."""
        parameters = {"clip": clip} if clip else {}
        found = await self.call("Page.captureScreenshot", captureBeyondViewport=True, **parameters)
        return b64decode(found["data"])


@asynccontextmanager
async def browser(home: Path) -> AsyncIterator[Tab]:
    """A headless Chromium with one tab and a profile of its own under `home`; it ends with the block."""
    assert BINARY is not None
    profile = home / "profile"
    flags = [
        "--headless=new", "--disable-gpu", "--no-first-run", "--disable-extensions", "--disable-background-networking",
        "--disable-dev-shm-usage", "--disable-sync", "--metrics-recording-only", "--no-default-browser-check",
        "--hide-scrollbars=false", "--remote-debugging-port=0", f"--user-data-dir={profile}",
    ]  # fmt: skip
    if os.getuid() == 0:
        flags.append("--no-sandbox")  # it refuses to run as root otherwise; containers often are
    process = await asyncio.create_subprocess_exec(
        BINARY, *flags, "about:blank", stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        port, path = await asyncio.wait_for(_address(profile, process), PATIENCE_S)
        async with (
            aiohttp.ClientSession() as http,
            http.ws_connect(f"ws://127.0.0.1:{port}{path}", max_msg_size=0) as socket,
        ):
            tab = Tab(socket)
            listening = asyncio.create_task(tab.listen(), name="devtools")
            try:
                target = await tab.call("Target.createTarget", url="about:blank")
                attached = await tab.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
                tab.session = attached["sessionId"]
                for domain in ("Page", "Runtime", "Log", "Network"):
                    await tab.call(f"{domain}.enable")
                await tab.call("Performance.enable", timeDomain="threadTicks")
                yield tab
            finally:
                listening.cancel()
                await asyncio.gather(listening, return_exceptions=True)
    finally:
        if process.returncode is None:
            process.terminate()
            try:
                await asyncio.wait_for(process.wait(), PATIENCE_S)
            except TimeoutError:
                process.kill()
                await process.wait()


async def _address(profile: Path, process: asyncio.subprocess.Process) -> tuple[int, str]:
    """Where it listens: it writes that into a file once it does."""
    file = profile / "DevToolsActivePort"
    while True:
        if process.returncode is not None:
            raise RuntimeError(f"chromium ended with {process.returncode} before it listened")
        lines = file.read_text().splitlines() if file.exists() else []
        if len(lines) == 2:
            return int(lines[0]), lines[1]
        await asyncio.sleep(0.02)
