"""Many starts at once: the first crystals of the test set."""

from __future__ import annotations

from typing import TYPE_CHECKING

import streamlit as st

from app import cache
from app.services.checkpoints import CheckpointInfo
from cdvae_core.crystal import Crystal
from cdvae_core.data.cache import find_split

if TYPE_CHECKING:
    from torch import Tensor


def batch_of_starts(info: CheckpointInfo) -> tuple[list[str], Tensor, list[Crystal]] | None:
    """Labels, latents and crystals; None, with a word, where the test set is not built."""
    if info.dataset is None or not find_split(info.dataset, "test"):
        st.html('<p class="note">The test set of this checkpoint is not built.</p>')
        return None
    split = cache.split(info.dataset, "test")
    most = min(100, len(split))
    count = st.slider("Starts", 2, most, min(10, most), key="count-starts", width=320,
                      persist_state="session", help="The paper takes 100.")  # fmt: skip
    titles = cache.titles(info.dataset, "test")[:count]
    z = cache.latents(info, info.dataset, "test", count)
    return titles, z, [split.crystal(i) for i in range(count)]
