"""The entries of the library: a table, one of them in full, removing with undo."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pandas as pd
import streamlit as st

from app import cache
from app.components.crystal_facts import crystal_title, facts_panel
from app.components.crystal_viewer import crystal_view
from app.components.restore import PAGES, reopen
from app.services import export, library
from app.services.chemistry import pretty
from app.services.library import Entry
from cdvae_core.errors import CdvaeError

_GONE = "library_gone"  # lists of entries, one for each removal
_WRONG = "library_wrong"


def entry_table(found: Sequence[Entry]) -> list[Entry]:
    """The table; what is marked in it can be removed and taken home. Returns what is marked."""
    table = pd.DataFrame(
        {
            "No.": [e.number for e in found],
            "Formula": [pretty(e.formula) for e in found],
            "Title": [e.title for e in found],
            "Tags": [", ".join(e.tags) for e in found],
            "Page": [e.page for e in found],
            "Checkpoint": [e.provenance.get("checkpoint", "") for e in found],
            "Seed": [e.provenance.get("settings", {}).get("seed") for e in found],
        }
    )
    key = "-".join(["entries", *(str(e.number) for e in found)])  # marks are of rows, not entries
    event = st.dataframe(
        table, hide_index=True, key=key, on_select="rerun", selection_mode="multi-row",
        height=min(35 * (len(found) + 1) + 3, 320),
    )  # fmt: skip
    chosen = [found[i] for i in event.selection.rows if i < len(found)]
    with st.container(horizontal=True):
        st.button("Remove", disabled=not chosen, icon=":material/delete:", on_click=_remove,
                  args=([e.number for e in chosen],))  # fmt: skip
        taken = [(f"{e.number}-{e.formula}", e.crystal) for e in (chosen or found)]
        what = "marked" if chosen else "all"
        st.download_button(f"CIF of {what}, zip", lambda: export.cif_zip(taken), disabled=not taken,
                           file_name="library.cif.zip", on_click="ignore",
                           icon=":material/download:")  # fmt: skip
        st.download_button(f"extxyz of {what}", lambda: export.extxyz(taken), disabled=not taken,
                           file_name="library.extxyz", on_click="ignore",
                           icon=":material/download:")  # fmt: skip
    return chosen


def _remove(numbers: Sequence[int]) -> None:
    try:
        gone = library.remove(numbers)
    except CdvaeError as error:
        st.session_state[_WRONG] = str(error)
    else:
        st.session_state.setdefault(_GONE, []).append(gone)


def undo_bar() -> None:
    """After removals, a way back from each, the last one first."""
    wrong = st.session_state.pop(_WRONG, "")
    if wrong:
        st.error(wrong, icon=":material/error:")
    gone = st.session_state.get(_GONE)
    if gone:
        with st.container(horizontal=True, vertical_alignment="center"):
            st.html(f'<p class="note">{sum(map(len, gone))} removed.</p>')
            st.button("Undo", icon=":material/undo:", on_click=_undo)


def _undo() -> None:
    gone = st.session_state[_GONE]
    library.restore(gone[-1])
    gone.pop()


def entry_panel(entry: Entry) -> None:
    """One entry: picture, facts, words, and how to get back to where it was made."""
    st.divider()
    left, right = st.columns([1, 1], gap="large")
    with left:
        crystal_title(entry.formula, entry.title)
        crystal_view(entry.crystal, key=f"entry-{entry.number}", label=entry.formula, height=330)
    with right:
        facts_panel(cache.crystal_facts(entry.crystal))
        with st.form(f"words-{entry.number}", border=False):
            title = st.text_input("Title", entry.title)
            tags = st.text_input("Tags, separated by commas", ", ".join(entry.tags))
            if st.form_submit_button("Save words"):
                library.retag(entry.number, title, tags.split(","))
                st.rerun()
        if entry.page in PAGES:
            st.button("Open where it was made", icon=":material/open_in_new:", type="primary",
                      on_click=reopen, args=(entry,), key="reopen")  # fmt: skip
            if st.session_state.pop("reopened", False):
                seed = entry.provenance.get("settings", {}).get("seed")
                linked = {} if seed is None else {"seed": str(seed)}
                st.switch_page(PAGES[entry.page], query_params=linked)
        with st.expander("How it was made"):
            st.code(json.dumps(entry.provenance, indent=1, default=str), language="json")
