"""The 3D crystal viewer and trajectory player: the Python side of app/static/crystal_view.js.

A view is a list of frames (`services.scene.Scene.payload`) and, for a run, one value per frame of
each series. The browser plays, scrubs and draws the charts by itself; nothing is sent back.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import streamlit as st

from app.services.scene import elements_of, scene
from cdvae_core.crystal import Crystal

_HERE = Path(__file__).parent
_STATIC = _HERE.parent / "static"
_SCRIPTS = ("crystal_view.js", "charts.js", "scene3d.js")
_VERSION = hashlib.sha256(b"".join((_STATIC / s).read_bytes() for s in _SCRIPTS)).hexdigest()[:12]

# The modules themselves are fetched once from app/static; only these lines travel in messages.
_LOADER = """
export default function (component) {
  const url = new URL("app/static/crystal_view.js?v=%s", document.baseURI).href;
  let close = null, gone = false;
  import(url).then((module) => { if (!gone) close = module.draw(component); }).catch((error) => {
    const root = component.parentElement.querySelector(".crystal");
    root.dataset.state = "failed";
    root.querySelector(".message").textContent = "The viewer could not be loaded: " + error.message;
  });
  return () => { gone = true; close?.(); };
}
"""

_component = st.components.v2.component(
    "crystal_viewer",
    html=(_HERE / "crystal_viewer.html").read_text(encoding="utf-8"),
    css=(_HERE / "crystal_viewer.css").read_text(encoding="utf-8"),
    js=_LOADER % _VERSION,
)


@dataclass(frozen=True)
class Series:
    """One chart beside the player.

    Attributes:
        values: one per frame; None where unknown.
        log: logarithmic axis.
        guide: a value to mark with a dashed line.
    """

    name: str
    unit: str
    values: Sequence[float | None]
    log: bool = False
    guide: float | None = None
    help: str = ""


def crystal_view(crystal: Crystal, *, key: str, label: str, height: int = 360) -> None:
    """One crystal, at rest.

    Args:
        label: what a screen reader says, and the name of a saved picture.
        height: of the 3D view, pixels.
    """
    frames = [scene(crystal).payload()]
    _component(key=key, data=_data(frames, view=_digest(frames), label=label, height=height))


def trajectory_player(
    frames: Sequence[dict[str, Any]],
    *,
    key: str,
    view: str,
    label: str,
    captions: Sequence[str],
    series: Sequence[Series],
    total: int,
    live: bool,
    height: int = 420,
) -> None:
    """A run: frames with a player, charts and the strip of elements.

    Args:
        view: names the run; another name resets the camera and the player.
        captions: one per frame.
        total: frames expected when the run is over, for the charts' x axis.
        live: more frames are to come; the player stays at the last one until someone scrubs.
    """
    _component(
        key=key,
        data=_data(list(frames), view=view, label=label, height=height, captions=captions,
                   series=series, total=total, live=live, strip=True),
    )  # fmt: skip


def film_data(
    frames: Sequence[dict[str, Any]],
    *,
    label: str,
    captions: Sequence[str],
    series: Sequence[Series],
) -> dict[str, Any]:
    """A finished run as the viewer takes it, for a page outside of the app."""
    return _data(list(frames), view="film", label=label, height=460, captions=captions,
                 series=series, total=len(frames), strip=True)  # fmt: skip


def _data(
    frames: list[dict[str, Any]],
    *,
    view: str,
    label: str,
    height: int,
    captions: Sequence[str] = (),
    series: Sequence[Series] = (),
    total: int = 1,
    live: bool = False,
    strip: bool = False,
) -> dict[str, Any]:
    return {
        "view": view, "sig": f"{view}:{len(frames)}:{live}", "frames": frames, "label": label,
        "name": "".join(c if c.isalnum() else "_" for c in label), "height": height,
        "elements": elements_of(frames), "captions": list(captions),
        "series": [asdict(s) | {"values": list(s.values)} for s in series],
        "total": total, "live": live, "strip": strip,
    }  # fmt: skip


def _digest(frames: list[dict[str, Any]]) -> str:
    return hashlib.sha256(json.dumps(frames).encode()).hexdigest()[:16]
