"""Five people at once: the dashboard under load, in headless Chromium.

    python benchmarks/sessions.py                # results/sessions.json
    python benchmarks/sessions.py --minutes 0.5 --people 2

Each person has a browser context of their own and goes round: the map, a click, a reconstruction, a
generation that is stopped, the library. Printed are the rounds, how long a click on the map took to
show its crystal, tracebacks and failed scripts (there must be none), and the app's memory.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from machine import report

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "app"))  # where the browser is started for the tests

from browser import browsing, quiet, running_app  # noqa: E402
from playwright.sync_api import Page  # noqa: E402

PATIENCE = 120_000


def resident(process: int) -> float:
    """GB of a process and its children."""
    total = 0
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            status = (folder / "status").read_text()
        except OSError:
            continue
        fields = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
        if process in (int(fields["Pid"]), int(fields["PPid"])) and "VmRSS" in fields:
            total += int(fields["VmRSS"].split()[0])
    return total / 2**20


def begin(page: Page, address: str) -> None:
    page.set_default_timeout(PATIENCE)
    page.goto(f"{address}/latent_map?checkpoint=perov_like")


def go_round(page: Page, address: str, number: int) -> float:
    """One round; how long the click on the map took, in seconds."""
    page.goto(f"{address}/latent_map?checkpoint=perov_like")
    page.wait_for_selector(".js-plotly-plot .nsewdrag")
    quiet(page)
    begun = time.perf_counter()
    page.get_by_role("button", name="Show me one").click()
    page.wait_for_selector(".crystal[data-state=ready]")
    shown = time.perf_counter() - begun
    page.get_by_label("Seed", exact=True).fill(str(number))
    page.get_by_label("Seed", exact=True).press("Enter")
    quiet(page)
    page.get_by_role("button", name="Reconstruct").click()
    page.wait_for_selector(".crystal.player[data-state=ready]")
    page.goto(f"{address}/generate?checkpoint=perov_like")
    page.get_by_role("button", name="Generate", exact=True).click()
    page.get_by_role("button", name="Stop").click()
    page.get_by_text("Stopped.").wait_for()
    page.goto(f"{address}/library")
    page.get_by_role("heading", name="Library").wait_for()
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--people", type=int, default=5)
    parser.add_argument("--minutes", type=float, default=2.0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        environment = {"CDVAE_LIBRARY": str(Path(scratch) / "library.db")}
        with running_app(environment) as address, browsing() as watched:
            server = _server()
            pages = [watched.page] + [
                watched.page.context.browser.new_context().new_page()
                for _ in range(arguments.people - 1)
            ]
            for page in pages:
                page.on("pageerror", lambda error: watched.errors.append(str(error)))
                begin(page, address)
            until = time.monotonic() + 60 * arguments.minutes
            clicks, tracebacks, most = [], 0, 0.0
            while time.monotonic() < until:  # in turns, while the others' jobs go on
                for number, page in enumerate(pages):
                    clicks.append(go_round(page, address, number))
                    tracebacks += page.get_by_test_id("stException").count()
                    most = max(most, resident(server))
            errors = len(watched.errors)
    row: dict[str, Any] = {
        "people": arguments.people,
        "rounds": len(clicks),
        "click to crystal, s": median(clicks),
        "tracebacks": tracebacks,
        "script errors": errors,
        "resident GB": most,
    }
    report("sessions", [row])


def _server() -> int:
    """The process of the app that this one started."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes().decode()
            parent = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
        except (OSError, IndexError):
            continue
        if parent == os.getpid() and "streamlit" in command:
            return int(folder.name)
    raise SystemExit("the app is not running")


if __name__ == "__main__":
    main()
