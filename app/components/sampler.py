"""The controls that every decoding has."""

from __future__ import annotations

from typing import TYPE_CHECKING

import streamlit as st

from app.services.reconstruct import SCHEDULES
from cdvae_core.config import MAX_SEED

if TYPE_CHECKING:
    from cdvae_core.consistency import Consistency


def sampler_controls() -> tuple[str, int]:
    """The schedule and the seed; the choice holds on every page, the seed is in the URL."""
    schedule = st.selectbox(
        "Schedule", list(SCHEDULES), format_func=SCHEDULES.__getitem__, key="schedule", width=270,
        persist_state="session", help="How many noise levels and steps. Fast is a shortened one.",
    )  # fmt: skip
    seed = st.number_input(
        "Seed", 0, MAX_SEED, key="seed", width=140, bind="query-params", persist_state="session",
        help="The same seed gives the same crystal.",
    )  # fmt: skip
    return schedule, int(seed)


def consistency_controls() -> Consistency:
    """How many decodings of each latent to choose from, and whether to exchange elements."""
    from cdvae_core.consistency import Consistency

    tries = st.number_input(
        "Tries", 1, 16, key="tries", width=110, persist_state="session",
        help="Each latent is decoded so often, and the crystal is kept whose own latent is "
        "nearest. One try often puts two elements in each other's place; eight rarely do.",
    )  # fmt: skip
    exchange = st.toggle(
        "Exchange elements", True, key="exchange", persist_state="session",
        help="Where two elements in each other's place bring the crystal's own latent nearer, they "
        "are exchanged. For a single try: eight leave nothing to mend.",
    )  # fmt: skip
    return Consistency(int(tries), exchange)
