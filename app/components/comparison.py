"""Reports side by side: a table, bars, distributions and crystals."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import streamlit as st
from plotly.subplots import make_subplots

from app import cache
from app.components.crystal_facts import crystal_title
from app.components.crystal_viewer import crystal_view
from app.components.curves import PALETTE
from app.services.chemistry import formula
from app.services.reports import Found, Scale, crystals_of, rows_of
from cdvae_core.evaluation import published
from cdvae_core.evaluation.glossary import MEANINGS, counted, shown
from cdvae_core.evaluation.report import FLOOR_NAME, Report, noise_floors

_DENSEST = 25.0  # g/cm³; osmium has 22.6
_ENERGIES = 5.0  # eV/atom to each side of the middle
_DASHES = ("solid", "dot")
FLOOR_COLOUR, PAPER_COLOUR = "#a9b6b8", "#5c6b70"
REFERENCE_COLOUR = "rgba(140, 155, 160, 0.35)"
_DISTRIBUTIONS = {
    "density": "density, g/cm³", "energy": "energy by the independent network, eV/atom",
    "num_elements": "number of elements",
}  # fmt: skip


def _columns(
    chosen: Sequence[Found], task: str, scale: Scale
) -> dict[str, dict[str, float | None]]:
    """Figures by model: ours, the paper's, and the noise floors."""
    reports = _titled(chosen)
    own = {title: report.metrics for title, report in reports.items()}
    return own | _paper(task, scale) | dict(noise_floors(list(reports.items())))


def _titled(chosen: Sequence[Found]) -> dict[str, Report]:
    """By titles that differ."""
    reports: dict[str, Report] = {}
    for one in chosen:
        title = one.title
        while title in reports:
            title += "′"
        reports[title] = one.report
    return reports


def _paper(task: str, scale: Scale) -> dict[str, dict[str, float | None]]:
    """The published rows, which are of the published test sets only."""
    reference, cutoffs = scale
    return published.rows(task, cutoffs) if reference == f"{cutoffs}:test" else {}


def _names(columns: dict[str, dict[str, float | None]]) -> list[str]:
    return [name for name in MEANINGS if any(name in figures for figures in columns.values())]


def metric_table(chosen: Sequence[Found], task: str, scale: Scale) -> None:
    """Every figure of every model, with its meaning."""
    sizes = {title: report.meta["n"] for title, report in _titled(chosen).items()}
    columns = _columns(chosen, task, scale)
    names = _names(columns)
    table = {
        "Figure": ["Crystals", *(MEANINGS[name].title for name in names)],
        "Better": ["–", *(MEANINGS[name].better or "–" for name in names)],
    }
    for head, figures in columns.items():
        size = f"{sizes[head]:,}" if head in sizes else ""
        table[head] = [size, *(shown(name, figures.get(name)) for name in names)]
    says = [MEANINGS[name].says for name in names]
    table["What it is, and what it hides"] = ["How many were made", *says]
    st.dataframe(
        pd.DataFrame(table), hide_index=True, height=min(35 * (len(names) + 2) + 3, 600),
        column_config={"Figure": st.column_config.Column(pinned=True)},
    )  # fmt: skip
    over = {f"{one.title}: over {counted(one.report.counts)}" for one in chosen}
    with st.expander("What the figures are over"):
        st.markdown("\n".join(f"- {escape(line)}" for line in sorted(over)))
    if _paper(task, scale):
        st.html('<p class="note">The paper generated 10,000 crystals and reconstructed whole test '
                "sets: coverage grows with the number of crystals.</p>")  # fmt: skip


def figures_chart(chosen: Sequence[Found], task: str, scale: Scale) -> None:
    """One figure as bars."""
    columns = _columns(chosen, task, scale)
    names = [n for n in _names(columns) if sum(f.get(n) is not None for f in columns.values()) > 1]
    if not names:
        return
    name = st.selectbox("Draw", names, format_func=lambda n: MEANINGS[n].title, key=f"draw-{task}",
                        width=320)  # fmt: skip
    heads = [head for head, figures in columns.items() if figures.get(name) is not None]
    floors = [one for one in columns if one.startswith(FLOOR_NAME)]
    own = [one for one in columns if one not in floors and not one.endswith("(paper)")]
    colours = [
        FLOOR_COLOUR if head in floors
        else PALETTE[own.index(head) % len(PALETTE)] if head in own else PAPER_COLOUR
        for head in heads
    ]  # fmt: skip
    patterns = ["/" if h in own and own.index(h) >= len(PALETTE) else "" for h in heads]
    factor = 100 if MEANINGS[name].share else 1
    figure = go.Figure(
        go.Bar(x=[factor * (columns[h][name] or 0.0) for h in heads], y=heads, orientation="h",
               marker={"color": colours, "pattern": {"shape": patterns, "fillmode": "overlay"}},
               text=[shown(name, columns[h][name]) for h in heads])
    )  # fmt: skip
    unit = ", %" if MEANINGS[name].share else ""
    figure.update_layout(
        height=60 + 34 * len(heads), margin={"l": 8, "r": 8, "t": 8, "b": 8},
        xaxis={"title": MEANINGS[name].title + unit}, yaxis={"autorange": "reversed"},
    )  # fmt: skip
    st.plotly_chart(figure, key=f"bars-{task}", config={"displayModeBar": False},
                    alt=f"{MEANINGS[name].title} of every model")  # fmt: skip
    st.html(f'<p class="note">{MEANINGS[name].says}</p>')


