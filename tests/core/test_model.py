"""The model's own methods: latents of supercells, predicted cells, scaled values."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from examples import (
    batch,
    crystals,
    multigraph,
    permuted,
    perovskites,
    prototypes,
    shaken,
    small_model,
    supercell,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from pymatgen.core import Lattice

from cdvae_core.crystal import Crystal
from cdvae_core.lattice import volume
from cdvae_core.model import Aggregates
from cdvae_core.scalers import Scalers


@torch.no_grad()
def test_a_supercell_has_the_latent_of_its_crystal() -> None:
    model = small_model(0).double()
    known = prototypes()
    given_crystals = [*perovskites(4), known["diamond"], known["hcp"], known["rocksalt"]]
    small = shaken(batch(given_crystals), 0.02)
    big, _ = supercell(small)
    turned, _ = permuted(big)
    expected = model.encode(small, multigraph(small.to_crystals()))
    scale = expected[0].std()
    assert scale > 1e-3
    for other in (big, turned):
        found = model.encode(other, multigraph(other.to_crystals()))
        for one, two in zip(expected, found, strict=True):
            assert (one - two).abs().max() < 1e-9 * scale


@torch.no_grad()
def test_an_encoder_that_sees_the_aggregates_keeps_the_symmetries_and_can_count() -> None:
    torch.manual_seed(0)
    model = small_model(0)
    model.config = replace(model.config, encode_aggregates=True)
    model.add_aggregates()
    assert model.fc_aggregates is not None
    model = model.double()
    given_crystals = [*perovskites(3), prototypes()["hcp"]]
    given_batch = shaken(batch(given_crystals), 0.02)
    blind = model.encode(given_batch, multigraph(given_batch.to_crystals()))[0]
    model.fc_aggregates.weight.normal_(std=0.1)
    mu = model.encode(given_batch, multigraph(given_batch.to_crystals()))[0]
    assert (mu - blind).abs().max() > 1e-2
    turn = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64))[0]
    turned, _ = permuted(given_batch.replace(lattice=given_batch.lattice @ turn))
    same = model.encode(turned, multigraph(turned.to_crystals()))[0]
    assert (same - mu).abs().max() < 1e-9
    big, _ = supercell(given_batch)
    other = model.encode(big, multigraph(big.to_crystals()))[0]
    assert (other - mu).abs().amax(1).min() > 1e-2  # the mean over atoms cannot tell the two apart


@settings(max_examples=10)
@given(st.lists(crystals(most=6, shears=0), min_size=2, max_size=4))
def test_scaled_lattices_come_back(given_crystals: list[Crystal]) -> None:
    """Of any cell that a model can predict: angles from 30 to 150 degrees, not flat."""
    model = small_model(0).double()
    known = batch(given_crystals)
    model.scalers = Scalers.fit(known.lattice, known.num_atoms, torch.zeros(len(given_crystals)))
    standard = model.scalers.standard_lattice(known.lattice, known.num_atoms)
    found = model.lattice(standard, known.num_atoms)
    for crystal, lattice in zip(given_crystals, found.numpy(), strict=True):
        original = Lattice(crystal.lattice)
        small = min(original.abc) / crystal.num_atoms ** (1 / 3) < 0.8
        flat = original.volume / np.prod(original.abc) < 0.1
        if small or flat or not all(30 < angle < 150 for angle in original.angles):
            continue
        expected = Lattice.from_parameters(*original.parameters).matrix
        assert np.allclose(lattice, expected, atol=1e-6)


def test_every_prediction_is_a_cell() -> None:
    model = small_model(0)
    wild = torch.randn(500, 6, generator=torch.Generator().manual_seed(0)) * 30
    cells = model.lattice(wild, torch.randint(1, 21, (500,)))
    assert cells.isfinite().all()
    assert (volume(cells) > 0).all()


def test_scalers_standardise_what_they_were_fitted_on() -> None:
    rng = np.random.default_rng(0)
    lattices = torch.as_tensor(np.eye(3) * 4 + rng.normal(size=(200, 3, 3)) * 0.4)
    sizes = torch.as_tensor(rng.integers(1, 20, 200))
    prop = torch.as_tensor(rng.normal(3, 2, 200))
    prop[:50] = float("nan")
    scalers = Scalers.fit(lattices, sizes, prop)
    standard = scalers.standard_lattice(lattices, sizes)
    assert standard.mean(0).abs().max() < 1e-6 and (standard.std(0) - 1).abs().max() < 1e-2
    known = scalers.standard_prop(prop[50:])
    assert abs(known.mean()) < 1e-6 and abs(known.std() - 1) < 1e-2
    assert torch.allclose(scalers.prop_from_standard(known), prop[50:])


def test_scalers_without_any_property() -> None:
    lattices = torch.eye(3).repeat(4, 1, 1)
    scalers = Scalers.fit(lattices, torch.ones(4).long(), torch.full((4,), float("nan")))
    assert (scalers.prop_mean, round(scalers.prop_std, 3)) == (0.0, 1.0)


def test_an_angle_that_never_varies_is_predicted_whatever_is_said() -> None:
    model = small_model(0)
    known = batch(perovskites(50), torch.float32)
    model.scalers = Scalers.fit(known.lattice, known.num_atoms, torch.zeros(50))
    cells = model.lattice(torch.randn(20, 6) * 3, torch.full((20,), 5))
    cosines = (cells @ cells.transpose(1, 2))[:, [0, 0, 1], [1, 2, 2]]
    assert cosines.abs().max() < 1e-3
    standard = model.scalers.standard_lattice(known.lattice, known.num_atoms)
    assert standard[:, 3:].abs().max() < 1.5  # rounding of float32 is a fraction of 1e-5 degrees


def test_a_posterior_is_never_so_wide_that_its_divergence_overflows() -> None:
    model = small_model(0)
    given_batch = batch(perovskites(2), torch.float32)
    graph = multigraph(given_batch.to_crystals())
    with torch.no_grad():
        model.fc_logvar.weight.zero_()
        model.fc_logvar.bias.copy_(torch.linspace(-6, 2, len(model.fc_logvar.bias)))
    logvar = model.encode(given_batch, graph)[1]
    assert torch.equal(logvar[0], model.fc_logvar.bias)  # up to there it is as published
    with torch.no_grad():
        model.fc_logvar.bias += 1000
    logvar = model.encode(given_batch, graph)[1]
    (logvar.exp() - logvar).sum().backward()
    gradient = model.fc_logvar.bias.grad
    assert gradient is not None and gradient.isfinite().all() and (gradient > 1).all()


def test_drawn_numbers_of_atoms_follow_their_distribution_and_are_never_0() -> None:
    shares = torch.tensor([0.5, 0.1, 0.0, 0.4])  # half of it on N = 0, which no crystal has
    found = Aggregates(shares.log().expand(4000, -1), torch.zeros(4000, 6), torch.zeros(4000, 100))
    drawn = found.drawn_num_atoms(torch.Generator().manual_seed(0))
    counts = drawn.bincount(minlength=4) / 4000
    torch.testing.assert_close(counts, torch.tensor([0.0, 0.2, 0.0, 0.8]), atol=0.03, rtol=0)
