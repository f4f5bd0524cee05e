"""What the property should become, and how the ascent goes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import streamlit as st

from app.components.candidates import unit_of
from app.services.checkpoints import CheckpointInfo
from app.services.colouring import readable

if TYPE_CHECKING:
    from cdvae_core.optimise import Goal

_KINDS = {"Minimise": -1, "Maximise": 1, "Reach a value": 0}


def goal_controls(info: CheckpointInfo) -> tuple[Goal, int, float, int]:
    """The goal; steps, step size and number of latents to decode, the paper's by default."""
    from cdvae_core.optimise import KEPT, STEP_SIZE, STEPS, Goal

    unit = unit_of(info)
    name = readable(info.prop or "") + (f", {unit}" if unit else "")
    with st.container(horizontal=True, vertical_alignment="bottom"):
        kind = st.segmented_control(name, list(_KINDS), default="Minimise", required=True,
                                    key="goal", persist_state="session")  # fmt: skip
        target = 0.0
        if not _KINDS[kind]:
            target = st.number_input("Value", None, None, 0.0, key="target", width=140,
                                     persist_state="session")  # fmt: skip
    with st.expander("How: Adam, 5,000 steps of 0.001, 10 decodings, as in the paper"):
        columns = st.columns(4)
        steps = columns[0].number_input("Steps", 10, 50_000, STEPS, key="steps")
        size = columns[1].number_input("Step size", 1e-5, 1.0, STEP_SIZE, format="%.5f", key="size")
        kept = columns[2].number_input("Decodings on the way", 1, 50, KEPT, key="kept")
        weight = columns[3].number_input(
            "Pull to the prior", 0.0, 10.0, 0.0, 0.01, key="pull",
            help="The weight of |z|²/2 against the property in standard deviations. 0 as in the "
            "paper; more keeps z where the model knows its way.",
        )  # fmt: skip
    goal = Goal(_KINDS[kind], float(target), float(weight))
    return goal, int(steps), float(size), min(int(kept), int(steps))
