"""Headless Chromium for tests, driven through chromedriver by the W3C WebDriver protocol.

Every request that a page makes, and everything it writes to the console, is recorded.
"""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
MISSING = (
    "" if CHROMIUM and DRIVER else "Chromium and chromedriver are not installed (Debian: chromium chromium-driver)"
)
_ARGUMENTS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-extensions"),
)

OVERLAPS = Path(__file__).with_name("overlaps.js").read_text(encoding="utf-8")
"""The body of a function that lists texts of figures and parts of a page that cover one another or stick out."""
CONTRAST = Path(__file__).with_name("contrast.js").read_text(encoding="utf-8")
"""The body of a function that lists texts whose contrast with what is behind them is below 4.5 (WCAG 2, AA)."""


class Browser:
    """One window; see :func:`opened`."""

    def __init__(self, address: str, session: str) -> None:
        self._address = f"{address}/session/{session}"

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """Send a command of the protocol and return its value."""
        data = None if method == "GET" else json.dumps(body or {}).encode()
        request = urllib.request.Request(
            self._address + path, data, {"Content-Type": "application/json"}, method=method
        )
        with urllib.request.urlopen(request, timeout=120) as answer:
            return json.loads(answer.read())["value"]

    def open(self, address: str) -> None:
        """Go to an address and wait until it is loaded."""
        self.ask("POST", "/url", {"url": address})

    def run(self, script: str, *arguments: Any) -> Any:
        """Run the body of a function in the page and return what it returns."""
        return self.ask("POST", "/execute/sync", {"script": script, "args": list(arguments)})

    def resize(self, width: int, height: int = 1000) -> None:
        """Make the page so many pixels wide, as a device of that width has it."""
        self.devtools(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False
        )

    def devtools(self, command: str, **parameters: Any) -> Any:
        """Send a command of the DevTools protocol."""
        return self.ask("POST", "/goog/cdp/execute", {"cmd": command, "params": parameters})

    def pdf(self) -> bytes:
        """Print the page as the browser's user would, on its own paper."""
        printed = self.devtools("Page.printToPDF", printBackground=True, preferCSSPageSize=True)
        return base64.b64decode(printed["data"])

    def picture(self, path: Path) -> None:
        """Save what the whole page looks like as PNG."""
        size = self.devtools("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        shot = self.devtools("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)
        path.write_bytes(base64.b64decode(shot["data"]))

    def requests(self) -> list[str]:
        """Give the addresses that pages have asked for since the last call."""
        found = []
        for entry in self.ask("POST", "/se/log", {"type": "performance"}):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                found.append(message["params"]["request"]["url"])
        return found

    def console(self) -> list[str]:
        """Give what stood on the console since the last call."""
        return [entry["message"] for entry in self.ask("POST", "/se/log", {"type": "browser"})]


@contextmanager
def opened(downloads: Path | None = None) -> Iterator[Browser]:
    """Start a browser for as long as the block runs; files are downloaded into ``downloads``."""
    assert CHROMIUM
    assert DRIVER
    with tempfile.TemporaryDirectory() as profile:
        command = [DRIVER, "--port=0"]
        environment = {**os.environ, "HOME": profile}
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment) as driver:
            assert driver.stdout is not None
            try:
                port = next(
                    found[1]
                    for line in driver.stdout
                    if (found := re.search(r"successfully on port (\d+)", line.decode()))
                )
                yield from _session(f"http://127.0.0.1:{port}", profile, downloads)
            finally:
                driver.terminate()


def _session(address: str, profile: str, downloads: Path | None) -> Iterator[Browser]:
    options = {
        "binary": CHROMIUM,
        "args": [*_ARGUMENTS, f"--user-data-dir={profile}/chromium"],
    }
    capabilities = {
        "browserName": "chrome",
        "goog:chromeOptions": options,
        "goog:loggingPrefs": {"performance": "ALL", "browser": "ALL"},
    }
    body = json.dumps({"capabilities": {"alwaysMatch": capabilities}}).encode()
    request = urllib.request.Request(f"{address}/session", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=120) as answer:
        session = json.loads(answer.read())["value"]["sessionId"]
    browser = Browser(address, session)
    try:
        if downloads:
            browser.devtools("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(downloads))
        yield browser
    finally:
        browser.ask("DELETE", "")
