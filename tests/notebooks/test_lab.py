"""The 3D views of the notebooks: still where no JavaScript runs, else alive and offline."""

from __future__ import annotations

import io
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cdvae_core.crystal import Crystal

sys.path.insert(0, str(Path(__file__).parents[2] / "notebooks"))
import lab

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
PLACES = np.array([[0, 0, 0], [0.5, 0.5, 0.5]])
SALT = Crystal.from_parameters([3.99] * 3, [60] * 3, PLACES, [11, 17])


@pytest.mark.parametrize(
    "made",
    [lab.view(SALT), lab.view(SALT, SALT, titles=["a", "</script>"]), lab.film([SALT] * 7)],
    ids=["one", "two", "film"],
)
def test_a_view_is_a_page_and_a_picture(made: lab.View) -> None:
    bundle = made._repr_mimebundle_()
    image = Image.open(io.BytesIO(bundle["image/png"]))
    assert image.width > 200
    assert len(bundle["image/png"]) < 60_000
    assert bundle["text/html"].count("</script>") == 1  # a title cannot end the script
    assert "http" not in bundle["text/html"]


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed (apt install chromium)")
def test_the_viewer_draws_without_a_network() -> None:
    from playwright.sync_api import sync_playwright

    page_of = [lab._loader(), lab.view(SALT, SALT)._repr_mimebundle_()["text/html"]]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=["--no-sandbox", "--enable-unsafe-swiftshader"],
        )
        page = browser.new_page()
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: pytest.fail(str(error)))
        page.set_content("<html><body>" + "".join(page_of) + "</body></html>")
        page.locator(".crystal[data-state=ready]").nth(1).wait_for(timeout=120_000)
        assert not page.locator("img").first.is_visible()
        assert [url for url in asked if not url.startswith(("data:", "about:", "blob:"))] == []
        browser.close()
