"""The app on a free port, and a headless Chromium to look at it."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.error import URLError
from urllib.parse import urlsplit
from urllib.request import urlopen

if TYPE_CHECKING:
    from playwright.sync_api import Page

ROOT = Path(__file__).parents[2]
ARTIFACTS = ROOT / "tests" / "artifacts"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
PATIENCE = 180_000  # ms: a busy machine is slow, so tests wait for states and not for times
_FLAGS = (
    "--no-sandbox",
    "--no-first-run",
    "--disable-sync",
    "--disable-background-networking",
    "--disable-component-update",
)


@contextmanager
def running_app(environment: dict[str, str]) -> Iterator[str]:
    """The address of the app, started for the time of the block."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "streamlit", "run", str(ROOT / "app" / "main.py")]
    options = ["--server.headless=true", f"--server.port={port}", "--server.fileWatcherType=none"]
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    address = f"http://127.0.0.1:{port}"
    ARTIFACTS.mkdir(exist_ok=True)
    with (ARTIFACTS / "app.log").open("w") as log:
        server = subprocess.Popen(
            [*command, *options], cwd=ROOT, env=os.environ | threads | environment,
            stdout=log, stderr=subprocess.STDOUT,
        )  # fmt: skip
        try:
            _wait_for(address, server)
            yield address
        finally:
            server.terminate()
            server.wait(30)


def _wait_for(address: str, server: subprocess.Popen[bytes]) -> None:
    for _ in range(240):
        if server.poll() is not None:
            raise RuntimeError(
                f"the app ended with {server.returncode}: see tests/artifacts/app.log"
            )
        try:
            with urlopen(f"{address}/_stcore/health", timeout=5):
                return
        except (URLError, TimeoutError, ConnectionError):
            time.sleep(0.5)
    raise RuntimeError("the app did not answer within two minutes")


@dataclass
class Watched:
    """A page and what went wrong on it.

    Attributes:
        outside: requests that left this machine.
        errors: uncaught errors of scripts.
    """

    page: Page
    outside: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


@contextmanager
def browsing(width: int = 1440, height: int = 1000) -> Iterator[Watched]:
    """A fresh page; afterwards it must have stayed on this machine and without script errors."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=list(_FLAGS))
        page = browser.new_page(viewport={"width": width, "height": height})
        page.set_default_timeout(PATIENCE)
        watched = Watched(page)
        page.on("request", lambda request: _note(request.url, watched))
        page.on("pageerror", lambda error: watched.errors.append(str(error)))
        yield watched
        browser.close()
    assert not watched.outside, f"requests left this machine: {watched.outside[:5]}"
    assert not watched.errors, f"script errors: {watched.errors[:3]}"


def _note(url: str, watched: Watched) -> None:
    parts = urlsplit(url)
    if parts.scheme not in ("data", "blob", "about", "file") and parts.hostname != "127.0.0.1":
        watched.outside.append(url)


def quiet(page: Page) -> None:
    """Wait until the app has nothing left to do and every 3D view is drawn."""
    page.wait_for_selector('[data-testid="stApp"][data-test-script-state="notRunning"]')
    page.wait_for_function(
        """() => {
          const roots = [document];
          for (const e of document.querySelectorAll("*")) {
            if (e.shadowRoot) roots.push(e.shadowRoot);
          }
          return roots.every((r) => !r.querySelector('.crystal[data-state="loading"]'));
        }"""
    )


def whole_page(page: Page, name: str) -> Path:
    """A picture of the page from top to bottom, kept in tests/artifacts."""
    size = page.viewport_size or {"width": 1440, "height": 1000}
    height = page.evaluate(
        "() => document.querySelector('[data-testid=\"stMainBlockContainer\"]').scrollHeight"
    )
    page.set_viewport_size({"width": size["width"], "height": min(height + 120, 4000)})
    page.wait_for_timeout(1500)
    target = ARTIFACTS / f"{name}.png"
    page.screenshot(path=target)
    page.set_viewport_size(size)
    return target


def click_point(page: Page, index: int) -> None:
    """Click the point of the map with this index."""
    place = page.evaluate(
        """(index) => {
          const plot = document.querySelector('.js-plotly-plot'), full = plot._fullLayout;
          const trace = plot._fullData.find((t) => Array.from(t.customdata).includes(index));
          const k = Array.from(trace.customdata).indexOf(index);
          const box = plot.getBoundingClientRect();
          return [box.left + full.xaxis._offset + full.xaxis.l2p(trace.x[k]),
                  box.top + full.yaxis._offset + full.yaxis.l2p(trace.y[k])];
        }""",
        index,
    )
    page.mouse.move(place[0] + 12, place[1] + 9)
    page.mouse.move(*place, steps=4)
    page.wait_for_timeout(400)
    page.mouse.click(*place)
