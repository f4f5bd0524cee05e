"""What ships can be used by this version."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cdvae_core import CDVAE
from cdvae_core.checkpoint import is_baseline, read_config
from cdvae_core.consistency import mended
from cdvae_core.crystal import Crystal
from cdvae_core.data.cache import open_split
from cdvae_core.encode import encode_split
from cdvae_core.metrics.reconstruction import match
from cdvae_core.prior import load_prior

CHECKPOINTS = Path(__file__).parents[2] / "checkpoints"
OURS = [
    file.parent
    for file in sorted(CHECKPOINTS.glob("*/config.json"))
    if not is_baseline(read_config(file.parent))
]


@pytest.mark.parametrize("folder", OURS, ids=lambda folder: folder.name)
def test_a_shipped_model_and_its_prior_are_read(folder: Path) -> None:
    model, prior = CDVAE.load(folder), load_prior(folder)
    assert prior is not None, "every shipped model has one: new crystals come from it"
    assert prior.sizes["latent_dim"] == model.config.latent_dim
    assert prior.sizes["max_atoms"] == model.config.max_atoms


def test_its_encoder_knows_where_the_elements_of_a_perovskite_belong() -> None:
    model, test = CDVAE.load(CHECKPOINTS / "perov_like"), open_split("perov_like", "test")
    order = np.random.default_rng(0)
    for i, z in enumerate(encode_split(model, test, range(10))):
        true = test.crystal(i)
        numbers = order.permutation(true.atomic_numbers)
        found = mended(model, z, Crystal(numbers, true.frac_coords, true.lattice))
        assert match(found, true) < 0.01
