"""What the notebooks share: one look for plots, and 3D views that need no network.

Plots take their colours from the app. A 3D view is the app's own viewer; beside it every view
carries a static picture, for places where no JavaScript runs.
"""

from __future__ import annotations

import html
import io
import json
import os
import re
import sys
import warnings
from base64 import b64encode
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import plotly.graph_objects as go
import plotly.io as pio
from IPython.display import HTML, display
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from PIL import Image

# UMAP with a seed is serial; workers of numba that it leaves idle spin, and starve torch
os.environ.setdefault("NUMBA_NUM_THREADS", "1")
# tqdm would like another package for its bars; UMAP imports it and shows none
warnings.filterwarnings("ignore", message="IProgress not found")

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # the app is a folder of the repository and not installed

from app.components import curves  # noqa: E402
from app.components.colours import LIGHT  # noqa: E402
from app.components.crystal_viewer import Series, film_data  # noqa: E402
from app.services.scene import Scene, element_style, scene  # noqa: E402
from cdvae_core.crystal import Crystal  # noqa: E402

PALETTE, MARKS = curves.PALETTE, curves.MARKS
CHECKPOINTS = ROOT / "checkpoints"
RESULTS = ROOT / "benchmarks" / "results"
INK, EDGE, QUIET, SCALE = LIGHT.ink, LIGHT.edge, LIGHT.quiet, list(LIGHT.scale)

_STATIC, _COMPONENTS = ROOT / "app" / "static", ROOT / "app" / "components"
_STILLS = 5  # frames of a film in its static picture
_AXES = ("#c2362b", "#2e7d32", "#2457a6")  # a, b, c as in the app
_EDGES = [(i, i | bit, k) for i in range(8) for k, bit in enumerate((4, 2, 1)) if not i & bit]
_PIECES = 10  # of a drawn line
_STYLE = """:host { display: block; flex: 1 1 0; min-width: 15rem; font-family: system-ui;
--st-text-color: #16242a; --st-background-color: #ffffff; --st-secondary-background-color: #eff3f2;
--st-border-color: #d3dcdb; --st-primary-color: #0b6b63; --st-font: system-ui, sans-serif; }
"""


def start() -> None:
    """Set the look of plots, and load the 3D viewer into the notebook, once for all its views."""
    axis = {"gridcolor": EDGE, "zeroline": False, "linecolor": QUIET, "ticks": "outside",
            "tickcolor": QUIET, "showline": True}  # fmt: skip
    pio.templates["cdvae"] = go.layout.Template(
        layout={
            "colorway": PALETTE, "font": {"family": "sans-serif", "size": 13, "color": INK},
            "plot_bgcolor": "#ffffff", "paper_bgcolor": "#ffffff", "xaxis": axis, "yaxis": axis,
            "width": 760, "height": 400, "margin": {"l": 64, "r": 24, "t": 72, "b": 68},
            "colorscale": {"sequential": SCALE},
            "title": {"font": {"size": 15}, "x": 0.02, "y": 0.97, "yanchor": "top"},
            "legend": {"orientation": "h", "x": 0, "y": 1.01, "yanchor": "bottom"},
        }
    )  # fmt: skip
    pio.templates.default = "cdvae"
    pio.renderers.default = "plotly_mimetype"
    display(HTML(_loader()))


def view(*crystals: Crystal, titles: Sequence[str] = ()) -> View:
    """Crystals side by side; turn them with the mouse.

    Args:
        titles: one for each; their formulas if left out.
    """
    titles = list(titles) or [crystal.formula for crystal in crystals]
    return View([[crystal] for crystal in crystals], titles)


def film(
    crystals: Sequence[Crystal],
    captions: Sequence[str] | None = None,
    title: str = "",
    curves: Mapping[str, Sequence[float]] | None = None,
) -> View:
    """Crystals one after the other, with a player.

    Args:
        captions: one for each crystal.
        curves: drawn beside the player, by their names: one value for each crystal.
    """
    captions = captions or [f"frame {i + 1} of {len(crystals)}" for i in range(len(crystals))]
    return View([list(crystals)], [title], captions, curves)


