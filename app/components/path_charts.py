"""A way through the latent space in pictures and curves."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go
import streamlit as st

from app import cache
from app.components.candidates import candidate_card, prop_title, verdict_words
from app.components.colours import MARK, colours
from app.components.curves import Curve, line_chart
from app.components.map_chart import map_layout
from app.services import interpolate
from app.services.checkpoints import CheckpointInfo
from app.services.decoding import Candidate
from cdvae_core.crystal import SYMBOLS

DRAWN = 5  # crystals of the strip that are drawn: each is a 3D view of its own


def film_strip(candidates: Sequence[Candidate]) -> None:
    """Evenly chosen stops as pictures, the first and the last among them."""
    if not candidates:
        return
    count = min(DRAWN, len(candidates))
    chosen = np.unique(np.linspace(0, len(candidates) - 1, count).round().astype(int))
    for column, place in zip(st.columns(len(chosen), gap="small"), chosen, strict=True):
        with column:
            one = candidates[place]
            candidate_card(one, f"strip-{place}", f"stop {place}, {verdict_words(one)}")


def path_charts(candidates: Sequence[Candidate], info: CheckpointInfo, way: np.ndarray) -> None:
    """Property, lattice, composition and distance from the data along the way."""
    x = list(range(len(candidates)))
    left, right = st.columns(2, gap="large")
    with left:
        if info.prop:
            curves = [Curve("model's guess", [c.guess for c in candidates], dashed=True)]
            judged = [c.verdict.prop if c.verdict else None for c in candidates]
            if any(value is not None for value in judged):
                curves.append(Curve("independent network", judged))
            line_chart(curves, key="path-prop", x=x, x_title="stop", y_title=prop_title(info))
        lengths = np.array(
            [[np.nan] * 3 if c.crystal is None else c.crystal.lengths for c in candidates]
        )
        line_chart(
            [Curve(name, _known(lengths[:, i])) for i, name in enumerate("abc")],
            key="path-lattice", x=x, x_title="stop", y_title="lattice, Å",
        )  # fmt: skip
    with right:
        line_chart(
            composition_curves(candidates), key="path-composition", x=x, x_title="stop",
            y_title="share of atoms",
        )  # fmt: skip
        of = cache.test_map(info)
        if of is not None:
            away = interpolate.distance_from_data(way[: len(candidates)], of.latents)
            line_chart([Curve("distance", away.tolist())], key="path-distance", x=x, x_title="stop",
                       y_title="distance from the data, in z")  # fmt: skip


def composition_curves(candidates: Sequence[Candidate]) -> list[Curve]:
    """The share of each element, the six most frequent."""
    shares = np.zeros((len(candidates), 101))
    for i, one in enumerate(candidates):
        if one.crystal is not None:
            np.add.at(shares[i], one.crystal.atomic_numbers.astype(int), 1 / one.crystal.num_atoms)
    top = np.argsort(-shares.sum(0))[:6]
    return [Curve(SYMBOLS[z], shares[:, z].tolist()) for z in top if shares[:, z].any()]


def path_on_map(info: CheckpointInfo, ways: Sequence[np.ndarray], key: str) -> None:
    """Ways on the map of the test set, each stop where its nearest known latents lie."""
    of = cache.test_map(info)
    if of is None:
        st.html('<p class="note">The latent map is being drawn, or its data are not built.</p>')
        return
    from cdvae_core.latent import carry_over

    figure = go.Figure()
    figure.add_scattergl(
        x=of.places[:, 0], y=of.places[:, 1], mode="markers", name="test crystals",
        marker={"size": 4, "color": colours().quiet}, hoverinfo="skip",
    )  # fmt: skip
    for number, way in enumerate(ways):
        on_map = carry_over(way, of.latents, of.places)
        figure.add_scatter(
            x=on_map[:, 0], y=on_map[:, 1], mode="lines+markers", showlegend=number == 0,
            name="way", text=[f"stop {i}" for i in range(len(on_map))], hoverinfo="text",
            line={"color": MARK, "width": 2}, marker={"size": 7, "color": MARK},
        )  # fmt: skip
    figure.update_layout(**map_layout(of) | {"height": 380})
    st.plotly_chart(figure, key=f"{key}-map", theme=None, config={"displayModeBar": False},
                    alt="The way on the latent map, as UMAP places it")  # fmt: skip
    st.html('<p class="note">On the latent map each stop lies where its nearest known latents do. '
            "UMAP bends what is straight in z.</p>")  # fmt: skip


def _known(values: np.ndarray) -> list[float | None]:
    return [None if np.isnan(v) else float(v) for v in values]
