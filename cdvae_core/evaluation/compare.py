"""Several reports side by side, with the paper's rows if asked for."""

from __future__ import annotations

import html
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from cdvae_core.errors import ConfigError
from cdvae_core.evaluation import published
from cdvae_core.evaluation.glossary import MEANINGS, counted, shown
from cdvae_core.evaluation.html import FLOOR, INPUT, document, metric_table, svg
from cdvae_core.evaluation.report import FLOOR_NAME, Columns, Figures, Report, noise_floors


def published_for(reports: Sequence[Report]) -> list[tuple[str, Figures]]:
    """The paper's rows for what the reports are about.

    Raises:
        ConfigError: the reports are of several tasks or datasets.
    """
    about = {(report.task, report.meta["cutoffs"]) for report in reports}
    if len(about) > 1:
        raise ConfigError("the reports are of several tasks or cut-offs: compare those of one")
    return list(published.rows(*about.pop()).items())


def table(columns: Columns, published: Sequence[tuple[str, Figures]]) -> str:
    """For the terminal: figures by row, models by column; noise floors last."""
    everything = _all(columns, published)
    names = _names(everything)
    width = max(12, *(len(head) + 2 for head, _ in everything))
    lines = [" " * 34 + "".join(f"{head:>{width}}" for head, _ in everything)]
    for name in names:
        title = MEANINGS[name].title if name in MEANINGS else name
        cells = "".join(f"{shown(name, figures.get(name)):>{width}}" for _, figures in everything)
        lines.append(f"{title:34}{cells}")
    return "\n".join([*lines, *_said(columns, published)])


def page(columns: Columns, published: Sequence[tuple[str, Figures]]) -> str:
    """The same as a document, with a plot of each figure."""
    everything = _all(columns, published)
    heads = [(head, figures, "n") for head, figures in everything]
    names = [
        name
        for name in _names(everything)
        if MEANINGS[name].better and sum(f.get(name) is not None for _, f in everything) > 1
    ]
    rows = -(-len(names) // 4)
    figure = Figure(figsize=(11, 1.9 * rows), layout="constrained")
    axes = np.atleast_1d(figure.subplots(rows, 4)).ravel()
    for axis, name in zip(axes, names, strict=False):
        values = [figures.get(name) for _, figures in everything]
        heights = [np.nan if value is None else value for value in values]
        axis.barh(
            range(len(values)),
            heights,
            color=[FLOOR if h.startswith(FLOOR_NAME) else INPUT for h, _ in everything],
        )
        axis.set_yticks(range(len(values)), [head for head, _ in everything], fontsize=7)
        axis.invert_yaxis()
        axis.tick_params(axis="x", labelsize=7)
        axis.set_title(MEANINGS[name].title, fontsize=9)
        for side in ("top", "right"):
            axis.spines[side].set_visible(False)
    for axis in axes[len(names) :]:
        axis.set_visible(False)
    said = "".join(f"<li>{html.escape(line)}</li>" for line in _said(columns, published))
    body = f"<ul>{said}</ul>{metric_table(heads)}{svg(figure)}"
    return document("Models side by side", body)


def _said(columns: Columns, published: Sequence[tuple[str, Figures]]) -> list[str]:
    """What each column is over: figures of different counts do not compare."""
    lines = [
        f"{head}: {counted(report.counts)}, against {report.meta['reference']}"
        for head, report in columns
    ]
    if published:
        name = columns[0][1].meta["cutoffs"]
        lines.append(
            f"The paper's rows: the whole test split of {name}; 10,000 generated crystals."
        )
    return lines


def _all(columns: Columns, published: Sequence[tuple[str, Figures]]) -> list[tuple[str, Figures]]:
    own: list[tuple[str, Figures]] = [(head, report.metrics) for head, report in columns]
    return [*own, *published, *noise_floors(columns)]


def _names(everything: Sequence[tuple[str, Figures]]) -> list[str]:
    return list(dict.fromkeys(name for _, figures in everything for name in figures))