class View:
    """A 3D view and its static picture; Jupyter shows whichever it can."""

    def __init__(
        self,
        rows: list[list[Crystal]],
        titles: Sequence[str],
        captions: Sequence[str] = (),
        curves: Mapping[str, Sequence[float]] | None = None,
    ) -> None:
        self.rows, self.titles, self.captions = rows, list(titles), list(captions)
        self.curves = dict(curves or {})

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        png = self.picture()
        return {"text/html": self._page(png), "image/png": png, "text/plain": self._words()}

    def _words(self) -> str:
        shown = ", ".join(title for title in self.titles if title)
        return f"3D view: {shown}" if shown else "3D view"

    def picture(self) -> bytes:
        """The static picture, PNG; of a film a few frames."""
        if len(self.rows) > 1 or len(self.rows[0]) == 1:
            return picture([scene(row[0]) for row in self.rows], self.titles)
        chosen = np.unique(np.linspace(0, len(self.rows[0]) - 1, _STILLS).round().astype(int))
        stills = [scene(self.rows[0][i]) for i in chosen]
        return picture(stills, [self.captions[i] for i in chosen])

    def _page(self, png: bytes) -> str:
        """Hosts for the viewer; until it has drawn, and where it cannot, the picture."""
        name = f"view-{uuid4().hex[:12]}"
        films = len(self.rows[0]) > 1
        hosts = "".join(f'<div data-place="{i}"></div>' for i in range(len(self.rows)))
        series = [Series(k, "", [float(v) for v in values]) for k, values in self.curves.items()]
        if films and not series:
            series = [Series("frame", "", list(range(1, 1 + len(self.rows[0]))))]
        data = [
            film_data(
                [scene(crystal).payload() for crystal in row],
                label=title or "crystals",
                captions=self.captions or [""],
                series=series,
            )
            | {"height": 420 if films else 300}
            for row, title in zip(self.rows, self.titles, strict=True)
        ]
        heads = _safe(json.dumps([f"<div>{html.escape(title)}</div>" for title in self.titles]))
        still = b64encode(png).decode()
        return (
            f'<div id="{name}"><img alt="{html.escape(self._words())}" '
            f'src="data:image/png;base64,{still}">'
            f'<div class="hosts" style="display:none;gap:1rem;flex-wrap:wrap">{hosts}</div></div>'
            f"<script>(function wait(left) {{ if (window.cdvaeViews) "
            f'window.cdvaeViews("{name}", {heads}, {_safe(json.dumps(data))});'
            f" else if (left) setTimeout(wait, 250, left - 1); }})(40);</script>"
        )


