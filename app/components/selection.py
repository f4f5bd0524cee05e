"""The selected crystal: one id, the same for the map, the pictures, the search box and the URL."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

_ID, _GROUP, _PARAMETER = "selected_crystal", "selected_group", "crystal"
_PLACE = "selected_place"
_WRITTEN = "selected_crystal_in_url"  # what this session put there itself


def selected_id() -> str | None:
    """The id of the selected crystal; a link that brings one decides. Keeps the URL up to date."""
    linked = st.query_params.get(_PARAMETER)
    if linked is not None and linked != st.session_state.get(_WRITTEN):
        select(linked)
    chosen = st.session_state.get(_ID)
    if chosen is not None and linked != chosen:
        st.query_params[_PARAMETER] = chosen
    st.session_state[_WRITTEN] = chosen
    return chosen


def select(identifier: str) -> None:
    """Select one crystal; a lasso's group is let go."""
    st.session_state[_ID] = identifier
    st.session_state[_GROUP] = ()
    st.session_state[_PLACE] = None


def selected_group() -> tuple[str, ...]:
    """The ids inside the last lasso, none after a single click."""
    return st.session_state.get(_GROUP, ())


def select_group(identifiers: Sequence[str]) -> None:
    """Select what a lasso caught; its first crystal becomes the selected one."""
    st.session_state[_ID] = identifiers[0]
    st.session_state[_GROUP] = tuple(identifiers)
    st.session_state[_PLACE] = None


def selected_place() -> tuple[float, float] | None:
    """An empty place of the map that was clicked last, None after a click on a crystal."""
    return st.session_state.get(_PLACE)


def select_place(place: tuple[float, float]) -> None:
    """Select an empty place; the selected crystal stays."""
    st.session_state[_PLACE] = place
