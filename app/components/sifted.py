"""Generated crystals, counted and sifted."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from app.components.candidates import NOVEL, VALID
from app.services.decoding import Candidate
from app.services.generate import firsts, tally

_ALL, _VALID, _NEW = "All", "Valid", "Valid, unique and novel"
_UNIQUE = "Unlike every earlier one of this run, by pymatgen's StructureMatcher."


def _firsts(candidates: Sequence[Candidate]) -> list[int]:
    """What was compared once is remembered while the list grows."""
    memory = st.session_state.setdefault("uniques", {})
    first = candidates[0] if candidates else None
    if memory.get("of") is not first:
        memory.clear()
        memory["of"] = first
    return firsts(list(candidates), memory)


def tally_row(candidates: Sequence[Candidate]) -> None:
    """How the crystals stand so far."""
    if not candidates:
        return
    stand = tally(list(candidates), _firsts(candidates))
    with st.container(horizontal=True):
        st.metric("Crystals", f"{stand.count:,}", width="content")
        st.metric("Valid", f"{100 * stand.valid:.0f} %", help=VALID, width="content")
        st.metric("Unique", f"{100 * stand.unique:.0f} %", help=_UNIQUE, width="content")
        novel = "–" if stand.novel is None else f"{100 * stand.novel:.0f} %"
        st.metric("Novel, of the unique", novel, help=NOVEL, width="content")


def sifted(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Those that the person wants to see."""
    which = st.segmented_control(
        "Show", [_ALL, _VALID, _NEW], default=_ALL, required=True, key="sift",
        persist_state="session",
    )  # fmt: skip
    if which == _ALL:
        return list(candidates)
    valid = [i for i, one in enumerate(candidates) if one.verdict and one.verdict.valid]
    if which == _VALID:
        return [candidates[i] for i in valid]
    unique = set(_firsts(candidates))
    new = [candidates[i] for i in valid if i in unique]
    return [one for one in new if one.verdict and one.verdict.novel]
