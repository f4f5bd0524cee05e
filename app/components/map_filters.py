"""Which points of the map are shown: by elements, formula, number of atoms and property."""

from __future__ import annotations

import numpy as np
import streamlit as st

from app.components.periodic_table import periodic_table
from app.services.chemistry import plain
from app.services.colouring import with_unit
from app.services.latent_map import LatentMap
from cdvae_core.crystal import SYMBOLS


def map_filters(of: LatentMap) -> np.ndarray:
    """`[points]`, whether each is shown."""
    shown = np.ones(len(of), dtype=bool)
    with st.expander("Filter", icon=":material/filter_alt:"):
        st.html('<p class="note">Click an element once for crystals that contain it, twice for '
                "those that do not.</p>")  # fmt: skip
        wanted, unwanted = periodic_table("map-elements", sorted(of.elements, key=SYMBOLS.index))
        for symbol in wanted:
            shown &= of.fractions[:, SYMBOLS.index(symbol)] > 0
        for symbol in unwanted:
            shown &= of.fractions[:, SYMBOLS.index(symbol)] == 0
        wanted_text = st.text_input("Formula contains", key="filter-formula", placeholder="TiO3",
                                    width=260)  # fmt: skip
        if wanted_text.strip():
            part = plain(wanted_text).strip().lower()
            shown &= np.array([part in name.lower() for name in of.formulas])
        columns = st.columns(2, gap="large")
        with columns[0]:
            shown &= _within("Atoms in cell", of.num_atoms, 1)
        if of.properties:
            with columns[1]:
                name = of.properties[0]
                title = with_unit(name, of.units.get(name, ""))
                shown &= _within(title, of.prop(name), 0.01)
    if not shown.all():
        st.html(f'<p class="note">{int(shown.sum()):,} of {len(of):,} shown</p>')
    return shown


def _within(label: str, values: np.ndarray, step: float) -> np.ndarray:
    known = values[np.isfinite(values)]
    if not len(known) or known.min() == known.max():
        return np.ones(len(values), dtype=bool)
    low = np.floor(known.min() / step) * step
    high = np.ceil(known.max() / step) * step
    number = int if step == 1 else float
    limits = (number(low), number(high))
    key = f"filter-{label}-{limits}"
    first, last = st.slider(label, *limits, limits, number(step), key=key)
    if (first, last) == limits:
        return np.ones(len(values), dtype=bool)
    return (values >= first) & (values <= last)
