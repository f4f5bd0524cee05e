"""Targets averaged over which atom was which, against all permutations of five atoms."""

from __future__ import annotations

import sys
from itertools import permutations
from pathlib import Path

import pytest
import torch
from torch.nn import functional

from cdvae_core.crystal import CrystalBatch
from cdvae_core.data.cache import open_split
from cdvae_core.noise import perturb_coordinates, perturb_types, score_target

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import denoising


@pytest.fixture(scope="module")
def clean() -> CrystalBatch:
    return open_split("perov_like", "val").batch(range(32), None).crystals


def noisy(clean: CrystalBatch, sigma: torch.Tensor) -> CrystalBatch:
    generator = torch.Generator().manual_seed(0)
    frac = perturb_coordinates(clean, sigma, generator)
    shares = clean.element_counts / clean.num_atoms[:, None]
    numbers = perturb_types(clean, shares, torch.ones_like(sigma), generator)
    return clean.replace(frac_coords=frac, atomic_numbers=numbers)


@pytest.mark.parametrize("width", [2.0, 1.0, 0.5])
def test_a_chain_of_exchanges_visits_assignments_as_often_as_they_are_likely(
    clean: CrystalBatch, width: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    sigma = torch.full((clean.num_crystals,), width)
    log, _, _ = denoising.assignments(clean, noisy(clean, sigma), sigma, torch.ones_like(sigma))
    every = torch.tensor(list(permutations(range(5))))
    weight = log[:, torch.arange(5), every].sum(-1).softmax(-1)
    exact = torch.einsum("cp,pij->cij", weight, functional.one_hot(every, 5).float())
    monkeypatch.setattr(denoising, "_EXCHANGES", 3000)
    torch.manual_seed(0)
    found = denoising.mean_assignment(log, clean.num_atoms)
    assert (found - exact).square().mean().sqrt() < 0.03
    assert (exact - torch.eye(5)).square().mean().sqrt() > 0.03  # there is something to average


def test_little_noise_leaves_nothing_to_average(clean: CrystalBatch) -> None:
    sigma = torch.full((clean.num_crystals,), 0.05)
    seen = noisy(clean, sigma)
    vectors, types = denoising.averaged(clean, seen, sigma, torch.ones_like(sigma), alike=False)
    torch.testing.assert_close(
        vectors, score_target(clean, seen.frac_coords, sigma), atol=1e-3, rtol=1e-3
    )
    assert torch.equal(types.argmax(-1) + 1, clean.atomic_numbers)


def test_atoms_of_one_element_keep_their_types(clean: CrystalBatch) -> None:
    sigma = torch.full((clean.num_crystals,), 2.0)
    seen = noisy(clean, sigma)
    _, alike = denoising.averaged(clean, seen, sigma, torch.ones_like(sigma), alike=True)
    _, mixed = denoising.averaged(clean, seen, sigma, torch.ones_like(sigma), alike=False)
    true = (clean.atomic_numbers - 1)[:, None]
    assert (alike.gather(1, true) > 0.999).all()
    assert mixed.gather(1, true).mean() < 0.9  # far off, an atom may be any of them
    torch.testing.assert_close(mixed.sum(1), torch.ones(len(true)))
