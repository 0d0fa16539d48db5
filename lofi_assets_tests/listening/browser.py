"""A headless Chromium, driven by the DevTools protocol, and the listening server as a process that can be killed."""

import base64
import contextlib
import itertools
import json
import os
import shutil
import socket as socketlib
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from websockets.sync.client import ClientConnection

START_S = 120.0


def chromium() -> str:
    """Its path; without it the test is skipped, and says so."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        pytest.skip("NO BROWSER: install chromium; the page of the listening test is NOT driven here")
    return found


def free_port() -> int:
    with socketlib.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Tab:
    """One tab, with everything that it asked the network for."""

    def __init__(self, socket: "ClientConnection") -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self.requests: list[str] = []
        self.posted: list[str] = []
        self.console: list[str] = []
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": params}))
        while True:
            message = json.loads(self._socket.recv(timeout=60))
            self._note(message)
            if message.get("id") == number:
                assert "error" not in message, message
                result: dict[str, Any] = message["result"]
                return result

    def _note(self, message: dict[str, Any]) -> None:
        if message.get("method") == "Network.requestWillBeSent":
            request = message["params"]["request"]
            self.requests.append(request["url"])
            self.posted.append(request.get("postData", ""))
        if message.get("method") in ("Runtime.exceptionThrown", "Log.entryAdded"):
            self.console.append(json.dumps(message["params"]))

    def run(self, script: str) -> Any:
        """The value of an expression; of a promise, what it gives."""
        found = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, (script, found["exceptionDetails"])
        return found["result"].get("value")

    def until(self, script: str, *, seconds: float = 30.0) -> None:
        """Wait for an expression to hold; what is not on the page yet does not."""
        end = time.monotonic() + seconds
        while not self.run(f"(() => {{ try {{ return {script}; }} catch {{ return false; }} }})()"):
            assert time.monotonic() < end, f"{script} does not come true: {self.run('document.body.innerText')}"
            time.sleep(0.05)

    def key(self, key: str) -> None:
        """One key, pressed and let go."""
        code = {" ": 32, "Enter": 13}.get(key, ord(key.upper()[0]))
        text = {"Enter": "\r"}.get(key, key)
        for kind in ("keyDown", "keyUp"):
            typed = {"text": text} if kind == "keyDown" else {}
            self.call("Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=code, **typed)

    def size(self, width: int, height: int, *, dark: bool = False) -> None:
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = "dark" if dark else "light"
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def screenshot(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", captureBeyondViewport=True)["data"]))


@contextlib.contextmanager
def browser(profile: Path) -> Iterator[Tab]:
    """A tab of a browser of its own."""
    from websockets.sync.client import connect

    port = free_port()
    options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--autoplay-policy=no-user-gesture-required"]
    options += ["--no-first-run", "--disable-background-networking", "--mute-audio", "--disable-dev-shm-usage"]
    options += [f"--remote-debugging-port={port}", f"--user-data-dir={profile}", "about:blank"]
    with (profile.parent / "chromium.log").open("wb") as log:
        process = subprocess.Popen([chromium(), *options], stdout=log, stderr=log)
    try:
        with connect(_tab_address(port), max_size=None) as socket:
            yield Tab(socket)
    finally:
        process.terminate()
        process.wait(timeout=20)


def _tab_address(port: int) -> str:
    end = time.monotonic() + START_S
    while True:
        with contextlib.suppress(OSError, StopIteration):
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/json") as answer:
                pages = json.load(answer)
            return str(next(page for page in pages if page["type"] == "page")["webSocketDebuggerUrl"])
        assert time.monotonic() < end, "chromium did not start"
        time.sleep(0.1)


class Served:
    """`lofi listen serve` as a process."""

    def __init__(self, root: Path) -> None:
        self.root, self.port = root, free_port()
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "lofi_assets.cli.main", "listen", "serve", "--port", str(self.port)]
        self.process = subprocess.Popen(command, env=os.environ | {"LOFI_DATA_DIR": str(self.root)})
        end = time.monotonic() + START_S
        while True:
            with contextlib.suppress(OSError), socketlib.create_connection(("127.0.0.1", self.port), timeout=1):
                return
            assert time.monotonic() < end and self.process.poll() is None, "the server did not start"
            time.sleep(0.05)

    def kill(self) -> None:
        """As `kill -9` does."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()
