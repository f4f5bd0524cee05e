"""Library: what was kept on any page, with how it came to be."""

from __future__ import annotations

import streamlit as st

from app.components.library_panels import entry_panel, entry_table, undo_bar
from app.components.page import error_box, page_header
from app.services import library

page_header(
    "Library",
    "Everything that you kept, with the checkpoint, the seed, the settings and the latent that "
    "made it. It stays on this machine.",
)
with error_box():
    undo_bar()
    search = st.text_input("Search", key="search-library", placeholder="formula, tag, page, model",
                           persist_state="session", width=380)  # fmt: skip
    found = library.entries(search)
if not found and not search:
    st.html('<p class="hint">Nothing is kept yet. Every page that makes crystals can put them '
            "here.</p>")  # fmt: skip
    st.stop()
if not found:
    st.html('<p class="hint">No entry has these words.</p>')
    st.stop()
chosen = entry_table(found)
if len(chosen) == 1:
    entry_panel(chosen[0])
st.html(f'<p class="note">The library is {library.place()}</p>')
