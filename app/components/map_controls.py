"""The controls around the map: what its colours mean, and a search."""

from __future__ import annotations

import streamlit as st

from app import cache
from app.components.selection import select
from app.services import colouring
from app.services.checkpoints import CheckpointInfo
from app.services.colouring import Colouring
from app.services.latent_map import LatentMap, find


def colour_picker(of: LatentMap, info: CheckpointInfo) -> Colouring:
    """What the points are coloured by."""
    errors = cache.errors(info, of)
    options = colouring.choices(of, errors is not None)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        by = st.selectbox(
            "Colour by", options, format_func=colouring.readable, key="colour",
            persist_state="session", width=270,
        )  # fmt: skip
        elements: list[str] = []
        if by == colouring.ELEMENTS:
            elements = st.multiselect(
                "Elements", of.elements, default=of.elements[:4], max_selections=6,
                key=f"elements-{'-'.join(of.elements[:4])}", persist_state="session",
                help="A crystal takes the colour of the first of these that it contains.",
            )  # fmt: skip
    systems = cache.systems(of) if by == colouring.SYSTEM else None
    return colouring.colouring(of, by, elements, systems, info.prop or "", errors)


def find_box(of: LatentMap) -> None:
    """Jump to a crystal by formula or id."""
    columns = st.columns([1, 1.6], vertical_alignment="bottom")
    columns[0].text_input(
        "Find a formula or id", key="find", on_change=_find, args=(of,), placeholder=of.formulas[0]
    )
    missed = st.session_state.pop("find_missed", "")
    text = f"{len(of):,} crystals, UMAP with a fixed seed. Scroll to zoom, drag to move."
    columns[1].html(f'<p class="note">{text}</p>')
    if missed:
        columns[0].warning(
            "No crystal of the splits shown has that formula or id.", icon=":material/search_off:"
        )


def _find(of: LatentMap) -> None:
    text = st.session_state["find"].strip()
    point = find(of, text) if text else None
    if point is not None:
        select(of.ids[point])
    elif text:
        st.session_state["find_missed"] = text
