"""The report as a page in a real browser: whole, without scripts, asking nobody for anything."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from cdvae_core.crystal import Crystal
from cdvae_core.evaluation import report, scoring
from cdvae_core.evaluation.inputs import Broken, Crystals
from cdvae_core.evaluation.scoring import Judge
from cdvae_core.evaluation.work import Crew, Store

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
NASTY = '<b>no</b> & "volume"'


def perovskites(name: str, count: int, size: float) -> Crystals:
    coords = np.array([[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]])
    items: list[Crystal | Broken] = [
        Crystal(np.array([[56, 38][i % 2], 22, 8, 8, 8]), coords, (size + 0.05 * i) * np.eye(3))
        for i in range(count)
    ]
    return Crystals(name, [f"{name}-{i}" for i in range(count)], items)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A generation with a crystal that is none, and a noise floor."""
    folder = tmp_path_factory.mktemp("report")
    judge = Judge(Crew(jobs=1, quiet=True), "perov_5", 0, "perov_5")
    given, true = perovskites("<given>", 6, 3.9), perovskites("true", 6, 4.0)
    given.items[2] = Broken(NASTY)  # type: ignore[index]
    stores = (Store(folder / "parts"), Store(folder / "parts"))
    scored = scoring.generation(judge, given, true, stores)
    floor = scoring.generation(judge, perovskites("training", 6, 3.95), true, stores)
    made = report.make("generation", given, true, judge, scored, floor, ["A note & more."], 0.0)
    report.write(made, scored, floor, folder)
    return folder / "report.html"


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed (apt install chromium)")
@pytest.mark.parametrize("width", [1200, 420])
def test_it_opens_by_itself(page: Path, width: int) -> None:
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        view = browser.new_page(viewport={"width": width, "height": 900})
        asked: list[str] = []
        said: list[str] = []
        view.on("request", lambda request: asked.append(request.url))
        view.on("console", lambda message: said.append(message.text))
        view.goto(page.as_uri())
        assert asked == [page.as_uri()] and said == []
        assert view.locator("script").count() == 0
        assert view.get_by_text(NASTY).count() == 1  # as text, not as markup
        assert "<given>" in view.locator("h1").inner_text()
        assert view.get_by_text("A note & more.").count() == 1
        for plot in view.locator("svg").all():
            box = plot.bounding_box()
            assert box is not None and box["width"] > 100 and box["height"] > 50
        assert view.locator("svg").count() >= 1
        assert view.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        browser.close()
