"""A periodic table to click: an element is free, then wanted, then unwanted."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from cdvae_core.crystal import SYMBOLS

_HERE = Path(__file__).parent
_component = st.components.v2.component(
    "periodic_table",
    html='<div class="table" role="group"></div>',
    css=(_HERE / "periodic_table.css").read_text(encoding="utf-8"),
    js=(_HERE / "periodic_table.js").read_text(encoding="utf-8"),
)


def periodic_table(
    key: str, present: list[str] | None = None
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Elements that are wanted, and those that are not.

    Args:
        present: which can be chosen; all if None.
    """
    data = {"symbols": SYMBOLS[1:], "present": SYMBOLS[1:] if present is None else present}
    state = st.session_state.get(f"{key}-chosen", {"wanted": [], "unwanted": []})
    data["start"] = state
    found = _component(key=key, data=data, default={"chosen": state}, on_chosen_change=lambda: None)
    chosen = found.chosen or state
    st.session_state[f"{key}-chosen"] = chosen
    allowed = set(data["present"])
    wanted, unwanted = (
        tuple(s for s in chosen.get(kind, ()) if s in allowed) for kind in ("wanted", "unwanted")
    )
    return wanted, unwanted
