"""The main paths in a real browser, headless, with pictures kept in tests/artifacts.

Every block also holds that no request leaves this machine and that no script fails.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from io import BytesIO

import numpy as np
import pytest
from browser import CHROMIUM, browsing, click_point, quiet, running_app, whole_page
from conftest import World
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import Page, expect

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed (apt install chromium)"),
    pytest.mark.timeout(900),
]
expect.set_options(timeout=180_000)


@pytest.fixture(scope="module")
def address(world: World) -> Iterator[str]:
    with running_app(world.environment) as where:
        yield where


def open_map(page: Page, address: str, query: str = "") -> None:
    page.goto(f"{address}/latent_map?checkpoint=tiny{query}")
    page.wait_for_selector(".js-plotly-plot .nsewdrag")
    quiet(page)


def picture(page: Page, selector: str) -> NDArray[np.int64]:
    """The pixels of a 3D view, (height, width, 3)."""
    seen = Image.open(BytesIO(page.locator(f"{selector} .canvas").first.screenshot()))
    return np.asarray(seen.convert("RGB")).astype(int)


def changed_share(before: NDArray[np.int64] | int, after: NDArray[np.int64]) -> float:
    """The part of a view whose pixels differ."""
    return float((abs(after - before).max(-1) > 40).mean())


def drawn_share(page: Page, selector: str) -> float:
    """The part of a 3D view that is not background."""
    return changed_share(255, picture(page, selector))


@pytest.mark.parametrize("width", [1440, 800])
def test_home(address: str, width: int) -> None:
    with browsing(width) as watched:
        page = watched.page
        page.goto(f"{address}/?checkpoint=tiny")
        expect(page.locator(".crystal[data-state=ready]")).to_have_count(3)
        quiet(page)
        expect(page.get_by_role("combobox", name="Checkpoint")).to_have_value("tiny")
        assert drawn_share(page, ".crystal") > 0.04
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        whole_page(page, f"home-{width}")


def test_gallery_leads_to_the_map(address: str) -> None:
    with browsing() as watched:
        page = watched.page
        page.goto(f"{address}/?checkpoint=tiny")
        page.get_by_role("button", name="See it on the map").first.click()
        page.wait_for_selector(".js-plotly-plot .nsewdrag")
        quiet(page)
        assert "crystal=" in page.url
        expect(page.get_by_role("combobox", name="Checkpoint")).to_have_value("tiny")
        expect(page.locator(".crystal[data-state=ready]")).to_have_count(1)


@pytest.mark.parametrize("width", [1440, 800])
def test_click_reconstruct_play_and_download(address: str, width: int) -> None:
    with browsing(width) as watched:
        page = watched.page
        open_map(page, address)
        click_point(page, 2)
        expect(page.locator(".crystal[data-state=ready]")).to_have_count(1)
        assert "crystal=" in page.url
        page.get_by_role("button", name="Reconstruct").click()
        expect(page.get_by_text("Original and reconstruction")).to_be_visible()
        expect(page.locator(".crystal[data-state=ready]")).to_have_count(4)
        quiet(page)
        player = page.locator(".crystal.player")
        last = int(player.get_attribute("data-frames") or 0) - 1
        assert last > 50
        expect(player).to_have_attribute("data-frame", str(last))
        whole_page(page, f"latent-map-{width}")
        atoms_move(page, last)
        play(page, last)
        with page.expect_download() as caught:
            page.get_by_text("Reconstruction, CIF").click()
        assert "_cell_length_a" in caught.value.path().read_text()


def atoms_move(page: Page, last: int) -> None:
    """Between the first frame and the last the cell stays, so what changes are the atoms."""
    frame = page.locator(".crystal.player").get_by_label("Frame", exact=True)
    after = picture(page, ".crystal.player")
    frame.fill("0")
    expect(page.locator(".crystal.player")).to_have_attribute("data-frame", "0")
    before = picture(page, ".crystal.player")
    assert changed_share(before, after) > 0.01
    frame.fill(str(last))


def play(page: Page, last: int) -> None:
    """Play, pause, scrub, speed and keys."""
    player = page.locator(".crystal.player")
    player.get_by_label("Play", exact=True).click()
    expect(player).to_have_attribute("data-playing", "true")
    page.wait_for_function(
        """() => { for (const e of document.querySelectorAll('*')) {
             const p = e.shadowRoot?.querySelector('.crystal.player');
             if (p) return Number(p.dataset.frame) > 3; } }"""
    )
    player.get_by_label("Pause").click()
    expect(player).not_to_have_attribute("data-playing", "true")
    player.get_by_label("Frame", exact=True).fill("10")
    expect(player).to_have_attribute("data-frame", "10")
    expect(player.locator('[data-part="caption"]')).to_have_text(re.compile(r"step 11 of [\d,]+"))
    player.focus()
    page.keyboard.press("ArrowRight")
    expect(player).to_have_attribute("data-frame", "11")
    page.keyboard.press("Home")
    expect(player).to_have_attribute("data-frame", "0")
    page.keyboard.press("End")
    expect(player).to_have_attribute("data-frame", str(last))
    page.keyboard.press("+")
    expect(player.get_by_label("Speed")).to_have_value("2")
    chart = player.locator(".chart svg").first.bounding_box()
    page.mouse.click(chart["x"] + chart["width"] * 0.5, chart["y"] + chart["height"] / 2)
    expect(player).not_to_have_attribute("data-frame", str(last))


def test_lasso(address: str) -> None:
    with browsing() as watched:
        page = watched.page
        open_map(page, address)
        page.locator('[data-title="Lasso Select"]').first.click()
        area = page.locator(".js-plotly-plot .nsewdrag").first.bounding_box()
        corners = [(0.01, 0.01), (0.99, 0.01), (0.99, 0.99), (0.01, 0.99), (0.01, 0.02)]
        places = [(area["x"] + x * area["width"], area["y"] + y * area["height"])
                  for x, y in corners]  # fmt: skip
        page.mouse.move(*places[0])
        page.mouse.down()
        for place in places[1:]:
            page.mouse.move(*place, steps=8)
        page.mouse.up()
        expect(page.get_by_text("in the lasso")).to_be_visible()
        expect(page.locator(".crystal[data-state=ready]")).to_have_count(4)
        quiet(page)
        whole_page(page, "latent-map-lasso")


@pytest.mark.slow
def test_a_long_run_is_live_and_can_be_stopped(address: str) -> None:
    with browsing() as watched:
        page = watched.page
        open_map(page, address)
        click_point(page, 1)
        expect(page.locator(".crystal[data-state=ready]")).to_have_count(1)
        quiet(page)
        page.get_by_role("combobox", name="Schedule").click()
        page.get_by_role("option", name="Paper").click()
        quiet(page)
        page.get_by_role("button", name="Reconstruct").click()
        player = page.locator(".crystal.player[data-state=ready]")
        expect(player).to_be_visible()
        page.wait_for_function(
            """() => { for (const e of document.querySelectorAll('*')) {
                 const p = e.shadowRoot?.querySelector('.crystal.player');
                 if (p) return Number(p.dataset.frames) > 3; } }"""
        )
        page.get_by_role("button", name="Stop").click()
        expect(page.get_by_text("The run was stopped")).to_be_visible()


def test_without_the_3d_library_the_view_says_so(address: str) -> None:
    with browsing() as watched:
        page = watched.page
        page.route("**/3Dmol-min.js", lambda route: route.fulfill(body="<html></html>"))
        page.goto(f"{address}/?checkpoint=tiny")
        expect(page.locator(".crystal[data-state=failed]").first).to_be_visible()
        expect(page.get_by_text("The 3D library did not load").first).to_be_visible()
        watched.errors.clear()  # the page that came in its place is no script
