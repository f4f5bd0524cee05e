"""What the property should become, and how the ascent goes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import streamlit as st

from app.components.candidates import prop_title
from app.services.checkpoints import CheckpointInfo
from app.services.optimise import Starts

if TYPE_CHECKING:
    from cdvae_core.consistency import Consistency
    from cdvae_core.optimise import Goal

_KINDS = {"Minimise": -1, "Maximise": 1, "Reach a value": 0}
_MODES = {"Ascent in the flow": "flow", "Gradient ascent": "ascent", "Guided draws": "guided"}
_HELP = (
    "Gradient ascent is the paper's: it moves one latent along the slope of the model's own guess, "
    "wherever that leads. In the flow it moves what the flow prior makes the latent of, so that it "
    "stays near the data. Guided draws come from the flow on condition of the property."
)


@dataclass(frozen=True)
class Way:
    """How the goal is approached.

    Attributes:
        mode: "ascent", "flow" or "guided", as in `cdvae optimise`.
        steps, step_size: of the ascent.
        kept: crystals decoded for each start.
    """

    mode: str
    steps: int
    step_size: float
    kept: int


def goal_controls(info: CheckpointInfo) -> tuple[Goal, Way]:
    """The goal, and the way there: by default in the flow, as in the paper where there is none."""
    from cdvae_core.optimise import FLOW_STEP_SIZE, FLOW_STEPS, KEPT, STEP_SIZE, STEPS, Goal

    with st.container(horizontal=True, vertical_alignment="bottom"):
        kind = st.segmented_control(
            prop_title(info), list(_KINDS), default="Minimise", required=True, key="goal",
            persist_state="session",
        )  # fmt: skip
        target = 0.0
        if not _KINDS[kind]:
            target = st.number_input("Value", None, None, 0.0, key="target", width=140,
                                     persist_state="session")  # fmt: skip
        mode = "ascent"
        if info.has_flow:
            first = next(iter(_MODES))
            mode = _MODES[st.segmented_control(
                "How", list(_MODES), default=first, required=True, key="how",
                persist_state="session", help=_HELP,
            )]  # fmt: skip
    if mode == "guided":
        kept = st.number_input("Draws for each start", 1, 50, KEPT, key="draws", width=170,
                               persist_state="session")  # fmt: skip
        return Goal(_KINDS[kind], float(target)), Way(mode, 0, 0.0, int(kept))
    most, far = (FLOW_STEPS, FLOW_STEP_SIZE) if mode == "flow" else (STEPS, STEP_SIZE)
    whose = "" if mode == "flow" else " (the paper's)"
    with st.expander(f"How: Adam; unless changed {most:,} steps of {far:g}, 10 decodings{whose}"):
        columns = st.columns(4)
        steps = columns[0].number_input("Steps", 10, 50_000, most, key=f"steps-{mode}",
                                        persist_state="session")  # fmt: skip
        size = columns[1].number_input("Step size", 1e-5, 1.0, far, format="%.5f",
                                       key=f"size-{mode}", persist_state="session")  # fmt: skip
        kept = columns[2].number_input("Decodings on the way", 1, 50, KEPT, key="kept",
                                       persist_state="session")  # fmt: skip
        weight = columns[3].number_input(
            "Pull to the prior", 0.0, 10.0, 0.0, 0.01, key="pull", persist_state="session",
            help="The weight of |z|²/2 against the property in standard deviations. 0 as in the "
            "paper; more keeps z where the model knows its way.",
        )  # fmt: skip
    goal = Goal(_KINDS[kind], float(target), float(weight))
    return goal, Way(mode, int(steps), float(size), min(int(kept), int(steps)))


def restore_goal(settings: dict[str, Any]) -> None:
    """Set the widgets to what `settings_of` says."""
    state = st.session_state
    state["goal"] = next(k for k, direction in _KINDS.items() if direction == settings["direction"])
    mode = settings["mode"]
    state["how"] = next(words for words, known in _MODES.items() if known == mode)
    if mode == "guided":
        state["draws"] = settings["kept"]
        return
    state["kept"] = settings["kept"]
    state[f"steps-{mode}"], state[f"size-{mode}"] = settings["steps"], settings["step_size"]
    state["pull"] = settings["prior_weight"]


def settings_of(
    info: CheckpointInfo,
    goal: Goal,
    way: Way,
    starts: Starts,
    schedule: str,
    seed: int,
    consistency: Consistency,
    before: Sequence[float | None],
) -> dict[str, Any]:
    """All that a run was started with."""
    return {
        "checkpoint": info.name, "goal": str(goal), "direction": goal.direction,
        "target": goal.target, "prior_weight": goal.prior_weight, **asdict(way),
        "schedule": schedule, "seed": seed, **asdict(consistency),
        "labels": starts.labels, "before": list(before), "where": starts.where,
    }  # fmt: skip
