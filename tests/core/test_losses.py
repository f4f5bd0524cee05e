"""The terms of the objective, one by one, against what they are defined to be."""

from __future__ import annotations

import math
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from examples import batch, crystal, multigraph, perovskites, prototypes, small_model
from torch import nn

from cdvae_core.config import LossWeights
from cdvae_core.crystal import CrystalBatch
from cdvae_core.graph import MultiGraph, PeriodicImages
from cdvae_core.losses import Losses, losses
from cdvae_core.model import CDVAE, Aggregates, Score
from cdvae_core.noise import coordinate_sigmas, score_target, without_drift


class Oracle(CDVAE):
    """A model that knows the clean crystals: its score is exact at one noise level."""

    clean: CrystalBatch
    error = 0.0  # added to every component of the score
    confidence = 50.0  # logit of the true element
    logvar = 0.0

    def encode(
        self, crystals: CrystalBatch, graph: MultiGraph
    ) -> tuple[torch.Tensor, torch.Tensor]:
        mu = torch.zeros(crystals.num_crystals, self.config.latent_dim)
        return mu, torch.full_like(mu, self.logvar)

    def score(
        self, z: torch.Tensor, crystals: CrystalBatch, images: PeriodicImages | None = None
    ) -> Score:
        self.seen = crystals
        clean = self.clean.repeat(crystals.num_crystals // self.clean.num_crystals)
        sigma = torch.full((clean.num_crystals,), self.config.noise.sigma_first)
        target = without_drift(score_target(clean, crystals.frac_coords, sigma), clean)
        vectors = target + self.error
        types = nn.functional.one_hot(clean.atomic_numbers - 1, 100) * self.confidence
        return Score(vectors, types.float())


def oracle(clean: CrystalBatch) -> Oracle:
    """With a single level, so that it needs not know which was drawn."""
    model = small_model(0)
    config = replace(
        model.config, noise=replace(model.config.noise, sigma_first=0.2, sigma_last=0.2, levels=1)
    )
    knows = Oracle(config, model.scalers)
    knows.load_state_dict(model.state_dict())
    knows.clean = clean
    return knows


CRYSTALS = perovskites(4)
CLEAN = batch(CRYSTALS, torch.float32)
GRAPH = multigraph(CRYSTALS)
ENERGY = torch.tensor([0.1, -0.4, 0.3, 1.2])


def record(model: CDVAE, seed: int = 0, energy: torch.Tensor = ENERGY, **options: object) -> Losses:
    generator = torch.Generator().manual_seed(seed)
    return losses(model, CLEAN, GRAPH, energy, generator, **options)


def test_a_perfect_decoder_has_no_loss() -> None:
    found = record(oracle(CLEAN))
    assert found.coordinates < 1e-8
    assert found.types < 1e-6


def test_coordinate_term_is_half_the_square_of_the_error() -> None:
    model = oracle(CLEAN)
    model.error = 0.3
    assert record(model).coordinates == pytest.approx(3 * 0.3**2 / 2, rel=1e-3)


def test_type_term_is_the_cross_entropy_over_sigma() -> None:
    model = oracle(CLEAN)
    model.confidence = 0.0
    sigma = model.config.noise.type_sigma_first
    assert record(model).types == pytest.approx(math.log(100) / sigma, rel=1e-5)


def test_every_crystal_weighs_the_same() -> None:
    """A score that is wrong on the small crystal alone: the mean is half its error, not a sixth."""
    known = prototypes()
    pair = [known["fcc"], known["perovskite"]]
    model = oracle(batch(pair, torch.float32))
    model.error = torch.tensor([[1.0, 0, 0]] + [[0.0, 0, 0]] * 5)
    found = losses(
        model, model.clean, multigraph(pair), torch.zeros(2), torch.Generator().manual_seed(0)
    )
    assert found.coordinates == pytest.approx(0.25, rel=1e-3)


def test_kl_vanishes_for_the_prior_alone() -> None:
    model = oracle(CLEAN)
    assert record(model).kl == 0
    model.logvar = -2.0
    expected = 0.5 * (math.exp(-2.0) - 1 + 2.0) * model.config.latent_dim
    assert record(model).kl == pytest.approx(expected, rel=1e-5)


def test_kl_is_that_of_two_normals() -> None:
    model = small_model(0)
    mu, logvar = model.encode(CLEAN, GRAPH)
    posterior = torch.distributions.Normal(mu, (0.5 * logvar).exp())
    prior = torch.distributions.Normal(torch.zeros_like(mu), torch.ones_like(mu))
    expected = torch.distributions.kl_divergence(posterior, prior).sum(-1).mean()
    assert torch.allclose(record(model).kl, expected, rtol=1e-4)


class Reader(Oracle):
    """Reads N and the lattice right, and of each element the atoms that it is given."""

    counts: torch.Tensor

    def aggregates(self, z: torch.Tensor) -> Aggregates:
        num_atoms = nn.functional.one_hot(CLEAN.num_atoms, self.config.max_atoms + 1) * 50.0
        lattice = self.scalers.standard_lattice(CLEAN.lattice, CLEAN.num_atoms)
        return Aggregates(num_atoms, lattice, self.counts.log())


def reader(counts: torch.Tensor) -> Reader:
    model = oracle(CLEAN)
    model.__class__ = Reader
    model.counts = counts
    return model


def test_aggregates_that_are_right_cost_nothing() -> None:
    found = record(reader(CLEAN.element_counts))
    assert found.num_atoms < 1e-6 and found.lattice < 1e-10 and found.counts < 1e-8
    entropy = -(2 / 5 * math.log(1 / 5) + 3 / 5 * math.log(3 / 5))
    assert found.composition == pytest.approx(entropy, rel=1e-4)


def test_wrong_counts_cost_their_square() -> None:
    """An oxygen too few and one of another element too many, in one of the four perovskites."""
    counts = CLEAN.element_counts
    counts[0, 7] -= 1
    counts[0, 8] += 1
    assert record(reader(counts)).counts == pytest.approx(2 / 4, rel=1e-4)
    assert record(reader(3 * counts)).counts == pytest.approx(2 / 4, rel=1e-4)  # shares count


def test_an_unknown_property_counts_for_nothing() -> None:
    model = small_model(0).requires_grad_(True)
    some = ENERGY.clone()
    some[1] = math.nan
    found = record(model, energy=some)
    assert found.prop.isfinite() and found.prop > 0
    found.total(LossWeights()).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    changed = torch.where(some.isnan(), some, some + 1)
    assert not torch.equal(record(model, energy=changed).prop, found.prop)
    assert record(model, energy=torch.full((4,), math.nan)).prop == 0


def test_the_property_is_standardised() -> None:
    model = small_model(0).requires_grad_(False)
    with torch.no_grad():
        model.fc_property[2].weight.zero_()
        model.fc_property[2].bias.fill_(0.5)
    value = 0.5 * model.scalers.prop_std + model.scalers.prop_mean
    assert torch.allclose(model.predict_property(torch.zeros(4, 16)), torch.tensor(value))
    assert record(model, energy=torch.full((4,), value)).prop < 1e-10
    off = value + 2 * model.scalers.prop_std
    assert record(model, energy=torch.full((4,), off)).prop == pytest.approx(4, rel=1e-4)


def test_without_a_property_there_is_no_term() -> None:
    model = small_model(0, prop=None)
    assert record(model, energy=torch.full((4,), math.nan)).prop == 0
    with pytest.raises(RuntimeError, match="without a property"):
        model.predict_property(torch.zeros(1, 16))


def test_teacher_forcing_chooses_the_lattice_of_the_noise() -> None:
    model = oracle(CLEAN)
    record(model)
    assert torch.equal(model.seen.lattice, CLEAN.lattice)
    assert record(model, teacher_forcing=False).coordinates.isfinite()
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(4, 16, generator=generator)  # the first draw of the step
    predicted = model.lattice(model.aggregates(z).lattice, CLEAN.num_atoms)
    assert torch.allclose(model.seen.lattice, predicted)
    assert not torch.allclose(model.seen.lattice, CLEAN.lattice, atol=0.1)


def test_draws_share_one_encoding_and_average() -> None:
    """Many draws at once estimate what many steps of one draw do, with less noise."""
    model = small_model(0)
    with torch.no_grad():
        once = torch.stack([record(model, seed).coordinates for seed in range(24)])
        often = torch.stack([record(model, seed, noise_draws=8).coordinates for seed in range(8)])
    error = (once.var() / 24 + often.var() / 8).sqrt()
    assert (once.mean() - often.mean()).abs() < 4 * error
    assert often.std() < once.std()
    clean = oracle(CLEAN)
    assert record(clean, noise_draws=3).coordinates < 1e-8
    assert clean.seen.num_crystals == 12


def test_levels_are_drawn_evenly_and_independently() -> None:
    """The level of the coordinates shows in the noise, that of the types in their loss."""
    clean = batch([crystal([8] * 20, np.random.default_rng(0).random((20, 3)), 60 * np.eye(3))] * 8)
    clean = clean.to(dtype=torch.float32)
    model = oracle(clean)
    seen: list[tuple[float, float]] = []
    noise = small_model(0).config.noise

    class Spy(Oracle):
        def score(self, z: torch.Tensor, crystals: CrystalBatch, images=None) -> Score:
            one = torch.ones(crystals.num_crystals)
            spread = score_target(self.clean, crystals.frac_coords, one).view(8, -1).std(1)
            kept = (crystals.atomic_numbers == 8).float().view(8, -1).mean(1)
            seen.extend(zip(spread.tolist(), kept.tolist(), strict=True))
            return super().score(z, crystals, images)

    model.__class__ = Spy
    model.config = replace(model.config, noise=noise)
    graph = MultiGraph(*(torch.zeros(s, dtype=torch.long) for s in ((0,), (0,), (0, 3))))
    generator = torch.Generator().manual_seed(0)
    for _ in range(60):
        losses(model, clean, graph, torch.zeros(8), generator)
    spread, kept = torch.tensor(seen).T
    levels = coordinate_sigmas(noise)
    place = (spread[:, None] - levels).abs().argmin(1).float()
    assert abs(place.mean() - 24.5) < 2.5
    assert abs(torch.corrcoef(torch.stack([place, kept]))[0, 1]) < 0.15
    assert kept.min() < 0.5 and kept.max() > 0.9


def test_the_same_generator_gives_the_same_loss() -> None:
    model = small_model(0)
    one, other, third = record(model, 3), record(model, 3), record(model, 4)
    assert all(torch.equal(getattr(one, f.name), getattr(other, f.name)) for f in fields(one))
    assert not torch.equal(one.coordinates, third.coordinates)


def test_total_and_denoising_are_weighted_sums() -> None:
    parts = Losses(*(torch.tensor(float(i)) for i in range(1, 9)))
    weights = LossWeights(*(10.0**i for i in range(8)))
    assert parts.total(weights) == 87654321
    assert parts.denoising(weights) == 4_000 + 50_000


def test_gradient_of_the_denoising_terms_reaches_no_predicted_aggregate() -> None:
    model = small_model(0).train()
    found = record(model, teacher_forcing=False)
    found.denoising(LossWeights()).backward()
    for head in (model.fc_lattice, model.fc_composition, model.fc_num_atoms):
        assert all(p.grad is None or not p.grad.any() for p in head.parameters())
    assert model.fc_mu.weight.grad.any() and model.fc_logvar.weight.grad.any()
