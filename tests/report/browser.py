"""A headless Chromium, driven over a pipe by its own protocol (https://chromedevtools.github.io/devtools-protocol/)."""

import base64
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome")
# Root needs --no-sandbox; the rest keeps Chromium from calling home, since what it sends of itself is not the page's.
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
    "about:blank",
]
WITHIN = 30.0  # seconds for any answer


def installed() -> str | None:
    """Return the path of a Chromium, or None."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Browser:
    """One tab. ``requests`` and ``complaints`` fill with what the page asked for and what the console said of it."""

    def __init__(self, to: int, back: int) -> None:
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self.loaded = False
        self._to, self._back, self._left, self._number, self._session = to, back, b"", 0, ""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol and return its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while (answer := self._next()).get("id") != self._number:
            self._note(answer)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        return answer["result"]

    def open(self, page: Path, width: int, height: int, *, dark: bool = False) -> None:
        """Show a page at a size in pixels and wait until it is loaded; what was noted before is forgotten."""
        self.requests, self.complaints, self.loaded = [], [], False
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.call("Page.navigate", url=page.resolve().as_uri())
        end = time.monotonic() + WITHIN
        while not self.loaded:
            self._note(self._next())
            if time.monotonic() > end:
                raise TimeoutError(f"{page} did not load")

    def run(self, script: str) -> Any:
        """Return the value of an expression in the page."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(f"{script}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def picture(self, target: Path, *, whole: bool = True) -> None:
        """Write a screenshot (PNG) of the page."""
        shot = self.call(
            "Page.captureScreenshot", captureBeyondViewport=whole, **({"clip": self._all()} if whole else {})
        )
        target.write_bytes(base64.b64decode(shot["data"]))

    def _all(self) -> dict[str, float]:
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        return {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._left:
            chunk = os.read(self._back, 1 << 20)
            if not chunk:
                raise RuntimeError("Chromium ended")
            self._left += chunk
        message, _, self._left = self._left.partition(b"\0")
        return json.loads(message)

    def _note(self, event: dict[str, Any]) -> None:
        given = event.get("params", {})
        match event.get("method"):
            case "Network.requestWillBeSent":
                self.requests.append(given["request"]["url"])
            case "Log.entryAdded":
                self.complaints.append(given["entry"]["text"])
            case "Runtime.consoleAPICalled" | "Runtime.exceptionThrown":
                self.complaints.append(json.dumps(given))
            case "Page.javascriptDialogOpening":
                self.complaints.append(f"dialog: {given['message']}")
                self.call("Page.handleJavaScriptDialog", accept=True)
            case "Page.loadEventFired":
                self.loaded = True


@contextmanager
def browser(profile: Path) -> Iterator[Browser]:
    """Start Chromium with an empty profile and end it with the block."""
    path = installed()
    assert path is not None
    read_there, to = os.pipe()
    back, write_there = os.pipe()
    # Chromium listens on descriptor 3 and answers on 4.
    command = f'exec "$0" "$@" 3<&{read_there} 4>&{write_there}'
    with (profile / "log").open("wb") as log:
        process = subprocess.Popen(
            ["bash", "-c", command, path, *FLAGS, f"--user-data-dir={profile / 'data'}"],
            pass_fds=(read_there, write_there),
            stdout=log,
            stderr=log,
        )
    os.close(read_there)
    os.close(write_there)
    try:
        yield Browser(to, back)
    finally:
        process.terminate()
        process.wait(WITHIN)
        os.close(to)
        os.close(back)
