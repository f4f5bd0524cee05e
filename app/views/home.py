"""Home: which checkpoint, what it says of itself, its dataset, and where to go from here."""

from __future__ import annotations

import streamlit as st

from app.components.home_panels import (
    card_panel,
    dataset_panel,
    gallery_row,
    metric_panel,
    model_line,
    next_steps,
)
from app.components.page import page_header
from app.components.pickers import checkpoint_picker

page_header(
    "CDVAE",
    "A generative model of crystals. It writes a crystal down as a list of numbers, and it turns "
    "noise back into a crystal by following what it has learned about where atoms belong.",
)
info = checkpoint_picker(width=380)
model_line(info)

gallery_row(info)

left, right = st.columns(2, gap="large")
with left:
    st.header("What to do next", anchor=False)
    next_steps(info)
with right:
    st.header("Dataset", anchor=False)
    dataset_panel(info)

metric_panel(info)
with st.container(width=820):
    card_panel(info)
