"""The latent map: every crystal of a split where its latent lies; click one and decode it."""

from __future__ import annotations

import streamlit as st

from app import cache
from app.components.map_chart import map_chart
from app.components.map_controls import colour_picker, find_box
from app.components.map_selection import group_panel, selection_panel
from app.components.page import error_box, page_header
from app.components.pickers import checkpoint_picker, dataset_picker, split_picker
from app.components.reconstruction import reconstruction
from app.components.selection import selected_group, selected_id
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

with error_box():
    job = cache.map_job(info, dataset, splits)
if not finished(job, "Drawing the map", lambda: cache.forget_map(info, dataset, splits)):
    st.stop()
latent_map = job.result
point = latent_map.index_of.get(selected_id() or "")
group = [latent_map.index_of[i] for i in selected_group() if i in latent_map.index_of]

left, right = st.columns([1.45, 1], gap="large")
with left:
    colours = colour_picker(latent_map)
    map_chart(latent_map, colours, key="map", point=point, group=group)
    find_box(latent_map)
with right:
    if len(group) > 1:
        group_panel(latent_map, group)
    else:
        selection_panel(latent_map, point)

if point is not None and len(group) < 2:
    st.divider()
    st.header("From noise back to the crystal", anchor=False)
    split, index = latent_map.locate(point)
    reconstruction(info, split, index)
