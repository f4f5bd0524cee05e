"""The colours that charts cannot take from the theme by themselves, on light and on dark."""

from __future__ import annotations

from dataclasses import dataclass

import streamlit as st

MARK = "#d2551a"  # what is selected; reads on both


@dataclass(frozen=True)
class Colours:
    """One theme.

    Attributes:
        ink, paper: of text and ground.
        quiet: what is there but not meant.
        edge: of frames and grids.
        scale: of values, even in lightness, its ends apart from the ground.
    """

    ink: str
    paper: str
    quiet: str
    edge: str
    scale: tuple[str, ...]


LIGHT = Colours(
    "#16242a", "#ffffff", "#a9b6b8", "#d3dcdb",
    ("#2b1d63", "#2f4b8f", "#20738b", "#2a9a77", "#86b83f", "#e2b31a"),
)  # fmt: skip
DARK = Colours(
    "#e6eeee", "#0f191d", "#5d6f75", "#2e3f45",
    ("#6a5bc8", "#4b7fca", "#2f9fb5", "#3bba8f", "#9fd052", "#f5d34a"),
)  # fmt: skip


def colours() -> Colours:
    """Of the theme that the person sees."""
    return DARK if st.context.theme.type == "dark" else LIGHT
