"""What is known of the selected crystal, or of the crystals in a lasso."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from app import cache
from app.components.crystal_facts import crystal_title, facts_panel, small_title
from app.components.crystal_viewer import crystal_view
from app.components.selection import select
from app.services import export
from app.services.chemistry import pretty
from app.services.colouring import readable, with_unit
from app.services.latent_map import LatentMap, neighbours

PICTURES = 4  # crystals of a lasso that are drawn; each is a 3D view of its own


def selection_panel(of: LatentMap, point: int | None) -> None:
    """One crystal: picture, facts and its neighbours in latent space."""
    if point is None:
        st.html(
            '<p class="hint">Click a point to see its crystal and to watch the model rebuild it '
            "from noise. Draw a lasso to compare several.</p>"
        )
        st.button("Show me one", on_click=select, args=(of.ids[len(of) // 2],))
        return
    crystal, name = of.crystal(point), of.ids[point]
    crystal_title(of.formulas[point], f"{of.split_names[point]}, {name}")
    crystal_view(crystal, key="selected", label=of.formulas[point], height=330)
    facts_panel(cache.crystal_facts(crystal), _properties(of, point))
    st.html('<p class="note">Nearest in latent space</p>')
    with st.container(horizontal=True, gap="small"):
        for other, distance in neighbours(of, point):
            st.button(
                pretty(of.formulas[other]), key=f"near-{other}", on_click=select,
                args=(of.ids[other],), help=f"{of.ids[other]}, distance {distance:.2f} in z",
            )  # fmt: skip


def _properties(of: LatentMap, point: int) -> list[tuple[str, str]]:
    rows = []
    for name in of.properties:
        value = float(of.prop(name)[point])
        shown = f"{value:.3f} {of.units.get(name, '')}" if value == value else "unknown"
        rows.append((readable(name), shown.strip()))
    return rows


def group_panel(of: LatentMap, group: list[int]) -> None:
    """Several crystals: the first few as pictures, all of them as a table."""
    drawn = min(len(group), PICTURES)
    more = f", the first {drawn} drawn" if len(group) > drawn else ""
    small_title(f"{len(group):,} crystals", f"in the lasso{more}")
    columns = st.columns(2)
    for place, point in enumerate(group[:drawn]):
        with columns[place % 2]:
            name = of.formulas[point]
            crystal_view(of.crystal(point), key=f"group-{place}", label=name, height=190)
            st.button(pretty(name), key=f"pick-{place}", on_click=select, args=(of.ids[point],))
    table = {
        "Formula": [pretty(of.formulas[i]) for i in group],
        "Id": [of.ids[i] for i in group],
        "Atoms": of.num_atoms[group],
        "Density, g/cm³": of.density[group].round(2),
    }
    for name in of.properties:
        title = with_unit(name, of.units.get(name, ""))
        table[title] = of.prop(name)[group].round(3)
    height = min(35 * (len(group) + 1) + 3, 230)  # a row has 35 pixels
    frame = pd.DataFrame(table)
    st.dataframe(frame, hide_index=True, height=height)
    named = [(of.ids[i], of.crystal(i)) for i in group]
    with st.container(horizontal=True):
        st.download_button(
            "CSV", lambda: frame.to_csv(index=False), file_name="lasso.csv", mime="text/csv",
            on_click="ignore", icon=":material/download:",
        )  # fmt: skip
        st.download_button(
            "CIF, zip", lambda: export.cif_zip(named), file_name="lasso.cif.zip",
            mime="application/zip", on_click="ignore", icon=":material/download:",
        )  # fmt: skip
