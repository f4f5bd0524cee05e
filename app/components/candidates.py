"""Decoded crystals on a page: a table, a gallery, downloads, and a way into the library."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import streamlit as st

from app.components.crystal_facts import crystal_title
from app.components.crystal_viewer import crystal_view
from app.components.job_box import job_of
from app.services import export, library
from app.services.checkpoints import CheckpointInfo
from app.services.chemistry import pretty
from app.services.colouring import readable, with_unit
from app.services.decoding import Candidate
from cdvae_core.crystal import Crystal
from cdvae_core.data.registry import dataset_spec
from cdvae_core.errors import CdvaeError

PICTURES = 6
GUESS = "The model's own guess from z. Far from the data it is often too good."
JUDGED = "By an independent network, trained apart from this model, on the decoded crystal."
VALID = (
    "By the published rules: no two atoms within 0.5 Å of each other, and charges that can balance."
)
NOVEL = "Unlike every crystal of the training data, by pymatgen's StructureMatcher."


def unit_of(info: CheckpointInfo) -> str:
    """The unit of the checkpoint's property, empty where it is not known."""
    try:
        return dataset_spec(info.dataset or "").properties.get(info.prop or "", "")
    except CdvaeError:
        return ""


def prop_title(info: CheckpointInfo) -> str:
    """The checkpoint's property in words, with its unit."""
    return with_unit(info.prop or "", unit_of(info))


def verdict_words(one: Candidate) -> str:
    """Valid or not, and why not, in a few words."""
    if one.verdict is None:
        return one.problem or "no crystal"
    wrong = [] if one.verdict.structure_valid else ["atoms too close"]
    wrong += [] if one.verdict.composition_valid else ["charges do not balance"]
    return ", ".join(wrong) or "valid"


def candidate_table(
    candidates: Sequence[Candidate],
    info: CheckpointInfo,
    more: Mapping[str, Sequence[Any]] | None = None,
) -> None:
    """One row for each; `more` puts columns in front."""
    unit = f", {unit_of(info)}" if unit_of(info) else ""
    table: dict[str, Sequence[Any]] = dict(more or {})
    table["Name"] = [one.name for one in candidates]
    table["Formula"] = [pretty(one.formula) for one in candidates]
    table["Atoms"] = [None if c.crystal is None else c.crystal.num_atoms for c in candidates]
    table["Verdict"] = [verdict_words(one) for one in candidates]
    help_of = {"Verdict": VALID}
    if any(one.verdict and one.verdict.novel is not None for one in candidates):
        words = {True: "yes", False: "no", None: "–"}
        table["Novel"] = [words[c.verdict.novel if c.verdict else None] for c in candidates]
        help_of["Novel"] = NOVEL
    if info.prop:
        guess = f"Guess{unit}"
        table[guess] = [_rounded(one.guess) for one in candidates]
        help_of[guess] = f"{readable(info.prop)}. {GUESS}"
    if any(one.verdict and one.verdict.prop is not None for one in candidates):
        judged = f"Independent{unit}"
        table[judged] = [_rounded(c.verdict.prop if c.verdict else None) for c in candidates]
        help_of[judged] = f"{readable(info.prop or '')}. {JUDGED}"
    config = {name: st.column_config.Column(help=words) for name, words in help_of.items()}
    height = min(35 * (len(candidates) + 1) + 3, 320)
    st.dataframe(pd.DataFrame(table), hide_index=True, height=height, column_config=config)


def _rounded(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else round(value, 3)


def candidate_card(one: Candidate, key: str, detail: str = "") -> None:
    """A picture, the formula and the verdict of one."""
    if one.crystal is None:
        st.html(f'<p class="hint">No crystal came of it: {one.problem}.</p>')
        return
    crystal_view(one.crystal, key=key, label=one.formula, height=220)
    crystal_title(one.formula, detail or verdict_words(one))


def gallery(candidates: Sequence[Candidate], key: str, columns: int = 3) -> None:
    """The first few as pictures."""
    shown = [one for one in candidates if one.crystal is not None][:PICTURES]
    for first in range(0, len(shown), columns):
        for place, column in enumerate(st.columns(columns, gap="medium")):
            if first + place < len(shown):
                with column:
                    candidate_card(shown[first + place], f"{key}-{first + place}")


def downloads(candidates: Sequence[Candidate], key: str) -> None:
    """All crystals as CIF, POSCAR or extxyz, as they came and symmetrised."""
    crystal_downloads([(c.name, c.crystal) for c in candidates if c.crystal is not None], key)


def crystal_downloads(crystals: Sequence[tuple[str, Crystal]], key: str) -> None:
    """The same for crystals with names."""
    if not crystals:
        return
    kinds = (
        ("CIF, zip", lambda: export.cif_zip(crystals), "cif.zip", "application/zip"),
        ("CIF symmetrised, zip", lambda: export.cif_zip(crystals, symmetrised=True),
         "symmetrised.cif.zip", "application/zip"),
        ("POSCAR, zip", lambda: export.poscar_zip(crystals), "poscar.zip", "application/zip"),
        ("extxyz", lambda: export.extxyz(crystals), "extxyz", "text/plain"),
    )  # fmt: skip
    with st.container(horizontal=True):
        for label, make, suffix, mime in kinds:
            st.download_button(
                label, make, file_name=f"{key}.{suffix}", mime=mime, on_click="ignore",
                icon=":material/download:", key=f"download-{key}-{suffix}",
            )  # fmt: skip


def keep_controls(
    candidates: Sequence[Candidate],
    info: CheckpointInfo,
    page: str,
    settings: dict[str, Any],
    of: str = "",
) -> None:
    """Choose crystals and put them into the library, with how they came to be.

    Args:
        of: added to the names, so that they still say something in the library.
    """
    able = {one.name: one for one in candidates if one.crystal is not None}
    if not able:
        return
    key, job = f"keep-{page}", job_of(page)[0]
    alone = list(able) if len(able) == 1 else []
    same = st.session_state.get(f"{key}-of") is job  # names come again in every run
    earlier = st.session_state.get(key, alone) if same else alone
    st.session_state[f"{key}-of"] = job
    st.session_state[key] = [name for name in earlier if name in able]  # others are sifted out
    with st.container(horizontal=True, vertical_alignment="bottom"):
        chosen = st.multiselect(
            "Keep in the library", list(able), key=key, placeholder="Choose crystals",
            format_func=lambda name: f"{name}: {pretty(able[name].formula)}",
        )  # fmt: skip
        st.button(
            "Save", key=f"save-{page}", disabled=not chosen, icon=":material/bookmark_add:",
            on_click=_save, args=([able[name] for name in chosen], info, page, settings, of),
        )  # fmt: skip
    said = st.session_state.pop(f"saved-{page}", "")
    if said:
        st.toast(said)


def _save(
    chosen: Sequence[Candidate],
    info: CheckpointInfo,
    page: str,
    settings: dict[str, Any],
    of: str,
) -> None:
    try:
        for one in chosen:
            assert one.crystal is not None  # those without one are not offered
            library.save(
                one.crystal,
                title=f"{one.name} {of}".strip(),
                page=page,
                z=one.z,
                provenance=provenance(info, settings),
            )
    except CdvaeError as error:
        st.session_state[f"saved-{page}"] = str(error)
        return
    st.session_state[f"saved-{page}"] = f"{len(chosen)} in the library"
    st.session_state[f"keep-{page}"] = []


def provenance(info: CheckpointInfo, settings: dict[str, Any]) -> dict[str, Any]:
    """What an entry says of how it was made."""
    return {"checkpoint": info.name, "weights": info.weights, "settings": settings}
