"""A few crystals, learnt by heart and decoded again: every part of the model has to work."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
import scipy
import torch
from examples import crystal, fit, multigraph, prototypes

from cdvae_core.config import DecoderConfig, EncoderConfig, LossWeights, ModelConfig, NoiseConfig
from cdvae_core.crystal import Crystal, CrystalBatch
from cdvae_core.langevin import final, sample
from cdvae_core.losses import Losses, losses
from cdvae_core.metrics.reconstruction import reconstruction
from cdvae_core.model import CDVAE
from cdvae_core.scalers import Scalers

CONFIG = ModelConfig(
    latent_dim=16,
    head_hidden=32,
    prop="energy",
    encoder=EncoderConfig(
        hidden=24, blocks=1, int_emb=8, basis_emb=4, out_emb=24, num_spherical=4
    ),
    decoder=DecoderConfig(
        hidden=64, blocks=2, neighbours=12, num_spherical=5, num_radial=48, basis_emb=8,
        triplet_emb=24,
    ),
    noise=NoiseConfig(levels=20, sigma_first=2.0),
)  # fmt: skip


def pairs() -> list[Crystal]:
    """Of two atoms each."""
    known = prototypes()
    caesium_chloride = crystal([55, 17], [[0, 0, 0], [0.5] * 3], 4.1 * np.eye(3))
    return [known["diamond"], known["hcp"], known["bcc"], caesium_chloride]


def eight() -> list[Crystal]:
    """And of three to five: rutile's chain, a low symmetry, perovskites of two sizes."""
    perovskite = prototypes()["perovskite"]
    low = [[0.05, 0.1, 0.02], [0.55, 0.45, 0.31], [0.12, 0.62, 0.68], [0.6, 0.05, 0.75]]
    return [
        *pairs(),
        perovskite,
        crystal([56, 40, 8, 8, 8], perovskite.frac_coords, 4.2 * np.eye(3)),
        crystal([14, 8, 8, 8], low, [[3.4, 0, 0], [0.4, 3.9, 0], [-0.3, 0.6, 4.6]]),
        crystal([22, 8, 8], [[0, 0, 0], [0.31, 0.31, 0], [0.69, 0.69, 0]],
                np.diag([3.9, 3.9, 3.2])),
    ]  # fmt: skip


def learn(crystals: list[Crystal], steps: int) -> tuple[CDVAE, Losses]:
    """The model after so many steps of eight noisy copies each, and its last losses."""
    given, graph = CrystalBatch.from_crystals(crystals), multigraph(crystals)
    energy = torch.linspace(-2, 2, len(crystals))
    torch.manual_seed(0)
    model = CDVAE(CONFIG, Scalers.fit(given.lattice, given.num_atoms, energy))
    fit(model)
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, total_steps=steps, pct_start=0.1)
    generator, weights = torch.Generator().manual_seed(0), LossWeights(kl=1e-4)
    for _ in range(steps):
        record = losses(model, given, graph, energy, generator, noise_draws=8)
        optimiser.zero_grad()
        record.total(weights).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        rate.step()
    return model.eval(), record


@torch.no_grad()
def decoded(model: CDVAE, crystals: list[Crystal], tries: int) -> np.ndarray:
    """`[tries, crystals]` RMSE of several decodings of mu, NaN where one does not match."""
    mu, _ = model.encode(CrystalBatch.from_crystals(crystals), multigraph(crystals))
    generator = torch.Generator().manual_seed(0)
    steps = sample(model, mu.repeat(tries, 1), schedule="fast", generator=generator)
    found = [[one] for one in final(steps).to_crystals()]
    return reconstruction(found, crystals * tries).rmse.reshape(tries, -1)


def check_aggregates(record: Losses) -> None:
    assert all(getattr(record, field.name).isfinite() for field in fields(record))
    assert record.num_atoms < 0.02 and record.lattice < 0.02 and record.prop < 0.02


@torch.no_grad()
def check_denoising(model: CDVAE, crystals: list[Crystal]) -> None:
    """At up to 0.1 Å, where the way back is certain; a model that says nothing has 1.0 there."""
    near = replace(CONFIG.noise, levels=20, sigma_first=0.1, type_sigma_first=0.1)
    given = CrystalBatch.from_crystals(crystals)
    generator, unknown = torch.Generator().manual_seed(0), torch.zeros(len(crystals))
    model.config = replace(CONFIG, noise=near)
    found = losses(model, given, multigraph(crystals), unknown, generator, noise_draws=32)
    model.config = CONFIG
    assert found.coordinates < 0.2 and found.types < 0.05, found


def check_decodings(rmse: np.ndarray) -> None:
    """Annealing may end in another minimum now and then; most of it does not, for any crystal."""
    assert np.isfinite(rmse).mean() > 0.75, rmse
    assert np.isfinite(rmse).any(0).all(), rmse
    assert np.nanmedian(rmse) < 0.02, rmse


def test_four_crystals_are_learnt_and_decoded() -> None:
    model, record = learn(pairs(), 300)
    check_aggregates(record)
    check_decodings(decoded(model, pairs(), tries=6))


@pytest.mark.slow
def test_eight_crystals_are_learnt_and_decoded() -> None:
    model, record = learn(eight(), 1500)
    check_aggregates(record)
    check_denoising(model, eight())
    compositions = [np.unique(c.atomic_numbers, return_counts=True)[1] for c in eight()]
    entropy = np.mean([scipy.stats.entropy(counts) for counts in compositions])
    assert record.composition < entropy + 0.02  # which is what is left if all is known
    check_decodings(decoded(model, eight(), tries=4))