def picture(scenes: Sequence[Scene], titles: Sequence[str], columns: int = 5) -> bytes:
    """Crystals as a PNG, seen as the viewer first shows them."""
    columns = min(columns, len(scenes))
    rows = -(-len(scenes) // columns)
    size = {1: 3.4, 2: 3.2, 3: 2.9}.get(columns, 2.3)
    figure = Figure(figsize=(size * columns, (size + 0.35) * rows), dpi=100, layout="constrained")
    figure.get_layout_engine().set(h_pad=0.1)
    axes = np.atleast_1d(figure.subplots(rows, columns)).ravel()
    for axis in axes:
        axis.set_axis_off()
    for axis, one, title in zip(axes, scenes, titles, strict=False):
        draw(axis, one)
        axis.set_title(title, fontsize=9, color=INK)
    return small_png(figure)


def small_png(figure: Figure) -> bytes:
    """A figure as a PNG of few colours, which is small enough to be committed."""
    raw = io.BytesIO()
    figure.savefig(raw, format="png", facecolor="white")
    return fewer_colours(raw.getvalue())


def fewer_colours(png: bytes) -> bytes:
    made = io.BytesIO()
    image = Image.open(io.BytesIO(png)).convert("RGB")
    image.quantize(192, dither=Image.Dither.NONE).save(made, format="png", optimize=True)
    return made.getvalue()


def draw(axis: Any, one: Scene) -> None:
    """Atoms, bonds and cell on a matplotlib axis, the nearest last."""
    place = one.positions @ _turn().T
    corners = np.array(list(product((0, 1), repeat=3))) @ one.cell @ _turn().T
    styles = [element_style(int(number)) for number in one.numbers]
    radii = np.array([radius for _, _, radius in styles])
    depths = np.concatenate([place[:, 2], corners[:, 2]])
    order = _between(depths.min(), depths.max())
    for low, high, along in _EDGES:
        colour = _AXES[along] if low == 0 else QUIET
        _rod(axis, corners[low], corners[high], colour, 1.1, place, radii, order)
    for i, j in one.bonds:
        half = (place[i] + place[j]) / 2
        for end in (i, j):
            _rod(axis, place[end], half, styles[end][1], 3.2, place, radii, order)
    for (symbol, colour, radius), (x, y, z) in zip(styles, place, strict=True):
        axis.add_patch(Circle((x, y), radius, facecolor=colour, edgecolor=INK, linewidth=0.6,
                              zorder=order(z)))  # fmt: skip
        axis.add_patch(Circle((x - 0.3 * radius, y + 0.3 * radius), 0.28 * radius,
                              facecolor="white", alpha=0.45, linewidth=0,
                              zorder=order(z) + 0.001))  # fmt: skip
        axis.text(x, y, symbol, fontsize=7, ha="center", va="center", zorder=order(z) + 0.002,
                  color="white" if _dark(colour) else INK)  # fmt: skip
    axis.set_aspect("equal")
    axis.autoscale_view()
    axis.margins(0.06)


def _rod(
    axis: Any,
    start: np.ndarray,
    end: np.ndarray,
    colour: str,
    width: float,
    place: np.ndarray,
    radii: np.ndarray,
    order: Any,
) -> None:
    """A line in short pieces, so that atoms can hide parts of it; none inside of an atom."""
    t = np.linspace(0, 1, _PIECES + 1)[:, None]
    ends = start + t * (end - start)
    middles = (ends[1:] + ends[:-1]) / 2
    free = (np.linalg.norm(middles[:, None] - place, axis=-1) > radii).all(1)
    for piece in np.flatnonzero(free):
        axis.plot(*ends[piece : piece + 2, :2].T, color=colour, linewidth=width,
                  zorder=order(middles[piece, 2]), solid_capstyle="round")  # fmt: skip


@cache
def _turn() -> np.ndarray:
    """The first view of the app: c points up, and a little turn shows all three axes."""

    def about(axis: int, degrees: float) -> np.ndarray:
        c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
        i, j = [(1, 2), (2, 0), (0, 1)][axis]
        turn = np.eye(3)
        turn[i, i], turn[i, j], turn[j, i], turn[j, j] = c, -s, s, c
        return turn

    return about(0, 15) @ about(1, -28) @ about(0, -90)


def _between(low: float, high: float) -> Any:
    return lambda z: 2 + 8 * (z - low) / max(high - low, 1e-9)


def _dark(colour: str) -> bool:
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return 0.3 * red + 0.59 * green + 0.11 * blue < 130


def _safe(text: str) -> str:
    """JSON or JavaScript that cannot end the script it stands in."""
    return text.replace("</", "<\\/")


def _loader() -> str:
    """3Dmol and the app's viewer as one script. Half a megabyte, so only once in a notebook."""
    library = _safe((_STATIC / "3Dmol-min.js").read_text(encoding="utf-8"))
    scripts = [
        (_STATIC / name).read_text(encoding="utf-8")
        for name in ("charts.js", "scene3d.js", "crystal_view.js")
    ]
    # no modules here, and the library is there already: nothing is to be fetched
    needless = r'^(import .* from "\./\w+\.js";\n|export |const LIBRARY = .*\n)'
    viewer = _safe(re.sub(needless, "", "\n".join(scripts), flags=re.MULTILINE))
    style = json.dumps(_STYLE + (_COMPONENTS / "crystal_viewer.css").read_text(encoding="utf-8"))
    body = json.dumps((_COMPONENTS / "crystal_viewer.html").read_text(encoding="utf-8"))
    return f"""<script>
(function () {{ var exports, module, define; {library} }}).call(window);
(function () {{ {viewer}
  window.cdvaeViews = function (name, heads, data) {{
    if (!hasWebGL()) return;
    const box = document.getElementById(name), hosts = box.querySelector(".hosts");
    box.querySelector("img").style.display = "none";
    hosts.style.display = "flex";
    Array.from(hosts.children).forEach((host, i) => {{
      const root = host.shadowRoot || host.attachShadow({{ mode: "open" }});
      root.innerHTML = "<style>" + {_safe(style)} + "</style>" + heads[i] + {_safe(body)};
      const scroll = (event) => {{ if (!event.ctrlKey) event.stopPropagation(); }};
      for (const wheel of ["wheel", "mousewheel"])  // alone it scrolls the page, with Ctrl it zooms
        root.addEventListener(wheel, scroll, {{ capture: true, passive: true }});
      draw({{ data: data[i], parentElement: root }});
    }});
  }};
}})();
</script>"""
