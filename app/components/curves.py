"""Line charts of the app: one look, a unit on every axis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go
import streamlit as st

PALETTE = ("#0b6b63", "#d98a1f", "#3b5ba9", "#b0307a", "#6aa84f", "#7a4a1e")
MARKS = ("circle", "square", "diamond", "cross", "triangle-up", "x")  # not by colour alone


@dataclass(frozen=True)
class Curve:
    """One line.

    Attributes:
        y: None where unknown.
        dashed: a guess, beside what was measured.
        dots: single values, which are marked and not joined.
    """

    name: str
    y: Sequence[float | None]
    dashed: bool = False
    dots: bool = False


def line_chart(
    curves: Sequence[Curve],
    *,
    key: str,
    x: Sequence[float],
    x_title: str,
    y_title: str,
    height: int = 240,
    points: bool = True,
    guide: float | None = None,
) -> None:
    """Curves over one axis.

    Args:
        points: mark every value; without, thin lines for many.
        guide: a dashed level.
    """
    figure = go.Figure()
    for i, curve in enumerate(curves):
        figure.add_scatter(
            x=list(x), y=list(curve.y), name=curve.name,
            mode="markers" if curve.dots else "lines+markers" if points else "lines",
            line={
                "color": PALETTE[i % len(PALETTE)], "width": 2 if points else 1,
                "dash": "dot" if curve.dashed else "solid",
            },
            marker={"symbol": MARKS[i % len(MARKS)], "size": 7},
        )  # fmt: skip
    if guide is not None:
        figure.add_hline(y=guide, line={"dash": "dash", "color": "#8b989c", "width": 1})
    figure.update_layout(
        height=height, margin={"l": 8, "r": 8, "t": 8, "b": 8}, showlegend=len(curves) > 1,
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        xaxis={"title": x_title}, yaxis={"title": y_title},
    )  # fmt: skip
    names = ", ".join(curve.name for curve in curves)
    config: dict[str, Any] = {"displayModeBar": False}
    st.plotly_chart(figure, key=key, config=config, alt=f"{y_title} against {x_title}: {names}")
