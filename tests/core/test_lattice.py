"""Lattice maths against pymatgen, ASE and brute force."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
import torch
from ase.geometry import find_mic
from examples import brute_images, cells
from hypothesis import given, settings
from hypothesis import strategies as st
from pymatgen.core import Lattice

from cdvae_core.errors import CdvaeError
from cdvae_core.lattice import (
    heights,
    matrix_to_parameters,
    minimum_image,
    minkowski_reduce,
    parameters_to_matrix,
    volume,
    wrap,
)

seeds = st.integers(0, 2**32 - 1)


def one(lattice: np.ndarray) -> torch.Tensor:
    return torch.as_tensor(np.ascontiguousarray(lattice, dtype=np.float64))[None]


@given(cells(shears=0))
def test_parameters_give_the_matrix_of_pymatgen(lattice: np.ndarray) -> None:
    known = Lattice(lattice)
    made = parameters_to_matrix(torch.tensor([known.abc]), torch.tensor([known.angles]))
    expected = Lattice.from_parameters(*known.parameters)
    assert np.abs(made[0].numpy() - expected.matrix).max() < 1e-4
    double = parameters_to_matrix(
        torch.tensor([known.abc], dtype=torch.float64),
        torch.tensor([known.angles], dtype=torch.float64),
    )
    assert np.abs(double[0].numpy() - expected.matrix).max() < 1e-9


@given(cells())
def test_matrix_gives_the_parameters_of_pymatgen(lattice: np.ndarray) -> None:
    lengths, angles = matrix_to_parameters(one(lattice))
    known = Lattice(lattice)
    assert np.allclose(lengths[0], known.abc, rtol=1e-12)
    assert np.allclose(angles[0], known.angles, atol=1e-6)
    assert np.isclose(volume(one(lattice))[0], known.volume, rtol=1e-10)


@given(cells())
def test_heights_are_the_spacings_of_the_lattice_planes(lattice: np.ndarray) -> None:
    spacing = 1 / np.linalg.norm(np.linalg.inv(lattice), axis=0)
    assert np.allclose(heights(one(lattice))[0], spacing, rtol=1e-9)


@given(cells(shears=5))
def test_reduction_is_unimodular_and_shortest(lattice: np.ndarray) -> None:
    cell = minkowski_reduce(one(lattice))
    reduced, from_frac = cell.matrix[0].numpy(), cell.from_frac[0].numpy()
    assert np.array_equal(from_frac, np.round(from_frac))
    assert abs(abs(np.linalg.det(from_frac)) - 1) < 1e-6
    assert np.allclose(from_frac @ reduced, lattice, atol=1e-7)
    # Minkowski's conditions in three dimensions: no b_i gets shorter by adding the earlier ones
    lengths = np.linalg.norm(reduced, axis=1)
    assert (np.diff(lengths) > -1e-9 * lengths[2]).all()
    for coefficients in brute_images(1):
        last = np.max(np.nonzero(coefficients)[0], initial=-1)
        if last >= 0:
            assert np.linalg.norm(coefficients @ reduced) > lengths[last] * (1 - 1e-9)


@settings(max_examples=50)
@given(cells(shears=1))
def test_reduced_lengths_are_the_successive_minima(lattice: np.ndarray) -> None:
    points = brute_images(12) @ lattice
    length = np.linalg.norm(points, axis=1)
    length[len(length) // 2] = np.inf
    reduced = minkowski_reduce(one(lattice)).matrix[0].norm(dim=-1).numpy()
    assert np.isclose(reduced[0], length.min(), rtol=1e-9)


def test_reduction_of_many_cells_is_that_of_each() -> None:
    rng = np.random.default_rng(0)
    lattices = torch.as_tensor(rng.normal(size=(64, 3, 3)) * 4)
    together = minkowski_reduce(lattices).matrix
    for lattice, reduced in zip(lattices, together, strict=True):
        alone = minkowski_reduce(lattice[None]).matrix[0]
        assert torch.allclose(alone.norm(dim=-1), reduced.norm(dim=-1))


@pytest.mark.timeout(60)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_reduction_of_a_cell_that_is_not_finite_ends(value: float) -> None:
    """A model that diverges predicts such cells; that must not hang its training."""
    lattice = 4 * torch.eye(3)[None].repeat(2, 1, 1)
    lattice[0, 1, 2] = value
    with contextlib.suppress(CdvaeError):
        minkowski_reduce(lattice)


@settings(max_examples=60)
@given(cells(), seeds)
def test_minimum_image_against_brute_force(lattice: np.ndarray, seed: int) -> None:
    displacement = np.random.default_rng(seed).uniform(-2, 2, (24, 3))
    found = minimum_image(
        torch.as_tensor(displacement), minkowski_reduce(one(lattice)), torch.zeros(24).long()
    ).numpy()
    wrapped = displacement - np.round(displacement)
    every = (wrapped[:, None] + brute_images(12)) @ lattice
    shortest = np.linalg.norm(every, axis=-1).min(1)
    assert np.allclose(np.linalg.norm(found, axis=-1), shortest, atol=1e-9)
    cells_away = (found - displacement @ lattice) @ np.linalg.inv(lattice)
    assert np.abs(cells_away - np.round(cells_away)).max() < 1e-7


@given(cells(shears=3), seeds)
def test_minimum_image_against_ase(lattice: np.ndarray, seed: int) -> None:
    displacement = np.random.default_rng(seed).uniform(-2, 2, (24, 3))
    found = minimum_image(
        torch.as_tensor(displacement), minkowski_reduce(one(lattice)), torch.zeros(24).long()
    ).numpy()
    _, expected = find_mic(displacement @ lattice, lattice)
    assert np.allclose(np.linalg.norm(found, axis=-1), expected, atol=1e-8)


def test_minimum_image_of_a_batch_uses_each_atoms_own_cell() -> None:
    lattices = torch.stack([2 * torch.eye(3), 8 * torch.eye(3)]).double()
    away = torch.tensor([[0.9, 0, 0], [0.9, 0, 0]], dtype=torch.float64)
    found = minimum_image(away, minkowski_reduce(lattices), torch.tensor([0, 1]))
    assert torch.allclose(found[:, 0], torch.tensor([-0.2, -0.8], dtype=torch.float64))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_wrap_stays_below_one(dtype: torch.dtype) -> None:
    tiny = torch.tensor([[-1e-20, 1.0, -3.25], [0.0, 7.5, -1e-9]], dtype=dtype)
    wrapped = wrap(tiny)
    assert (wrapped >= 0).all() and (wrapped < 1).all()
    assert wrapped[0, 2] == 0.75 and wrapped[1, 1] == 0.5
