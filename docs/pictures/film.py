"""Draw `film.gif`: two starts from one latent, as the trajectory page plays them.

    python docs/pictures/film.py

Needs Chromium and Pillow (which matplotlib brings).
"""

from __future__ import annotations

import io
import sys
import tempfile
from pathlib import Path

from PIL import Image

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parents[1] / "tests" / "app")]
from browser import browsing, quiet, running_app  # noqa: E402

FRAMES = 36
WIDTH, HEIGHT = 1100, 1400
SHRUNK = 760  # pixels wide
HOLD, LAST = 110, 2200  # ms
_SEEK = "(e, v) => { e.value = v; e.dispatchEvent(new Event('input', {bubbles: true})); }"


def main() -> None:
    shots = []
    with (
        tempfile.TemporaryDirectory() as folder,
        running_app({"CDVAE_LIBRARY": f"{folder}/library.db"}) as address,
        browsing(WIDTH, HEIGHT) as watched,
    ):
        page = watched.page
        page.goto(f"{address}/trajectory?checkpoint=perov_like")
        quiet(page)
        page.get_by_role("button", name="Run").click()
        page.get_by_role("button", name="Film 1, HTML").wait_for()
        quiet(page)
        players = page.locator('input[aria-label="Frame"]')
        boxes = [one.bounding_box() for one in page.locator(".crystal").all()]
        left, right = boxes[0], boxes[-1]
        assert left is not None and right is not None
        clip = {
            "x": left["x"] - 8, "y": left["y"] - 56, "width": right["x"] + right["width"]
            - left["x"] + 16, "height": left["height"] + 64,
        }  # fmt: skip
        last = int(players.first.get_attribute("max") or 0)
        for i in range(FRAMES + 1):
            for player in players.all():
                player.evaluate(_SEEK, round(last * i / FRAMES))
            page.wait_for_timeout(900)
            shot = page.screenshot(clip=clip, full_page=True)
            shots.append(Image.open(io.BytesIO(shot)).convert("RGB"))
    height = round(shots[0].height * SHRUNK / shots[0].width)
    frames = [shot.resize((SHRUNK, height), Image.Resampling.LANCZOS) for shot in shots]
    palette = frames[-1].quantize(192)
    flat = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    flat[0].save(
        HERE / "film.gif", save_all=True, append_images=flat[1:], loop=0, optimize=True,
        duration=[HOLD] * FRAMES + [LAST],
    )  # fmt: skip
    print(f"film.gif, {(HERE / 'film.gif').stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
