"""Choosing a checkpoint, a dataset and its splits; the choice holds on every page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import streamlit as st

from app.components.page import error_box
from app.services import checkpoints
from app.services.checkpoints import CheckpointInfo
from app.services.datasets import ready_datasets
from cdvae_core.data.cache import find_split
from cdvae_core.data.registry import SPLITS
from cdvae_core.errors import CheckpointError, DatasetError

_PARAMETER = "checkpoint"
_WRITTEN = "checkpoint_in_url"  # what this session put there itself
SPLIT_NAMES = {"train": "Train", "val": "Validation", "test": "Test"}


def checkpoint_picker(width: int | Literal["stretch"] = "stretch") -> CheckpointInfo:
    """The chosen checkpoint; an error box, and no more of the page, where there is none."""
    with error_box():
        folders = checkpoints.cdvae_folders()
        if not folders:
            raise CheckpointError(
                "there is no trained checkpoint in checkpoints/ or in CDVAE_CHECKPOINTS; "
                "`cdvae train perov_like_small` makes one"
            )
        linked = st.query_params.get(_PARAMETER)
        if linked is not None and linked != st.session_state.get(_WRITTEN):
            if linked in folders:
                st.session_state[_PARAMETER] = linked
            else:
                st.warning("There is no checkpoint of the name in the link.",
                           icon=":material/link_off:")  # fmt: skip
        name = st.selectbox(
            "Checkpoint", list(folders), key=_PARAMETER, persist_state="session", width=width,
            help="A trained model: a folder in checkpoints/ or in CDVAE_CHECKPOINTS.",
        )  # fmt: skip
        st.query_params[_PARAMETER] = st.session_state[_WRITTEN] = name
        return checkpoints.describe(folders[name])


def made_with(settings: dict[str, Any], chosen: CheckpointInfo) -> CheckpointInfo:
    """The checkpoint of a run, with a word where another one is chosen by now."""
    name = settings["checkpoint"]
    if name == chosen.name:
        return chosen
    st.html(f'<p class="note">Made with {name}.</p>')
    with error_box():
        folders = checkpoints.cdvae_folders()
        if name not in folders:
            raise CheckpointError(f"the checkpoint {name} is not there any more")
        return checkpoints.describe(folders[name])


def dataset_picker(info: CheckpointInfo) -> str:
    """The dataset to look at, at first the one that the checkpoint was trained on."""
    with error_box():
        ready = ready_datasets()
        if not ready:
            raise DatasetError("no dataset is built yet: run `cdvae data build perov_like`")
        first = ready.index(info.dataset) if info.dataset in ready else 0
        return st.selectbox(
            "Dataset", ready, index=first, key=f"dataset-{info.name}",
            persist_state="session", help="Built datasets; `cdvae data list` names the others.",
        )  # fmt: skip


def restore_splits(info: CheckpointInfo, dataset: str, splits: Sequence[str]) -> None:
    """Set the two pickers, as far as these data are built here."""
    if dataset in ready_datasets():
        st.session_state[f"dataset-{info.name}"] = dataset
        st.session_state[f"splits-{dataset}"] = [s for s in splits if find_split(dataset, s)]


def split_picker(dataset: str) -> tuple[str, ...]:
    """One split or more of a dataset, in the order train, val, test."""
    built = [name for name in SPLITS if find_split(dataset, name)]
    chosen = st.pills(
        "Splits", built, selection_mode="multi", default=built[-1:], key=f"splits-{dataset}",
        format_func=SPLIT_NAMES.__getitem__, persist_state="session",
        help="Latents are computed once for each split and kept.",
    )  # fmt: skip
    return tuple(name for name in built if name in (chosen or built[-1:]))
