"""Which prior to draw from, and what the crystals should be like."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import streamlit as st

from app import cache
from app.components.candidates import prop_title
from app.components.periodic_table import periodic_table
from app.services.checkpoints import CheckpointInfo
from app.services.datasets import elements_of
from cdvae_core.crystal import SYMBOLS

if TYPE_CHECKING:
    from cdvae_core.prior import Condition

_PRIORS = {"flow": "Learned flow", "gaussian": "N(0, 1), as in the paper"}
_HELP = (
    "The encoder does not fill N(0, 1). The flow has learned where its latents are, and can be "
    "asked for elements, a number of atoms and a property."
)


def wishes(info: CheckpointInfo) -> tuple[str, Condition, float]:
    """The prior, the condition, and how strongly it is followed."""
    from cdvae_core.prior import Condition

    kinds = list(_PRIORS) if info.has_flow else ["gaussian"]
    with st.container(horizontal=True, vertical_alignment="bottom"):
        prior = st.segmented_control(
            "Prior", kinds, default=kinds[0], required=True, format_func=_PRIORS.__getitem__,
            key=_prior_key(info), help=_HELP, persist_state="session",
        )  # fmt: skip
        atoms = st.number_input(
            "Atoms in cell", 1, info.max_atoms, None, key=f"atoms-{info.name}", width=150,
            placeholder="any", persist_state="session",
        )  # fmt: skip
        if prior == "gaussian":
            return prior, Condition(num_atoms=atoms), 1.0
        prop, training = None, cache.training(info.dataset)
        if info.prop:
            with st.container(horizontal=True, width="content"):
                low = st.number_input(
                    prop_title(info), None, None, None, key=f"wish-{info.name}",
                    width=250, placeholder="any", persist_state="session",
                    help=_range(training.properties.get(info.prop)) if training else None,
                )  # fmt: skip
                high = st.number_input(
                    "up to", None, None, None, key=f"wish-high-{info.name}", width=150,
                    placeholder="same", persist_state="session", disabled=low is None,
                )  # fmt: skip
            if low is not None:
                prop = (low, low) if high is None else (min(low, high), max(low, high))
        guidance = st.slider(
            "How strongly to follow", 1.0, 4.0, 1.5, 0.5, key="guidance", width=200,
            persist_state="session",
            help="Classifier-free guidance: more follows the wishes more and varies less.",
        )  # fmt: skip
    with st.expander("Elements: click once for wanted, twice for unwanted"):
        st.html('<p class="note">A wish, not a rule: the prior leans that way.</p>')
        wanted, unwanted = periodic_table(
            "wish-elements", elements_of(training) if training else None
        )
    numbers = [tuple(SYMBOLS.index(s) for s in chosen) for chosen in (wanted, unwanted)]
    return prior, Condition(prop, atoms, *numbers), guidance


def _ends(kept: float | list[float] | None) -> tuple[float | None, float | None]:
    """What the two boxes showed; a number is what earlier versions kept."""
    if not isinstance(kept, list):
        return kept, None
    low, high = kept
    return low, None if high == low else high


def _range(values: np.ndarray | None) -> str | None:
    if values is None or np.isnan(values).all():
        return None
    low, high = np.nanquantile(values, (0.05, 0.95))
    return (
        f"90 % of the training data lie between {low:.2f} and {high:.2f}. Far beyond, a wish means "
        "nothing to the flow."
    )


def _prior_key(info: CheckpointInfo) -> str:
    return f"prior-{'flow' if info.has_flow else 'none'}"


def restore_wishes(info: CheckpointInfo, settings: dict[str, Any]) -> None:
    """Set the widgets to what a generation was asked for."""
    state, wishes = st.session_state, settings["wishes"]
    if info.has_flow:
        state[_prior_key(info)] = settings["prior"]
    state[f"atoms-{info.name}"] = wishes["num_atoms"]
    low, high = _ends(wishes["prop"])
    state[f"wish-{info.name}"], state[f"wish-high-{info.name}"] = low, high
    state["wish-elements-chosen"] = {
        kind: [SYMBOLS[z] for z in wishes[kind]] for kind in ("wanted", "unwanted")
    }
