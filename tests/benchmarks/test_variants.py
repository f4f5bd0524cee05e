"""The variants that benchmarks compare: each is what it says, and still fits what it replaces."""

from __future__ import annotations

import sys
from itertools import permutations
from pathlib import Path

import pytest
import torch
from torch.nn import functional

from cdvae_core import losses
from cdvae_core.crystal import CrystalBatch
from cdvae_core.data.cache import open_split
from cdvae_core.noise import perturb_coordinates, perturb_types, score_target
from cdvae_core.prior import Labelled

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
sys.path.insert(0, str(Path(__file__).parents[1] / "core"))
import denoising
import flows
from examples import small_model


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


@pytest.mark.parametrize("word", list(denoising.VARIANTS))
def test_every_variant_trains(word: str) -> None:
    """The benchmark puts its own functions in the place of some of `losses`."""
    split = open_split("perov_like", "val")
    batch = split.batch(range(4), None)
    model = small_model(prop=None)
    generator = torch.Generator().manual_seed(0)
    with denoising.variant([word]):
        found = losses.losses(model, batch.crystals, batch.graph, batch.prop, generator)
    plain = losses.losses(
        model, batch.crystals, batch.graph, batch.prop, torch.Generator().manual_seed(0)
    )
    assert found.coordinates.isfinite() and found.types.isfinite()
    assert (found.coordinates, found.types) != (plain.coordinates, plain.types)


def test_two_ways_for_one_thing_are_refused() -> None:
    with pytest.raises(SystemExit), denoising.variant(["levels=tied", "levels=weak"]):
        pass


@pytest.mark.parametrize("words", [[], ["scale=each"], ["times=even", "rate=0.01"]])
def test_a_flow_is_trained_in_its_scale_and_draws_in_the_models(words: list[str]) -> None:
    generator = torch.Generator().manual_seed(0)
    spread = torch.tensor([1.0, 10.0])
    data = {
        split: Labelled(
            5 + spread * torch.randn(400, 2, generator=generator),
            torch.randn(400, generator=generator),
            torch.full((400,), 5),
            torch.zeros(400, 100, dtype=torch.bool),
        )
        for split in ("train", "val")
    }
    found = flows.trained(data, 5, 300, 0, words).sample(500, generator)
    assert (found.mean(0) - 5).abs().max() < 3 and (found.std(0) / spread - 1).abs().max() < 0.5
