"""The training split scored against the reference as if it were a model.

No model need be better than that, and differences below it mean nothing. What is computed of a
dataset's crystals is kept in the cache, so it is done once.
"""

from __future__ import annotations

import numpy as np

from cdvae_core.errors import DatasetError
from cdvae_core.evaluation.inputs import Crystals, read


def training_of(reference: Crystals) -> Crystals | None:
    """The training split of the dataset that the reference is a split of, None if there is none."""
    if reference.dataset is None:
        return None
    try:
        return read(f"{reference.dataset}:train")
    except DatasetError:
        return None


def drawn(crystals: Crystals, count: int, seed: int) -> Crystals:
    """So many of them, drawn at random; all where they are fewer."""
    order = np.random.default_rng(seed).permutation(len(crystals))[:count]
    return crystals.subset(order.tolist())


def paired(training: Crystals, count: int, seed: int) -> Crystals:
    """One training crystal for each reference crystal, at random: what chance would match."""
    chosen = np.random.default_rng(seed).integers(len(training), size=count)
    return training.subset(chosen.tolist())
