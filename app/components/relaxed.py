"""Crystals before and after a relaxation."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import streamlit as st

from app.components.candidates import crystal_downloads
from app.components.crystal_facts import crystal_title
from app.components.crystal_viewer import crystal_view
from app.components.job_box import begin, job_box, job_of
from app.services import relaxing
from app.services.chemistry import formula, pretty
from app.services.decoding import Candidate
from app.services.jobs import Job
from app.services.relaxing import Relaxation

_PAGE = "relax"
_MOST = 50
_WHY = (
    "Move the atoms and the cell to the nearest minimum of CHGNet, a universal potential. It is a "
    "guess as well, and a kind one."
)
_ABSENT = 'Relaxation needs CHGNet: pip install "cdvae[stability]"'


def relaxation(candidates: Sequence[Candidate], made_by: Job) -> None:
    """A button that relaxes the crystals shown, and what came of it.

    Args:
        made_by: the job that made them; what became of another's crystals is not shown.
    """
    crystals = [(one.name, one.crystal) for one in candidates if one.crystal is not None]
    if not relaxing.installed():
        st.html(f'<p class="note">{_ABSENT}</p>')
        return
    first = "the first " if len(crystals) > _MOST else ""
    pressed = st.button(
        f"Relax {first}{min(len(crystals), _MOST)}", icon=":material/compress:", key="relax",
        disabled=not crystals, help=_WHY,
    )  # fmt: skip
    if pressed:
        begin(_PAGE, relaxing.start(crystals[:_MOST]), made_by)
    if job_of(_PAGE)[1] is made_by:
        job_box(_PAGE, "Relaxing", _show)


def _show(job: Job) -> None:
    found: list[Relaxation] = job.items()
    if not found:
        return
    st.dataframe(_table(found), hide_index=True)
    names = [one.name for one in found if one.after is not None]
    if not names:
        return
    chosen = st.selectbox("Look at", names, key="relaxed-shown")
    one = next(one for one in found if one.name == chosen)
    assert one.after is not None  # the others are not offered
    pair = ((one.before, "before"), (one.after, "after"))
    for column, (crystal, when), group in zip(st.columns(2), pair, one.groups, strict=True):
        with column:
            crystal_view(crystal, key=f"relaxed-{when}", label=f"{when} relaxation", height=260)
            crystal_title(formula(crystal.atomic_numbers), f"{when}, {group}")
    crystal_downloads([(o.name, o.after) for o in found if o.after is not None], "relaxed")


def _table(found: Sequence[Relaxation]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "Formula": [pretty(formula(one.before.atomic_numbers)) for one in found],
            "Came to rest": [one.problem or "yes" for one in found],
            "Space group before": [one.groups[0] for one in found],
            "Space group after": [one.groups[1] for one in found],
            "Energy, eV/atom": [_rounded(one.energy) for one in found],
            "Atoms moved, Å": [_rounded(one.moved) for one in found],
            "Volume, %": [_growth(one) for one in found],
        }
    )


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


def _growth(one: Relaxation) -> float | None:
    if one.after is None:
        return None
    return round(100 * (one.after.volume / one.before.volume - 1), 1)
