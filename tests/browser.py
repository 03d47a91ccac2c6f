"""A page driven in headless Chromium: what it logs, what it asks for, what keys do."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

FLAGS = "--headless --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run --remote-debugging-port=0"


def executable() -> str | None:
    """The browser: ``$CHROMIUM``, or one of the usual names."""
    names = "chromium", "chromium-browser", "google-chrome", "google-chrome-stable"
    return os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, names)), None)


class Browser:
    """One tab; ``with Browser() as page``. ``console`` and ``requests`` fill while it is used."""

    def __enter__(self) -> Browser:
        import websocket  # comes with jupyterlab

        self.folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        command = [
            executable(),
            *FLAGS.split(),
            f"--user-data-dir={self.folder.name}",
            "about:blank",
        ]
        self.process = subprocess.Popen(
            command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )
        port_file = Path(self.folder.name) / "DevToolsActivePort"
        deadline = time.monotonic() + 60
        while not (port_file.exists() and port_file.read_text().count("\n")):
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("the browser did not start")
            time.sleep(0.1)
        port = port_file.read_text().splitlines()[0]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/json") as answer:
            target = next(t for t in json.load(answer) if t["type"] == "page")
        self.socket = websocket.create_connection(
            target["webSocketDebuggerUrl"], suppress_origin=True, timeout=60
        )
        self.number, self.console, self.requests, self.loaded = 0, [], [], False
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")
        return self

    def __exit__(self, *_: Any) -> None:
        self.socket.close()
        self.process.terminate()
        self.process.wait(30)
        self.folder.cleanup()

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command of the protocol and its result; events that arrive meanwhile are noted."""
        self.number += 1
        self.socket.send(json.dumps({"id": self.number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self.socket.recv())
            if message.get("id") == self.number:
                if "error" in message:
                    raise RuntimeError(f"{method}: {message['error']['message']}")
                return message["result"]
            self.note(message)

    def note(self, message: dict[str, Any]) -> None:
        """Keep what an event says of errors, requests and loading."""
        method, data = message.get("method"), message.get("params", {})
        if method == "Runtime.exceptionThrown":
            told = data["exceptionDetails"]
            description = told.get("exception", {}).get("description", "")
            self.console.append(f"{told['text']} {description} {told.get('url', '')}")
        elif method == "Runtime.consoleAPICalled" and data["type"] in ("error", "assert"):
            self.console.append(" ".join(str(a.get("value")) for a in data["args"]))
        elif method == "Log.entryAdded" and data["entry"]["level"] == "error":
            self.console.append(f"{data['entry']['text']} {data['entry'].get('url', '')}")
        elif method == "Network.requestWillBeSent":
            self.requests.append(data["request"]["url"])
        elif method == "Page.loadEventFired":
            self.loaded = True

    def open(self, url: str, width: int = 1400, dark: bool = False) -> None:
        """Load a page at this width, in light or dark mode, and wait until it is there."""
        phone = width < 600
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=900, deviceScaleFactor=1, mobile=phone,
        )  # fmt: skip
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.loaded, self.console, self.requests = False, [], []
        self.call("Page.navigate", url=url)
        deadline = time.monotonic() + 60
        while not self.loaded and time.monotonic() < deadline:
            self.note(json.loads(self.socket.recv()))
        self.settle()

    def settle(self) -> None:
        """Let two frames pass, so that observers of sizes have run."""
        self.js("new Promise(r => requestAnimationFrame(() => requestAnimationFrame(r)))")

    def js(self, expression: str) -> Any:
        """The value of an expression in the page, awaited if it is a promise."""
        answer = self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        if "exceptionDetails" in answer:
            raise RuntimeError(answer["exceptionDetails"]["exception"].get("description"))
        return answer["result"].get("value")

    def key(self, name: str, code: int) -> None:
        """Press and release a key, such as ("ArrowRight", 39)."""
        for kind in ("keyDown", "keyUp"):
            self.call(
                "Input.dispatchKeyEvent", type=kind, key=name, code=name, windowsVirtualKeyCode=code
            )
        self.settle()

    def mouse(self, kind: str, x: float, y: float) -> None:
        """mouseMoved, mousePressed or mouseReleased at a place of the window."""
        self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)
        self.settle()

    def screenshot(self, path: str | Path, whole: bool = True) -> None:
        """A PNG file of the window or of the whole page."""
        shot = self.call("Page.captureScreenshot", captureBeyondViewport=whole, **(
            {"clip": {"x": 0, "y": 0, "scale": 1, "width": self.js("innerWidth"),
                      "height": self.js("document.documentElement.scrollHeight")}} if whole else {}
        ))  # fmt: skip
        Path(path).write_bytes(base64.b64decode(shot["data"]))
