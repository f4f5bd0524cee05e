"""Where an optimisation begins: one crystal, many of the test set, or nowhere in particular."""

from __future__ import annotations

from typing import Any

import streamlit as st

from app import cache
from app.services.checkpoints import CheckpointInfo
from app.services.optimise import Starts
from cdvae_core.data.cache import find_split

ONE, MANY = "One crystal", "Many test crystals"


def mode() -> str:
    """One start, or many."""
    return st.segmented_control(
        "Begin from", [ONE, MANY], default=ONE, required=True, key="begin", persist_state="session"
    )


def batch_of_starts(info: CheckpointInfo) -> Starts | None:
    """The first crystals of the test set; None, with a word, where it is not built."""
    if info.dataset is None or not find_split(info.dataset, "test"):
        st.html('<p class="note">The test set of this checkpoint is not built.</p>')
        return None
    split = cache.split(info.dataset, "test")
    most = min(100, len(split))
    count = st.slider("Starts", 2, most, min(10, most), key="count-starts", width=320,
                      persist_state="session", help="The paper takes 100.")  # fmt: skip
    titles = cache.titles(info.dataset, "test")[:count]
    z = cache.latents(info, info.dataset, "test", count)
    return Starts(titles, z, [split.crystal(i) for i in range(count)])


def guided_starts() -> Starts:
    """Draws begin nowhere: so many series of them, each with a best one."""
    count = st.slider("Series of draws", 1, 100, 5, key="count-series", width=320,
                      persist_state="session")  # fmt: skip
    return Starts([f"series {i + 1}" for i in range(count)], None, [None] * count)


def restore_starts(settings: dict[str, Any]) -> None:
    """Set the widgets to how many starts a run had; one that is a crystal is set by its picker."""
    state = st.session_state
    if settings["mode"] != "guided":
        state["begin"] = ONE if settings.get("where") else MANY
    state["count-series" if settings["mode"] == "guided" else "count-starts"] = len(
        settings["labels"]
    )
