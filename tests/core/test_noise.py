"""The corruption of crystals: its statistics, its target, and the identity of Appendix E."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from examples import batch, prototypes, shaken

from cdvae_core.config import NoiseConfig
from cdvae_core.crystal import Crystal, CrystalBatch
from cdvae_core.lattice import minimum_image, minkowski_reduce
from cdvae_core.noise import (
    coordinate_sigmas,
    geometric,
    likeliest_counts,
    perturb_coordinates,
    perturb_types,
    score_target,
    shuffle_types,
    type_sigmas,
    without_drift,
)

SKEWED = np.array([[40.0, 0, 0], [14, 35, 0], [-17, 9, 30]])


def many_atoms(count: int, lattice: np.ndarray = SKEWED) -> CrystalBatch:
    rng = np.random.default_rng(0)
    return batch([Crystal(rng.integers(1, 20, count), rng.uniform(size=(count, 3)), lattice)])


def displacement(clean: CrystalBatch, frac: torch.Tensor) -> torch.Tensor:
    cell = minkowski_reduce(clean.lattice)
    return minimum_image(frac - clean.frac_coords, cell, clean.crystal_of_atom)


def test_levels_are_geometric() -> None:
    levels = geometric(10.0, 0.01, 50)
    assert levels[0] == 10 and levels[-1] == pytest.approx(0.01)
    ratio = levels[1:] / levels[:-1]
    assert torch.allclose(ratio, ratio[0].expand_as(ratio), rtol=1e-5)
    config = NoiseConfig()
    assert coordinate_sigmas(config).shape == type_sigmas(config).shape == (50,)
    assert type_sigmas(config)[0] == 5 and (type_sigmas(config).diff() < 0).all()


@pytest.mark.parametrize("sigma", [0.01, 0.3, 2.0])
def test_noise_has_the_variance_it_says(sigma: float) -> None:
    """Along every direction of space, however skewed the cell."""
    clean = many_atoms(20000)
    level = torch.full((1,), sigma, dtype=torch.float64)
    frac = perturb_coordinates(clean, level, torch.Generator().manual_seed(0))
    assert (frac >= 0).all() and (frac < 1).all()
    moved = displacement(clean, frac).numpy()
    assert np.abs(moved.mean(0)).max() < 4 * sigma / 20000**0.5
    covariance = moved.T @ moved / len(moved)
    assert np.abs(covariance - sigma**2 * np.eye(3)).max() < 0.04 * sigma**2


def test_each_crystal_gets_its_own_level() -> None:
    clean = batch([Crystal(np.ones(4000, int), np.zeros((4000, 3)), SKEWED)] * 2)
    sigma = torch.tensor([0.1, 1.0], dtype=torch.float64)
    frac = perturb_coordinates(clean, sigma, torch.Generator().manual_seed(0))
    spread = displacement(clean, frac).view(2, -1).std(1)
    assert torch.allclose(spread, sigma, rtol=0.03)


def test_the_target_undoes_small_noise() -> None:
    clean = batch(prototypes().values())
    generator = torch.Generator().manual_seed(4)
    sigma = torch.full((clean.num_crystals,), 0.05, dtype=torch.float64)
    frac = perturb_coordinates(clean, sigma, generator)
    noise = torch.randn(
        clean.frac_coords.shape, generator=torch.Generator().manual_seed(4), dtype=torch.float64
    )
    target = score_target(clean, frac, sigma)
    assert (target + noise).abs().max() < 1e-9
    given_cell = score_target(clean, frac, sigma, minkowski_reduce(clean.lattice))
    assert torch.equal(given_cell, target)


def test_the_target_is_the_shortest_way_back() -> None:
    clean = batch(prototypes().values())
    noisy = shaken(clean, 5.0)
    sigma = torch.full((clean.num_crystals,), 5.0, dtype=torch.float64)
    back = 5 * score_target(clean, noisy.frac_coords, sigma)
    for crystal, start, away in zip(
        clean.to_crystals(), noisy.frac_coords.split(clean.num_atoms.tolist()),
        back.split(clean.num_atoms.tolist()), strict=True,
    ):  # fmt: skip
        from pymatgen.core import Lattice

        for known, now, found in zip(crystal.frac_coords, start.numpy(), away, strict=True):
            shortest = Lattice(crystal.lattice).get_distance_and_image(known, now)[0]
            assert float(found.norm()) == pytest.approx(shortest, abs=1e-9)
            end = now + found.numpy() @ np.linalg.inv(crystal.lattice)
            assert np.abs((end - known) - np.round(end - known)).max() < 1e-9


def test_appendix_e_an_exact_score_makes_each_step_k_of_the_way() -> None:
    """alpha_j s_X(M~; sigma_j) = -k d_min with k = epsilon / sigma_L^2, at every level."""
    clean = batch(prototypes().values())
    epsilon, sigmas = 3e-5, coordinate_sigmas(NoiseConfig()).double()
    for sigma in sigmas[::7]:
        level = sigma.expand(clean.num_crystals)
        noisy = shaken(clean, float(sigma), seed=9)
        score = score_target(clean, noisy.frac_coords, level) / sigma
        alpha = epsilon * (sigma / sigmas[-1]) ** 2
        d_min = displacement(clean, noisy.frac_coords)
        k = epsilon / sigmas[-1] ** 2
        assert torch.allclose(alpha * score, -k * d_min, rtol=1e-9, atol=1e-12)


def test_autocast_leaves_noise_and_target_as_they_are() -> None:
    clean = batch(prototypes().values(), torch.float32)
    sigma = torch.full((clean.num_crystals,), 0.01)
    frac = perturb_coordinates(clean, sigma, torch.Generator().manual_seed(0))
    target = score_target(clean, frac, sigma)
    with torch.autocast("cpu", torch.bfloat16):
        cast_frac = perturb_coordinates(clean, sigma, torch.Generator().manual_seed(0))
        cast_target = score_target(clean, frac, sigma)
    assert torch.equal(cast_frac, frac)
    assert torch.equal(cast_target, target)


@pytest.mark.parametrize("sigma", [0.01, 1.0, 5.0])
def test_types_are_drawn_from_the_mixture(sigma: float) -> None:
    """(p_A + sigma p_c) / (1 + sigma), for every element."""
    count = 40000
    clean = batch([Crystal(np.full(count, 8), np.zeros((count, 3)), SKEWED)])
    composition = torch.zeros(1, 100)
    composition[0, [7, 21, 99]] = torch.tensor([0.2, 0.5, 0.3])  # O, Ti, Fm
    generator = torch.Generator().manual_seed(0)
    numbers = perturb_types(clean, composition, torch.tensor([sigma]), generator)
    found = torch.bincount(numbers, minlength=101)[1:] / count
    expected = sigma * composition[0] / (1 + sigma)
    expected[7] += 1 / (1 + sigma)
    assert (found[expected == 0] == 0).all()
    assert (found - expected).abs().max() < 4 * (0.25 / count) ** 0.5


@pytest.mark.parametrize("sigma", [0.01, 1.0, 5.0])
def test_shuffled_types_keep_the_counts_of_every_crystal(sigma: float) -> None:
    """And an atom of an element that is half of them is moved with probability sigma / (1 + sigma):
    then it becomes the other element half of the time."""
    half = Crystal(np.repeat([8, 22], 100_000), np.zeros((200_000, 3)), SKEWED)
    clean = batch([half, *prototypes().values(), half])
    levels = torch.full((clean.num_crystals,), sigma)
    numbers = shuffle_types(clean, levels, torch.Generator().manual_seed(0))
    sizes = clean.num_atoms.tolist()
    for before, after in zip(clean.atomic_numbers.split(sizes), numbers.split(sizes), strict=True):
        assert torch.equal(before.sort().values, after.sort().values)
        if len(before) == 200_000:
            changed = (before != after).double().mean()
            expected = sigma / (1 + sigma) / 2
            assert abs(changed - expected) < 4 * (expected / 200_000) ** 0.5


def test_counts_are_the_whole_numbers_nearest_to_the_composition() -> None:
    composition = torch.zeros(4, 100)
    composition[0, [7, 21, 37]] = torch.tensor([0.6, 0.2, 0.2])
    composition[1, 5] = 1.0
    composition[2, [0, 99]] = torch.tensor([0.3, 0.7])
    composition[3] = 0.01 * torch.tensor([20.0, 31.0, 49.0]).repeat(1, 34)[0, :100] / 34
    num_atoms = torch.tensor([5, 3, 4, 20])
    numbers = likeliest_counts(composition, num_atoms)
    for place, part in enumerate(numbers.split(num_atoms.tolist())):
        count = torch.bincount(part, minlength=101)[1:]
        wanted = composition[place] / composition[place].sum() * num_atoms[place]
        # no other whole numbers of the same sum are nearer: moving one atom never gains
        off = count - wanted
        assert off.max() - off.min() < 1 + 1e-4
    assert numbers[:8].tolist() == [8, 8, 8, 22, 38, 6, 6, 6]


def test_drift_is_what_the_atoms_have_in_common() -> None:
    clean = batch(prototypes().values())
    vectors = torch.randn(clean.frac_coords.shape, dtype=torch.float64)
    shifts = torch.randn(clean.num_crystals, 3, dtype=torch.float64)
    left = without_drift(vectors + shifts[clean.crystal_of_atom], clean)
    assert torch.allclose(left, without_drift(vectors, clean))
    for part in left.split(clean.num_atoms.tolist()):
        assert part.sum(0).abs().max() < 1e-12


def test_the_same_seed_gives_the_same_noise() -> None:
    clean = batch(prototypes().values(), torch.float32)
    sigma = torch.ones(clean.num_crystals)
    composition = torch.full((clean.num_crystals, 100), 0.01)

    def draw(seed: int) -> tuple[torch.Tensor, ...]:
        generator = torch.Generator().manual_seed(seed)
        return (
            perturb_coordinates(clean, sigma, generator),
            perturb_types(clean, composition, sigma, generator),
        )

    assert all(torch.equal(a, b) for a, b in zip(draw(0), draw(0), strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(draw(0), draw(1), strict=True))
