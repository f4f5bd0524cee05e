"""Back to the page that made an entry, with the settings that made it."""

from __future__ import annotations

import streamlit as st

from app.components.goal import restore_goal
from app.components.job_box import forget, same_run
from app.components.pickers import restore_splits
from app.components.reconstruction import forget_reconstruction
from app.components.selection import select, select_place
from app.components.sources import restore_source
from app.components.starts import restore_starts
from app.components.wishes import restore_wishes
from app.services.checkpoints import CheckpointInfo, cdvae_folders, describe
from app.services.library import Entry
from cdvae_core.errors import CdvaeError

PAGES = {
    "generate": "views/generate.py",
    "map": "views/latent_map.py",
    "reconstruction": "views/latent_map.py",
    "trajectory": "views/trajectory.py",
    "interpolate": "views/interpolate.py",
    "optimise": "views/optimise.py",
}
_CONSISTENT = ("generate", "map", "interpolate", "optimise")  # pages with those controls
_SAME = (  # keys of widgets
    "schedule", "seed", "tries", "exchange", "count", "guidance", "target", "way", "between",
    "walk", "length", "starts",
)  # fmt: skip


def reopen(entry: Entry) -> None:
    """Set the widgets of the entry's page; the page itself is opened after this callback."""
    settings = entry.provenance.get("settings", {})
    if entry.page in _CONSISTENT:  # what was kept before there were these
        settings = {"tries": 1, "exchange": False, **settings}
    state = st.session_state
    if not same_run(entry.page, settings):
        forget(entry.page)  # what another run made would stand below these settings
    if entry.page == "reconstruction":
        forget_reconstruction()
    state["checkpoint"] = entry.provenance.get("checkpoint", state.get("checkpoint"))
    for name in _SAME:
        if name in settings:
            state[name] = settings[name]
    if "direction" in settings:
        if "mode" not in settings:  # what was kept before there were three
            settings = {**settings, "mode": "guided" if settings.get("guided") else "ascent"}
        restore_goal(settings)
    if "crystal" in settings:
        select(settings["crystal"])
    if "place" in settings:
        state["view"] = "2D"
        select_place(tuple(settings["place"]))
    if "labels" in settings:
        restore_starts(settings)
    info = _checkpoint(state["checkpoint"])
    if info is not None:
        if "wishes" in settings:
            restore_wishes(info, settings)
        if "splits" in settings:
            restore_splits(info, settings["dataset"], settings["splits"])
        for index, where in enumerate(settings.get("where", ())):
            restore_source(info, f"{entry.page}-{index}", index, where)
        if "ends" in settings:
            state["ends"] = max(2, len(settings["ends"]))
    state["reopened"] = True


def _checkpoint(name: str | None) -> CheckpointInfo | None:
    """None where it is gone or damaged: the page says so."""
    folders = cdvae_folders()
    try:
        return describe(folders[name]) if name in folders else None
    except CdvaeError:
        return None