def distributions(chosen: Sequence[Found], scale: Scale) -> None:
    """What the distances between distributions are over, drawn."""
    titles = list(_titled(chosen))
    tables = [(title, rows_of(one)) for title, one in zip(titles, chosen, strict=True)]
    known = [(title, rows) for title, rows in tables if rows is not None]
    names = [n for n in _DISTRIBUTIONS if any(n in rows for _, rows in known)]
    if not names:
        return
    st.subheader("Distributions", anchor=False)
    figure = make_subplots(cols=len(names), horizontal_spacing=0.07)
    reference = cache.reference(scale)
    left_out = []
    for column, name in enumerate(names, 1):
        values = {title: _finite(name, rows[name]) for title, rows in known if name in rows}
        edges = _edges(name, list(values.values()))
        middle = (edges[1:] + edges[:-1]) / 2
        if name in reference:
            counts, _ = np.histogram(reference[name], edges)
            figure.add_scatter(
                x=middle, y=100 * counts / len(reference[name]), name=scale[0], legendgroup="",
                showlegend=column == 1, mode="lines", fill="tozeroy", fillcolor=REFERENCE_COLOUR,
                line={"width": 0, "shape": "hvh"}, row=1, col=column,
            )  # fmt: skip
        for title, rows in known:
            if title not in values or not len(values[title]):
                continue
            i = titles.index(title)  # the colour that it has among the bars
            counts, _ = np.histogram(values[title], edges)
            figure.add_scatter(
                x=middle, y=100 * counts / len(rows), name=title, legendgroup=title,
                showlegend=title not in {trace.name for trace in figure.data},
                mode="lines", line={"color": PALETTE[i % len(PALETTE)], "shape": "hvh", "width": 2,
                                    "dash": _DASHES[i // len(PALETTE) % len(_DASHES)]},
                row=1, col=column,
            )  # fmt: skip
            left_out += _left_out(title, name, len(rows), len(values[title]), int(counts.sum()))
        figure.update_xaxes(title=_DISTRIBUTIONS[name], row=1, col=column)
    figure.update_yaxes(title="crystals, %", row=1, col=1)
    figure.update_layout(
        height=380, margin={"l": 8, "r": 8, "t": 8, "b": 8},
        legend={"orientation": "h", "y": -0.25, "yanchor": "top"},
    )  # fmt: skip
    st.plotly_chart(figure, key="distributions", config={"displayModeBar": False},
                    alt="Distributions of every model")  # fmt: skip
    if left_out:
        with st.expander("What the curves leave out"):
            st.markdown("\n".join(f"- {escape(line)}" for line in left_out))


def _finite(name: str, column: pd.Series) -> np.ndarray:
    values = column.to_numpy(dtype=float)
    return values[np.isfinite(values) & ((values > 0) | (name == "energy"))]


def _edges(name: str, values: Sequence[np.ndarray]) -> np.ndarray:
    """Bins over what a crystal can have; what a broken one has is said in words."""
    filled = [v for v in values if len(v)]
    if name == "num_elements":
        return np.arange(0.5, max([1.0, *(v.max() for v in filled)]) + 1)
    if name == "density":
        common = max([5.0, *(float(np.quantile(v, 0.99)) for v in filled)])
        return np.linspace(0, min(common, _DENSEST), 51)
    middle = float(np.median([np.median(v) for v in filled])) if filled else 0.0
    return np.linspace(middle - _ENERGIES, middle + _ENERGIES, 51)


def _left_out(title: str, name: str, made: int, known: int, drawn: int) -> list[str]:
    """In words, what of a model is not in its curve."""
    what, words = _DISTRIBUTIONS[name].split(",")[0], []
    if known < made:
        words.append(f"{title}: {made - known:,} of {made:,} have no {what}")
    if drawn < known:
        words.append(f"{title}: {known - drawn:,} of {made:,} lie beyond the axis of {what}")
    return words


def pictures(chosen: Sequence[Found], task: str) -> None:
    """Crystals of one report, as in the paper's Figures 3 and 5."""
    able = [one for one in chosen if one.pictures is not None]
    if not able:
        return
    st.subheader("Original and reconstruction" if task == "reconstruction" else "Crystals",
                 anchor=False)  # fmt: skip
    one = st.selectbox("Of", able, format_func=lambda f: f.title, key=f"pictures-{task}", width=280)
    shown_ = crystals_of(one)[:8]
    for first in range(0, len(shown_), 4):
        for place, column in enumerate(st.columns(4, gap="small")):
            if first + place < len(shown_):
                name, crystal = shown_[first + place]
                with column:
                    title = formula(crystal.atomic_numbers)
                    crystal_view(crystal, key=f"picture-{first + place}", label=title, height=190)
                    crystal_title(title, name)
