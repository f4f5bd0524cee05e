"""What ships can be used by this version."""

from __future__ import annotations

from pathlib import Path

import pytest

from cdvae_core import CDVAE
from cdvae_core.checkpoint import is_baseline, read_config
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
