"""The dashboard: `streamlit run app/main.py`."""

from __future__ import annotations

import sys
from pathlib import Path

import streamlit as st

ICON = str(Path(__file__).parent / "static" / "icon.svg")
sys.path.insert(0, str(Path(__file__).parents[1]))  # `app` is run, not installed

st.set_page_config(page_title="CDVAE", page_icon=ICON, layout="wide")

from app.components.job_box import keep_alive  # noqa: E402

keep_alive()
pages = [
    st.Page("views/home.py", title="Home", default=True),
    st.Page("views/latent_map.py", title="Latent map"),
    st.Page("views/trajectory.py", title="Trajectory"),
    st.Page("views/interpolate.py", title="Interpolate"),
    st.Page("views/optimise.py", title="Optimise"),
    st.Page("views/generate.py", title="Generate"),
    st.Page("views/compare.py", title="Compare"),
    st.Page("views/library.py", title="Library"),
]
st.navigation(pages, position="top").run()
