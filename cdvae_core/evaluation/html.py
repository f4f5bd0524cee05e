"""`report.html`: one file with its plots inside, to be read, printed and mailed."""

from __future__ import annotations

import html
import io
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cdvae_core.evaluation.glossary import MEANINGS, counted, shown
from cdvae_core.metrics.measure import Measurement

if TYPE_CHECKING:
    from cdvae_core.evaluation.report import Report
    from cdvae_core.evaluation.scoring import Scored

INPUT, REFERENCE, FLOOR = "#0b6e99", "#8a8f98", "#d9822b"
_SYSTEMS = {
    "triclinic": 2, "monoclinic": 15, "orthorhombic": 74, "tetragonal": 142, "trigonal": 167,
    "hexagonal": 194, "cubic": 230,
}  # fmt: skip
_STYLE = """
body{font:16px/1.5 system-ui,sans-serif;color:#1c2127;max-width:60rem;margin:2.5rem auto;
padding:0 1rem}
h1{font-size:1.6rem;margin-bottom:.2rem} h2{font-size:1.15rem;margin-top:2.2rem}
p.lead{color:#5f6b7c;margin-top:0} table{border-collapse:collapse;width:100%}
th{text-align:left;font-weight:600;color:#5f6b7c;font-size:.85rem} td,th{padding:.35rem .6rem;
border-bottom:1px solid #e5e8eb;vertical-align:top} td.n{text-align:right;white-space:nowrap;
font-variant-numeric:tabular-nums} td.floor{color:#a55a12} td small{color:#5f6b7c}
svg{max-width:100%;height:auto} code{background:#f3f5f7;padding:.1rem .3rem;border-radius:3px}
ul{padding-left:1.2rem} @media print{body{margin:0;max-width:none;font-size:12px}}
"""


def page(report: Report, scored: Scored, floor: Scored | None) -> str:
    """The whole document."""
    meta = report.meta
    title = f"{report.task.capitalize()} of {report.name}"
    counts, floors = counted(report.counts), counted(report.floor_counts)
    versions = ", ".join(f"{name} {value}" for name, value in meta["versions"].items())
    lead = f"Against {meta['reference']}: {counts}."
    floor_said = (
        f"The noise floor is the training split scored as if it were a model ({floors}): "
        "differences smaller than its distance from perfect mean nothing."
        if report.noise_floor
        else "There is no noise floor, since the reference is no split of a known dataset."
    )
    return document(
        title,
        f"<p class='lead'>{html.escape(lead)}</p>"
        + metric_table(
            [("value", report.metrics, "n"), ("noise floor", report.noise_floor, "n floor")]
        )
        + f"<p>{html.escape(floor_said)}</p>"
        + _listed(report.notes)
        + "<h2>Distributions</h2>"
        + _distributions(scored, floor)
        + "<h2>What failed</h2>"
        + _failures(scored.table)
        + f"<h2>Made by</h2><p>seed {meta['seed']}, {meta['seconds']} s, cut-offs of "
        f"{meta['cutoffs']}; {html.escape(versions)}</p>",
    )


def document(title: str, body: str) -> str:
    """A page that needs nothing but itself."""
    return (
        "<!doctype html><html lang='en'><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width'>"
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style>"
        f"<body><h1>{html.escape(title)}</h1>{body}</body></html>"
    )


def metric_table(columns: Sequence[tuple[str, dict[str, float | None], str]]) -> str:
    """Figures by row, with what each says; a column is its head, its figures and its class."""
    columns = [column for column in columns if column[1]]
    names = list(dict.fromkeys(name for _, metrics, _ in columns for name in metrics))
    heads = "".join(f"<th>{html.escape(head)}</th>" for head, _, _ in columns)
    rows = []
    for name in names:
        cells = "".join(
            f"<td class='{kind}'>{shown(name, metrics.get(name))}</td>"
            for _, metrics, kind in columns
        )
        meaning = MEANINGS.get(name)
        title, says = (meaning.title, meaning.says) if meaning else (name, "")
        better = f" ({meaning.better} is better)" if meaning and meaning.better else ""
        said = f"{html.escape(title)}<br><small>{html.escape(says + better)}</small>"
        rows.append(f"<tr><td>{said}</td>{cells}</tr>")
    return f"<table><tr><th></th>{heads}</tr>{''.join(rows)}</table>"


def _listed(notes: Sequence[str]) -> str:
    return (
        "<ul>" + "".join(f"<li>{html.escape(note)}</li>" for note in notes) + "</ul>"
        if notes
        else ""
    )


