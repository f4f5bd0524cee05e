"""The scatter of a latent map: colours, the mark of the selected crystal, clicks and lassos."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import plotly.graph_objects as go
import streamlit as st

from app.components.colours import MARK, colours
from app.components.curves import PALETTE
from app.components.selection import select, select_group, select_place
from app.services.chemistry import pretty
from app.services.colouring import Colouring
from app.services.latent_map import LatentMap

HEIGHT = 600
NOWHERE, HIDDEN = -1, -2
_FONT = "Source Sans, sans-serif"
_CONFIG = {
    "scrollZoom": True,
    "displaylogo": False,
    "displayModeBar": True,
    "modeBarButtonsToRemove": ["select2d", "zoom2d", "autoScale2d", "toImage"],
}


def frame() -> dict[str, Any]:
    """An axis of a map: a frame without numbers, since its coordinates mean nothing."""
    return {
        "showgrid": False, "zeroline": False, "showticklabels": False, "ticks": "",
        "showline": True, "mirror": True, "linecolor": colours().edge, "title": None,
    }  # fmt: skip


def map_chart(
    of: LatentMap,
    colouring: Colouring,
    *,
    key: str,
    point: int | None,
    group: Sequence[int] = (),
    shown: np.ndarray | None = None,
    place: tuple[float, float] | None = None,
    own: np.ndarray | None = None,
) -> None:
    """Draw the map; a click or a lasso changes the selection before the next run of the page.

    Args:
        point: the selected point, marked with a ring.
        group: points of a lasso; all others are greyed.
        shown: `[points]`, which are drawn; all if None.
        place: an empty place that was clicked, marked with a cross.
        own: where the person's own crystal lies, marked with a star.
    """
    figure = map_figure(of, colouring, point, group, shown)
    if of.places.shape[1] == 2:
        _mark(figure, place, "cross-thin", "clicked place")
        _mark(figure, own, "star", "your crystal")
    st.plotly_chart(
        figure, key=f"{key}-{of.places.shape[1]}", theme=None, config=_CONFIG,
        selection_mode=("points", "lasso"),
        on_select=lambda: _take(of, st.session_state[f"{key}-{of.places.shape[1]}"]),
        alt=f"Map of {len(of)} latents, coloured by {colouring.title}",
    )  # fmt: skip


def _take(of: LatentMap, event: Any) -> None:
    points = event["selection"]["points"]
    places = list(dict.fromkeys(int(np.ravel(p["customdata"])[0]) for p in points))
    chosen = [i for i in places if i >= 0]
    if len(chosen) == 1:
        select(of.ids[chosen[0]])
    elif chosen:
        select_group([of.ids[i] for i in chosen])
    elif len(points) == 1:
        select_place((float(points[0]["x"]), float(points[0]["y"])))


def _mark(
    figure: go.Figure, at: Sequence[float] | np.ndarray | None, symbol: str, name: str
) -> None:
    if at is None:
        return
    marker = {"symbol": symbol, "size": 16, "color": MARK, "line": {"width": 2, "color": MARK}}
    figure.add_scattergl(
        x=[float(at[0])], y=[float(at[1])], customdata=[NOWHERE], mode="markers", marker=marker,
        name=name, showlegend=True, hoverinfo="name", selected={"marker": {"opacity": 1}},
        unselected={"marker": {"opacity": 1}},
    )  # fmt: skip


def map_figure(
    of: LatentMap,
    colouring: Colouring,
    point: int | None,
    group: Sequence[int],
    shown: np.ndarray | None = None,
) -> go.Figure:
    """The figure; each point carries its index in `customdata`, an empty place -1."""
    caught = np.zeros(len(of), dtype=bool)
    caught[list(group)] = True
    if shown is not None and not shown.all():
        colouring = _only(colouring, shown)
    figure = go.Figure()
    if of.places.shape[1] == 2:
        empty = of.empty_places
        figure.add_scattergl(
            x=empty[:, 0], y=empty[:, 1], customdata=np.full(len(empty), NOWHERE), mode="markers",
            marker={"size": 9, "color": "rgba(255, 255, 255, 0.01)"}, hoverinfo="none",
            showlegend=False, name="empty",
        )  # fmt: skip
    if colouring.values is not None:
        _add_values(figure, of, colouring, caught)
    else:
        _add_classes(figure, of, colouring, caught)
    if point is not None:
        _ring(figure, of, point)
    figure.update_layout(**map_layout(of))
    if colouring.values is not None:
        figure.update_layout(legend={"x": 1, "xanchor": "right"})  # the colour bar has the left
    return figure


def _only(colouring: Colouring, shown: np.ndarray) -> Colouring:
    """The same colours, with what is not shown taken out."""
    if colouring.values is not None:
        return replace(colouring, values=np.where(shown, colouring.values, np.inf))
    assert colouring.classes is not None
    return replace(colouring, classes=np.where(shown, colouring.classes, HIDDEN))


def _ring(figure: go.Figure, of: LatentMap, point: int) -> None:
    ring = {"symbol": "circle-open", "size": 19, "color": MARK, "line": {"width": 3}}
    if of.places.shape[1] == 3:
        x, y, z = ([v] for v in of.places[point])
        figure.add_scatter3d(x=x, y=y, z=z, mode="markers", marker={**ring, "size": 9},
                             name="selected", showlegend=False, hoverinfo="skip")  # fmt: skip
        return
    x, y = of.places[point]
    figure.add_scattergl(
        x=[x], y=[y], customdata=[point], mode="markers", marker=ring, name="selected",
        showlegend=False, hoverinfo="skip", selected={"marker": {"opacity": 1}},
        unselected={"marker": {"opacity": 1}},
    )  # fmt: skip


def _add_values(figure: go.Figure, of: LatentMap, colouring: Colouring, caught: np.ndarray) -> None:
    values = colouring.values
    assert values is not None
    known = np.isfinite(values)
    unknown = np.isnan(values)
    if unknown.any():
        _add(figure, of, np.flatnonzero(unknown), caught, "unknown", {"color": colours().quiet})
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
        "colorscale": list(colours().scale), "colorbar": bar,
    }  # fmt: skip
    _add(figure, of, np.flatnonzero(known), caught, colouring.title, marker, values[known])


def _add_classes(
    figure: go.Figure, of: LatentMap, colouring: Colouring, caught: np.ndarray
) -> None:
    others = np.flatnonzero(colouring.classes == -1)
    if len(others):
        _add(figure, of, others, caught, "others", {"color": colours().quiet, "opacity": 0.55})
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
    edge = {"width": 0.6 if len(of) <= 5000 else 0, "color": colours().paper}
    if places.shape[1] == 3:
        figure.add_scatter3d(
            x=places[:, 0], y=places[:, 1], z=places[:, 2], name=name, mode="markers",
            text=[pretty(of.formulas[i]) for i in members], hovertemplate=shown,
            marker={"size": 3, "opacity": 0.9} | marker, showlegend=values is None,
        )  # fmt: skip
        return
    figure.add_scattergl(
        x=places[:, 0], y=places[:, 1], customdata=members.astype(np.int32), name=name,
        text=[pretty(of.formulas[i]) for i in members], hovertemplate=shown, mode="markers",
        marker={"size": _size(len(of)), "opacity": 0.9, "line": edge} | marker,
        selectedpoints=np.flatnonzero(caught[members]) if caught.any() else None,
        unselected={"marker": {"opacity": 0.25, "color": colours().quiet}},
        selected={"marker": {"opacity": 1}}, showlegend=values is None,
    )  # fmt: skip


def _size(points: int) -> float:
    return float(np.clip(22 - 4.4 * np.log10(max(points, 10)), 3.5, 11))


def map_layout(of: LatentMap) -> dict[str, Any]:
    """Axes, colours and legend of a map."""
    legend = {
        "orientation": "h", "x": 0, "xanchor": "left", "y": 1.01, "yanchor": "bottom",
        "itemsizing": "constant", "font": {"size": 14}, "title": {"text": ""},
    }  # fmt: skip
    theme = colours()
    font = {"family": _FONT, "size": 14, "color": theme.ink}
    hover = {"bgcolor": theme.paper, "bordercolor": theme.edge, "font": font}
    return {
        "height": HEIGHT, "margin": {"l": 2, "r": 2, "t": 44, "b": 2}, "legend": legend,
        "xaxis": frame(), "yaxis": frame(),
        "plot_bgcolor": theme.paper, "paper_bgcolor": "rgba(0,0,0,0)",
        "font": font, "hoverlabel": hover, "dragmode": "pan",
        "clickmode": "event+select", "uirevision": f"{len(of)}:{float(of.places[0, 0]):.5f}",
        "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": theme.quiet, "activecolor": theme.ink},
        "scene": {name: {"showticklabels": False, "title": "", "backgroundcolor": theme.paper,
                         "gridcolor": theme.edge} for name in ("xaxis", "yaxis", "zaxis")},
    }  # fmt: skip
