"""The scatter of a latent map: colours, the mark of the selected crystal, clicks and lassos."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
import streamlit as st

from app.components.selection import select, select_group
from app.services.chemistry import pretty
from app.services.colouring import Colouring
from app.services.latent_map import LatentMap

HEIGHT = 600
INK, QUIET, EDGE, MARK = "#16242a", "#a9b6b8", "#d3dcdb", "#c8460b"
PALETTE = ("#0b6b63", "#d98a1f", "#3b5ba9", "#b0307a", "#6aa84f", "#7a4a1e")
SCALE = ["#2b1d63", "#2f4b8f", "#20738b", "#2a9a77", "#86b83f", "#e2b31a"]  # even in lightness
_FONT = "Source Sans, sans-serif"
_CONFIG = {
    "scrollZoom": True,
    "displaylogo": False,
    "displayModeBar": True,
    "modeBarButtonsToRemove": ["select2d", "zoom2d", "autoScale2d", "toImage"],
}


def map_chart(
    of: LatentMap,
    colouring: Colouring,
    *,
    key: str,
    point: int | None,
    group: Sequence[int] = (),
) -> None:
    """Draw the map; a click or a lasso changes the selection before the next run of the page.

    Args:
        point: the selected point, marked with a ring.
        group: points of a lasso; all others are greyed.
    """
    figure = map_figure(of, colouring, point, group)
    st.plotly_chart(
        figure, key=key, theme=None, config=_CONFIG, selection_mode=("points", "lasso"),
        on_select=lambda: _take(of, st.session_state[key]),
        alt=f"Map of {len(of)} latents, coloured by {colouring.title}",
    )  # fmt: skip


def _take(of: LatentMap, event: Any) -> None:
    points = event["selection"]["points"]
    chosen = list(dict.fromkeys(int(np.ravel(p["customdata"])[0]) for p in points))
    if len(chosen) == 1:
        select(of.ids[chosen[0]])
    elif chosen:
        select_group([of.ids[i] for i in chosen])


def map_figure(
    of: LatentMap, colouring: Colouring, point: int | None, group: Sequence[int]
) -> go.Figure:
    """The figure; each point carries its index in `customdata`."""
    caught = np.zeros(len(of), dtype=bool)
    caught[list(group)] = True
    figure = go.Figure()
    if colouring.values is not None:
        _add_values(figure, of, colouring, caught)
    else:
        _add_classes(figure, of, colouring, caught)
    if point is not None:
        x, y = of.places[point]
        ring = {"symbol": "circle-open", "size": 19, "color": MARK, "line": {"width": 3}}
        figure.add_scattergl(
            x=[x], y=[y], customdata=[point], mode="markers", marker=ring, name="selected",
            showlegend=False, hoverinfo="skip", selected={"marker": {"opacity": 1}},
            unselected={"marker": {"opacity": 1}},
        )  # fmt: skip
    figure.update_layout(**_layout(of))
    return figure


def _add_values(figure: go.Figure, of: LatentMap, colouring: Colouring, caught: np.ndarray) -> None:
    values = colouring.values
    known = np.isfinite(values)
    if not known.all():
        _add(figure, of, np.flatnonzero(~known), caught, "unknown", {"color": QUIET})
    if not known.any():
        return
    low, high = np.quantile(values[known], (0.01, 0.99))
    bar = {
        "orientation": "h", "thickness": 10, "len": 0.5, "x": 0, "xanchor": "left", "y": 1.005,
        "yanchor": "bottom", "outlinewidth": 0, "nticks": 5, "tickfont": {"size": 13},
        "ticksuffix": f" {colouring.unit}", "showticksuffix": "last",
    }  # fmt: skip
    marker = {
        "color": values[known], "cmin": float(low), "cmax": float(max(high, low + 1e-6)),
        "colorscale": SCALE, "colorbar": bar,
    }  # fmt: skip
    _add(figure, of, np.flatnonzero(known), caught, colouring.title, marker, values[known])


def _add_classes(
    figure: go.Figure, of: LatentMap, colouring: Colouring, caught: np.ndarray
) -> None:
    others = np.flatnonzero(colouring.classes < 0)
    if len(others):
        _add(figure, of, others, caught, "others", {"color": QUIET, "opacity": 0.55})
    for place, name in enumerate(colouring.names):
        members = np.flatnonzero(colouring.classes == place)
        if len(members):
            _add(figure, of, members, caught, name, {"color": PALETTE[place % len(PALETTE)]})


def _add(
    figure: go.Figure,
    of: LatentMap,
    members: np.ndarray,
    caught: np.ndarray,
    name: str,
    marker: dict[str, Any],
    values: np.ndarray | None = None,
) -> None:
    shown = (
        "%{text}<br>%{marker.color:.3g}<extra></extra>"
        if values is not None
        else (f"%{{text}}<br>{name}<extra></extra>")
    )
    places = of.places[members].astype(np.float32)
    edge = {"width": 0.6 if len(of) <= 5000 else 0, "color": "#ffffff"}
    figure.add_scattergl(
        x=places[:, 0], y=places[:, 1], customdata=members.astype(np.int32), name=name,
        text=[pretty(of.formulas[i]) for i in members], hovertemplate=shown, mode="markers",
        marker={"size": _size(len(of)), "opacity": 0.9, "line": edge} | marker,
        selectedpoints=np.flatnonzero(caught[members]) if caught.any() else None,
        unselected={"marker": {"opacity": 0.25, "color": QUIET}},
        selected={"marker": {"opacity": 1}}, showlegend=values is None,
    )  # fmt: skip


def _size(points: int) -> float:
    return float(np.clip(22 - 4.4 * np.log10(max(points, 10)), 3.5, 11))


def _layout(of: LatentMap) -> dict[str, Any]:
    axis = {
        "showgrid": False, "zeroline": False, "showticklabels": False, "ticks": "",
        "showline": True, "mirror": True, "linecolor": EDGE, "title": None,
    }  # fmt: skip
    legend = {
        "orientation": "h", "x": 0, "xanchor": "left", "y": 1.01, "yanchor": "bottom",
        "itemsizing": "constant", "font": {"size": 14}, "title": {"text": ""},
    }  # fmt: skip
    font = {"family": _FONT, "size": 14, "color": INK}
    hover = {"bgcolor": "#ffffff", "bordercolor": EDGE, "font": font}
    return {
        "height": HEIGHT, "margin": {"l": 2, "r": 2, "t": 44, "b": 2}, "xaxis": axis, "yaxis": axis,
        "plot_bgcolor": "#ffffff", "paper_bgcolor": "rgba(0,0,0,0)", "legend": legend,
        "font": font, "hoverlabel": hover, "dragmode": "pan",
        "clickmode": "event+select", "uirevision": f"{len(of)}:{float(of.places[0, 0]):.5f}",
        "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": QUIET, "activecolor": INK},
    }  # fmt: skip