def _distributions(scored: Scored, floor: Scored | None) -> str:
    sides = [("input", scored.measured, INPUT), ("reference", scored.reference, REFERENCE)]
    if floor is not None:
        sides.append(("noise floor", floor.measured, FLOOR))
    sides = [(label, measured, colour) for label, measured, colour in sides if measured]
    figure = Figure(figsize=(9, 5.6), layout="constrained")
    axes = figure.subplots(2, 2)
    _curves(axes[0, 0], sides, lambda one: one.density, "density, g/cm3")
    _bars(axes[0, 1], sides, lambda one: one.num_elements, "elements in a crystal")
    _bars(axes[1, 0], sides, lambda one: one.num_atoms, "atoms in a cell")
    _systems(axes[1, 1], sides)
    axes[0, 0].legend(frameon=False, fontsize=9)
    result = svg(figure)
    rmse = [row["rmse"] for row in scored.table if np.isfinite(row.get("rmse", np.nan))]
    if rmse:
        figure = Figure(figsize=(9, 2.6), layout="constrained")
        axis = figure.subplots()
        axis.hist(rmse, bins=np.linspace(0, 0.5, 51).tolist(), color=INPUT)
        _tidy(axis, "RMSE of matched crystals, (V/N)^(1/3)")
        result += svg(figure)
    return result


Sides = Sequence[tuple[str, Sequence[Measurement], str]]


def _values(measured: Sequence[Measurement], of: Callable[[Measurement], float]) -> np.ndarray:
    values = np.array([of(one) for one in measured], dtype=float)
    return values[np.isfinite(values)]


def _curves(axis: Axes, sides: Sides, of: Callable[[Measurement], float], label: str) -> None:
    everything = np.concatenate([_values(measured, of) for _, measured, _ in sides])
    if not len(everything):
        return
    low, high = np.quantile(everything, (0.0, 0.995))
    edges = np.linspace(low, high, 41)
    for name, measured, colour in sides:
        values = _values(measured, of)
        share = np.histogram(values, edges)[0] / max(1, len(values))
        axis.stairs(share, edges, color=colour, lw=1.6, label=name)
    _tidy(axis, label)


def _bars(axis: Axes, sides: Sides, of: Callable[[Measurement], float], label: str) -> None:
    most = int(max((_values(measured, of).max(initial=0) for _, measured, _ in sides), default=0))
    places, width = np.arange(most + 1), 0.8 / len(sides)
    for i, (_, measured, colour) in enumerate(sides):
        values = _values(measured, of).astype(int)
        share = np.bincount(values, minlength=most + 1) / max(1, len(values))
        axis.bar(places + (i - (len(sides) - 1) / 2) * width, share, width, color=colour)
    axis.set_xlim(0.3, most + 0.7)
    _tidy(axis, label)


def _systems(axis: Axes, sides: Sides) -> None:
    width = 0.8 / len(sides)
    for i, (_, measured, colour) in enumerate(sides):
        groups = _values([one for one in measured if one.spacegroup], lambda one: one.spacegroup)
        system = np.searchsorted(list(_SYSTEMS.values()), groups)
        share = np.bincount(system, minlength=len(_SYSTEMS)) / max(1, len(groups))
        axis.bar(
            np.arange(len(_SYSTEMS)) + (i - (len(sides) - 1) / 2) * width,
            share,
            width,
            color=colour,
        )
    axis.set_xticks(range(len(_SYSTEMS)), list(_SYSTEMS), rotation=30, ha="right", fontsize=8)
    _tidy(axis, "crystal system (spglib, 0.1 Å)")


def _tidy(axis: Axes, label: str) -> None:
    axis.set_xlabel(label, fontsize=9)
    axis.tick_params(labelsize=8)
    axis.set_yticks([])
    for side in ("top", "right", "left"):
        axis.spines[side].set_visible(False)


def svg(figure: Figure) -> str:
    """A figure as an element of the page."""
    target = io.StringIO()
    figure.savefig(target, format="svg")
    return target.getvalue()[target.getvalue().index("<svg") :]


def _failures(table: Sequence[dict[str, Any]], most: int = 100) -> str:
    rows = [(row["id"], row["failures"]) for row in table if row["failures"]]
    if not rows:
        return "<p>Nothing: every crystal could be read and measured.</p>"
    lines = "".join(
        f"<tr><td>{html.escape(str(name))}</td><td>{html.escape(why)}</td></tr>"
        for name, why in rows[:most]
    )
    rest = (
        f"<p>and {len(rows) - most:,} more, in per_structure.parquet</p>"
        if len(rows) > most
        else ""
    )
    return f"<table><tr><th>crystal</th><th>reason</th></tr>{lines}</table>{rest}"
