"""Of several decodings the one that the encoder takes for the latent's own."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from examples import perovskites, small_model

from cdvae_core.consistency import Consistency, distance, mended, nearest
from cdvae_core.crystal import Crystal, CrystalBatch
from cdvae_core.data.preprocess import crystal_nn_edges
from cdvae_core.decode import Given, decode
from cdvae_core.encode import encode_alike, encode_crystal
from cdvae_core.errors import ConfigError
from cdvae_core.graph import MultiGraph
from cdvae_core.langevin import Schedule
from cdvae_core.model import CDVAE

SHORT = Schedule((0.5, 0.1), steps_per_level=2, epsilon=0.01, denoising_steps=1)


@pytest.fixture
def model() -> CDVAE:
    return small_model(0)


@torch.no_grad()
def latent(model: CDVAE, crystal: Crystal) -> torch.Tensor:
    graph = MultiGraph(*(torch.as_tensor(part) for part in crystal_nn_edges(crystal)))
    return model.encode(CrystalBatch.from_crystals([crystal]), graph)[0][0]


def exchange(crystal: Crystal, order: list[int]) -> Crystal:
    return Crystal(crystal.atomic_numbers[order], crystal.frac_coords, crystal.lattice)


def test_exchanged_elements_lie_farther_than_the_crystal_itself(model: CDVAE) -> None:
    for true in perovskites(4):
        z = latent(model, true)
        others = [exchange(true, [1, 0, 2, 3, 4]), exchange(true, [2, 1, 0, 3, 4])]
        assert distance(model, z, true) < 1e-4 * float(z.norm())
        assert all(distance(model, z, other) > 1e-2 * float(z.norm()) for other in others)
        assert nearest(model, z, [others[0], true, others[1]]) == 1


def test_what_is_no_crystal_is_never_chosen_over_one(model: CDVAE) -> None:
    [one] = perovskites(1)
    z = latent(model, one)
    lonely = Crystal(np.array([2]), np.zeros((1, 3)), 60 * np.eye(3))  # has no bonds
    strange = Crystal(np.array([99, 8, 8, 8, 22]), one.frac_coords, one.lattice)
    assert distance(model, z, None) == distance(model, z, strange) == math.inf
    assert nearest(model, z, [None, lonely, exchange(one, [1, 0, 2, 3, 4])]) == 2
    knot = Crystal(one.atomic_numbers, 1e-3 * one.frac_coords, one.lattice)
    assert distance(model, z, knot) == math.inf
    assert nearest(model, z, [None, lonely]) == nearest(model, z, [None, knot]) == 1
    assert nearest(model, z, [None, None]) == 0


def test_decoding_keeps_the_most_consistent_of_its_tries(model: CDVAE) -> None:
    z = torch.stack([latent(model, one) for one in perovskites(3)])
    names = ["a", "b", "c"]

    def decoded(names: list[str], latents: torch.Tensor, tries: int) -> list[Crystal | None]:
        given = Given(torch.full((len(latents),), 5))
        steps = decode(model, latents, names, SHORT, 0, given=given, consistency=Consistency(tries),
                       batch_size=12)  # fmt: skip
        return [d.crystal for _, done in steps for d in done]

    every = decoded([str(i) for i in range(12)], z.repeat_interleave(4, 0), 1)
    kept = decoded(names, z, 4)
    assert len(kept) == 3
    for place, crystal in enumerate(kept):
        own = every[4 * place : 4 * place + 4]
        best = own[nearest(model, z[place], own)]
        assert crystal is not None and best is not None
        assert np.array_equal(crystal.frac_coords, best.frac_coords)
    assert any(
        not np.array_equal(crystal.frac_coords, every[4 * i].frac_coords)
        for i, crystal in enumerate(kept)
    )


@pytest.mark.parametrize("asked", [Consistency(tries=2), Consistency(exchange=True)])
def test_a_trajectory_is_of_one_decoding(model: CDVAE, asked: Consistency) -> None:
    steps = decode(model, torch.zeros(1, 16), ["a"], SHORT, 0, consistency=asked, trajectory=True)
    with pytest.raises(ConfigError, match="one decoding"):
        next(steps)


@pytest.mark.parametrize("few", [256, 1])  # all arrangements, or exchanges of two
def test_a_wrong_arrangement_is_exchanged_back(
    model: CDVAE, few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cdvae_core.consistency._FEW", few)
    for true in perovskites(4):
        z = latent(model, true)
        for order in ([1, 0, 2, 3, 4], [2, 1, 0, 3, 4], [1, 2, 0, 3, 4]):  # the last takes two
            found = mended(model, z, exchange(true, order))
            assert np.array_equal(found.atomic_numbers, true.atomic_numbers)
            assert np.array_equal(found.frac_coords, true.frac_coords)


def test_what_is_right_or_cannot_be_encoded_stays(model: CDVAE) -> None:
    [one] = perovskites(1)
    z = latent(model, one)
    assert mended(model, z, one) is one
    knot = Crystal(one.atomic_numbers, 1e-3 * one.frac_coords, one.lattice)
    assert mended(model, z, knot) is knot
    diamond = Crystal(np.array([6, 6]), np.array([[0, 0, 0], [0.25, 0.25, 0.25]]),
                      1.78 * (np.ones((3, 3)) - np.eye(3)))  # fmt: skip
    assert mended(model, z, diamond) is diamond


def test_a_decoding_can_be_exchanged(model: CDVAE) -> None:
    z = torch.stack([latent(model, one) for one in perovskites(3)])

    def decoded(asked: Consistency) -> list[Crystal | None]:
        given = Given(torch.full((3,), 5))
        steps = decode(model, z, ["a", "b", "c"], SHORT, 0, given=given, consistency=asked)
        return [d.crystal for _, done in steps for d in done]

    moved = 0
    for one, before, after in zip(
        z, decoded(Consistency()), decoded(Consistency(exchange=True)), strict=True
    ):
        assert before is not None and after is not None
        moved += not np.array_equal(before.atomic_numbers, after.atomic_numbers)
        assert sorted(before.atomic_numbers) == sorted(after.atomic_numbers)
        assert np.array_equal(before.frac_coords, after.frac_coords)
        assert np.array_equal(after.atomic_numbers, mended(model, one, before).atomic_numbers)
    assert moved


def test_arrangements_are_encoded_together_as_one_by_one(model: CDVAE) -> None:
    [one] = perovskites(1)
    bonds = crystal_nn_edges(one)
    many = [exchange(one, [i % 5, *(j for j in range(5) if j != i % 5)]) for i in range(1100)]
    together = encode_alike(model, many, bonds)  # more than are encoded at once
    for place in (0, 1, 4, 999, 1000, 1099):
        alone = encode_crystal(model, many[place], bonds)
        torch.testing.assert_close(together[place], alone, atol=1e-4, rtol=1e-4)
