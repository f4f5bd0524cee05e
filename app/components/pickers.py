"""Choosing a checkpoint, a dataset and its splits; the choice holds on every page."""

from __future__ import annotations

from typing import Literal

import streamlit as st

from app.components.page import error_box
from app.services import checkpoints
from app.services.checkpoints import CheckpointInfo
from app.services.datasets import ready_datasets
from cdvae_core.data.cache import find_split
from cdvae_core.data.registry import SPLITS
from cdvae_core.errors import CheckpointError, DatasetError

SPLIT_NAMES = {"train": "Train", "val": "Validation", "test": "Test"}


def checkpoint_picker(width: int | Literal["stretch"] = "stretch") -> CheckpointInfo:
    """The chosen checkpoint; an error box, and no more of the page, where there is none."""
    with error_box():
        folders = checkpoints.checkpoint_folders()
        if not folders:
            raise CheckpointError(
                "there is no trained checkpoint in checkpoints/ or in CDVAE_CHECKPOINTS; "
                "`cdvae train perov_like_small` makes one"
            )
        name = st.selectbox(
            "Checkpoint", list(folders), key="checkpoint", bind="query-params", width=width,
            help="A trained model: a folder in checkpoints/ or in CDVAE_CHECKPOINTS.",
        )  # fmt: skip
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
            bind="query-params", help="Built datasets; `cdvae data list` names the others.",
        )  # fmt: skip


def split_picker(dataset: str) -> tuple[str, ...]:
    """One split or more of a dataset, in the order train, val, test."""
    built = [name for name in SPLITS if find_split(dataset, name)]
    chosen = st.pills(
        "Splits", built, selection_mode="multi", default=built[-1:], key="splits",
        format_func=SPLIT_NAMES.__getitem__, bind="query-params",
        help="Latents are computed once for each split and kept.",
    )  # fmt: skip
    return tuple(name for name in built if name in (chosen or built[-1:]))
