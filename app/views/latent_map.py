"""The latent map: every crystal of a split where its latent lies; click one and decode it."""

from __future__ import annotations

import streamlit as st

from app import cache
from app.components.map_chart import map_chart
from app.components.map_controls import colour_picker, find_box
from app.components.map_filters import map_filters
from app.components.map_place import own_crystal, place_panel
from app.components.map_selection import group_panel, selection_panel
from app.components.page import error_box, page_header
from app.components.pickers import checkpoint_picker, dataset_picker, split_picker
from app.components.reconstruction import reconstruction
from app.components.selection import selected_group, selected_id, selected_place
from app.components.waiting import finished

page_header(
    "Latent map",
    "Each point is a crystal, placed by what the encoder makes of it. Crystals that the model "
    "finds alike lie close together; distances across the map mean little.",
)
with st.container(horizontal=True, vertical_alignment="bottom"):
    info = checkpoint_picker()
    dataset = dataset_picker(info)
    splits = split_picker(dataset)
    flat = st.segmented_control("View", ["2D", "3D"], default="2D", required=True, key="view",
                                persist_state="session") == "2D"  # fmt: skip
which = (info, dataset, splits, 2 if flat else 3)
with error_box():
    job = cache.map_job(*which)
if not finished(job, "Drawing the map", lambda: cache.forget_map(*which)):
    st.stop()
latent_map = job.result
point = latent_map.index_of.get(selected_id() or "")
group = [latent_map.index_of[i] for i in selected_group() if i in latent_map.index_of]
place = selected_place() if flat else None

left, right = st.columns([1.45, 1], gap="large")
with left:
    shown = map_filters(latent_map)
    colours = colour_picker(latent_map, info)
    chart = st.container()
    find_box(latent_map)
    own = own_crystal(latent_map, info) if flat else None
    with chart:
        map_chart(latent_map, colours, key="map", point=point, group=group, shown=shown,
                  place=place, own=own)  # fmt: skip
with right:
    if place is not None:
        place_panel(latent_map, info, place)
    elif len(group) > 1:
        group_panel(latent_map, group)
    else:
        selection_panel(latent_map, point)

if point is not None and len(group) < 2 and place is None:
    st.divider()
    st.header("From noise back to the crystal", anchor=False)
    split, index = latent_map.locate(point)
    reconstruction(info, split, index)
