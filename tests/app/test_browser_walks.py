"""The pages that make crystals in a real browser: films, stops, two people at once, a restart."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import CHROMIUM, PATIENCE, browsing, quiet, running_app, whole_page
from conftest import World
from playwright.sync_api import Page, expect

from app.services import library

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed (apt install chromium)"),
    pytest.mark.timeout(900),
]
expect.set_options(timeout=180_000)


@pytest.fixture(scope="module")
def environment(world: World, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    library = tmp_path_factory.mktemp("library") / "library.db"
    return world.environment | {"CDVAE_LIBRARY": str(library)}


@pytest.fixture(scope="module")
def address(environment: dict[str, str]) -> Iterator[str]:
    with running_app(environment) as where:
        yield where


def opened(page: Page, address: str, name: str, button: str) -> None:
    page.goto(f"{address}/{name}?checkpoint=tiny")
    expect(page.get_by_role("button", name=button, exact=True)).to_be_visible()
    quiet(page)


def press(page: Page, button: str) -> None:
    page.get_by_role("button", name=button, exact=True).click()


def test_films_side_by_side_and_one_that_plays_without_the_app(
    address: str, tmp_path: Path
) -> None:
    with browsing() as watched:
        page = watched.page
        opened(page, address, "trajectory", "Run")
        press(page, "Run")
        expect(page.get_by_text("Film 2, HTML")).to_be_visible()
        expect(page.locator(".crystal.player[data-state=ready]")).to_have_count(2)
        whole_page(page, "trajectory-1440")
        with page.expect_download() as caught:
            page.get_by_text("Film 1, HTML").click()
        film = tmp_path / "film.html"
        caught.value.save_as(film)
    with browsing() as watched:
        page = watched.page
        page.goto(film.as_uri())
        player = page.locator(".crystal.player")
        expect(player).to_have_attribute("data-state", "ready")
        last = int(player.get_attribute("data-frames") or 0) - 1
        expect(player).to_have_attribute("data-frame", str(last))
        player.get_by_label("Frame", exact=True).fill("3")
        expect(player).to_have_attribute("data-frame", "3")


def test_an_empty_place_of_the_map_is_decoded(address: str) -> None:
    with browsing() as watched:
        page = watched.page
        page.goto(f"{address}/latent_map?checkpoint=tiny")
        page.wait_for_selector(".js-plotly-plot .nsewdrag")
        quiet(page)
        place = page.evaluate(
            """() => {
              const plot = document.querySelector('.js-plotly-plot'), full = plot._fullLayout;
              const trace = plot._fullData.find((t) => t.name === 'empty');
              const inside = (v, axis) => axis.l2p(v) > 30 && axis.l2p(v) < axis._length - 30;
              const k = Array.from(trace.x).findLastIndex((x, i) =>
                inside(x, full.xaxis) && inside(trace.y[i], full.yaxis));
              const box = plot.getBoundingClientRect();
              return [box.left + full.xaxis._offset + full.xaxis.l2p(trace.x[k]),
                      box.top + full.yaxis._offset + full.yaxis.l2p(trace.y[k])];
            }"""
        )
        page.mouse.move(place[0] + 9, place[1] + 7)
        page.mouse.move(*place, steps=4)
        page.wait_for_timeout(400)
        page.mouse.click(*place)
        expect(page.get_by_text("An empty place")).to_be_visible()
        press(page, "Decode here")
        expect(page.locator(".crystal[data-state=ready]")).to_have_count(1)
        assert page.get_by_test_id("stException").count() == 0


def test_elements_are_chosen_in_the_periodic_table(address: str) -> None:
    with browsing() as watched:
        page = watched.page
        page.goto(f"{address}/latent_map?checkpoint=tiny")
        page.wait_for_selector(".js-plotly-plot .nsewdrag")
        quiet(page)
        page.get_by_text("Filter", exact=True).click()
        element = page.get_by_role("button", name=re.compile("^N(,|$)"))
        element.click()
        shown = page.get_by_text(re.compile(r"\d+ of \d+ shown"))
        expect(shown).to_be_visible()
        expect(element).to_have_attribute("data-state", "wanted")
        some, every = (int(word) for word in shown.inner_text().split() if word.isdigit())
        element.click()
        expect(element).to_have_attribute("data-state", "unwanted")
        expect(page.get_by_text(f"{every - some} of {every} shown")).to_be_visible()


def test_a_generation_is_stopped_while_another_person_looks_at_the_map(address: str) -> None:
    with browsing() as watched:
        mine = watched.page
        theirs = mine.context.browser.new_context().new_page()  # shares nothing with the first
        theirs.set_default_timeout(PATIENCE)
        opened(mine, address, "generate", "Generate")
        mine.get_by_label("How many", exact=True).fill("500")
        mine.get_by_label("How many", exact=True).press("Enter")
        quiet(mine)
        press(mine, "Generate")
        expect(mine.get_by_role("button", name="Stop")).to_be_visible()
        theirs.goto(f"{address}/generate?checkpoint=tiny")
        expect(theirs.get_by_text("Say how many")).to_be_visible()  # not the other's run
        theirs.goto(f"{address}/latent_map?checkpoint=tiny")
        theirs.wait_for_selector(".js-plotly-plot .nsewdrag")
        expect(mine.get_by_role("button", name="Stop")).to_be_visible()  # it went on meanwhile
        press(mine, "Stop")
        expect(mine.get_by_text("Stopped. What was finished by then is kept.")).to_be_visible()
        expect(mine.get_by_text("CIF, zip")).to_be_visible()


def test_a_run_goes_on_while_its_person_is_on_another_page(address: str) -> None:
    with browsing() as watched:
        page = watched.page
        opened(page, address, "generate", "Generate")
        press(page, "Generate")
        expect(page.get_by_role("button", name="Stop")).to_be_visible()
        page.get_by_role("link", name="Library").first.click()
        expect(page.get_by_role("heading", name="Library")).to_be_visible()
        page.get_by_role("link", name="Generate").first.click()
        expect(page.get_by_text("CIF, zip")).to_be_visible()
        expect(page.get_by_text("Crystals", exact=True)).to_be_visible()
        whole_page(page, "generate-1440")


@pytest.mark.parametrize("width", [1440, 800])
def test_a_way_and_an_optimisation(address: str, width: int) -> None:
    with browsing(width) as watched:
        page = watched.page
        opened(page, address, "interpolate", "Walk")
        press(page, "Walk")
        expect(page.get_by_text("CIF, zip")).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        whole_page(page, f"interpolate-{width}")
        opened(page, address, "optimise", "Optimise")
        page.get_by_text("How: Adam").click()
        page.get_by_label("Steps", exact=True).fill("200")
        page.get_by_label("Steps", exact=True).press("Enter")
        quiet(page)
        press(page, "Optimise")
        expect(page.get_by_text("The best of each start")).to_be_visible()
        whole_page(page, f"optimise-{width}")


def test_what_was_kept_is_found_by_a_fresh_app_and_opens_its_page_again(
    environment: dict[str, str], world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CDVAE_LIBRARY", environment["CDVAE_LIBRARY"])
    library.save(
        world.split("test").crystal(0), title="kept before", page="generate",
        provenance={"checkpoint": "tiny", "settings": {"seed": 77}},
    )  # fmt: skip
    with running_app(environment) as address, browsing() as watched:
        page = watched.page
        page.goto(f"{address}/library")
        grid = page.locator("canvas[data-testid=data-grid-canvas]")
        expect(grid).to_be_visible()
        quiet(page)
        box = grid.bounding_box()
        page.mouse.click(box["x"] + 18, box["y"] + 52)  # the box of the first row
        expect(page.get_by_text("Open where it was made")).to_be_visible()
        whole_page(page, "library-1440")
        page.get_by_role("button", name="Open where it was made").click()
        expect(page.get_by_role("heading", name="Generate")).to_be_visible()
        expect(page.get_by_label("Seed", exact=True)).to_have_value("77")
        quiet(page)
        assert "seed=77" in page.url and "checkpoint=tiny" in page.url
