"""Back to the page that made an entry, with the settings that made it."""

from __future__ import annotations

import streamlit as st

from app.components.goal import restore_goal
from app.services.library import Entry
from cdvae_core.crystal import SYMBOLS

PAGES = {
    "generate": "views/generate.py",
    "interpolate": "views/interpolate.py",
    "optimise": "views/optimise.py",
}
_SAME = ("schedule", "seed", "count", "guidance", "way", "target")  # keys of widgets


def reopen(entry: Entry) -> None:
    """Set the widgets of the entry's page; the page itself is opened after this callback."""
    settings = entry.provenance.get("settings", {})
    state = st.session_state
    state["checkpoint"] = entry.provenance.get("checkpoint", state.get("checkpoint"))
    for name in _SAME:
        if name in settings:
            state[name] = settings[name]
    wishes = settings.get("wishes", {})
    state["wish-elements-chosen"] = {
        kind: [SYMBOLS[z] for z in wishes.get(kind) or ()] for kind in ("wanted", "unwanted")
    }
    if "direction" in settings:
        restore_goal(settings)
    state["reopened"] = True
