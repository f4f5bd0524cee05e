"""What is a crystal and what is none, and the way between one crystal and a batch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from examples import batch, crystal, crystals, prototypes
from hypothesis import given, settings
from hypothesis import strategies as st
from pymatgen.core import Lattice

from cdvae_core.crystal import SYMBOLS, Crystal
from cdvae_core.errors import StructureError

CUBE = 4 * np.eye(3)
ORIGIN = np.zeros((1, 3))


@pytest.mark.parametrize(
    ("numbers", "frac", "lattice", "says"),
    [
        ([], np.zeros((0, 3)), CUBE, "no atoms"),
        ([6], [[0, 0]], CUBE, r"\[1, 3\]"),
        ([6, 6], ORIGIN, CUBE, r"\[2, 3\]"),
        ([6], ORIGIN, np.eye(2), r"\[3, 3\]"),
        ([6], [[0, np.nan, 0]], CUBE, "finite"),
        ([6], ORIGIN, np.full((3, 3), np.inf), "finite"),
        ([0], ORIGIN, CUBE, "atomic number 0"),
        ([101], ORIGIN, CUBE, "atomic number 101"),
        ([6], ORIGIN, CUBE * [[1], [1], [0]], "volume"),
        ([6], ORIGIN, np.ones((3, 3)), "volume"),
        ([6], ORIGIN, 0.4 * np.eye(3), "0.064"),
    ],
)
def test_what_is_no_crystal(numbers, frac, lattice, says: str) -> None:
    with pytest.raises(StructureError, match=says):
        crystal(numbers, frac, lattice)


def test_coordinates_are_wrapped_below_one() -> None:
    wrapped = crystal([6], [[-1e-20, 1.25, -0.25]], CUBE)
    assert np.array_equal(wrapped.frac_coords, [[0, 0.25, 0.75]])


def test_a_crystal_does_not_change_with_the_arrays_it_was_made_from() -> None:
    numbers, frac, lattice = np.array([6]), np.full((1, 3), 0.5), CUBE.copy()
    made = Crystal(numbers, frac, lattice)
    numbers[0], frac[0, 0], lattice[0, 0] = 7, 0.1, 9.0
    assert made.formula == "C"
    assert made.frac_coords[0, 0] == 0.5
    assert made.volume == pytest.approx(64)


@given(crystals(most=3, shears=0))
def test_parameters_round_trip(made: Crystal) -> None:
    known = Lattice(made.lattice)
    again = Crystal.from_parameters(
        made.lengths, made.angles, made.frac_coords, made.atomic_numbers
    )
    assert np.allclose(made.lengths, known.abc) and np.allclose(made.angles, known.angles)
    assert made.volume == pytest.approx(known.volume)
    assert np.allclose(again.lattice, Lattice.from_parameters(*known.parameters).matrix, atol=1e-8)


def test_a_flat_cell_keeps_its_angles() -> None:
    """A cell in a skewed basis is a crystal like any other, not a prediction to be repaired."""
    lattice = np.array([[1, 0, 0], [30, 1, 0], [0, 0, 1]]) @ CUBE
    known = Lattice(lattice)
    made = Crystal.from_parameters(known.abc, known.angles, ORIGIN, [6])
    assert np.allclose(made.angles, known.angles, atol=1e-6)
    assert made.volume == pytest.approx(64, rel=1e-6)


def test_angles_that_no_cell_can_have_are_no_crystal() -> None:
    with pytest.raises(StructureError):
        Crystal.from_parameters([4, 4, 4], [30, 30, 150], ORIGIN, [6])


def test_formula_and_symbols() -> None:
    from pymatgen.core import Element

    assert prototypes()["perovskite"].formula == "O3TiSr"
    assert SYMBOLS[1:] == [Element.from_Z(z).symbol for z in range(1, 101)]


@settings(max_examples=30)
@given(st.lists(crystals(most=5), min_size=1, max_size=4))
def test_batch_and_back(given_crystals: list[Crystal]) -> None:
    again = batch(given_crystals).to_crystals()
    for one, other in zip(given_crystals, again, strict=True):
        assert np.array_equal(one.atomic_numbers, other.atomic_numbers)
        assert np.array_equal(one.frac_coords, other.frac_coords)
        assert np.array_equal(one.lattice, other.lattice)


def test_batch_of_crystals_of_different_size() -> None:
    known = prototypes()
    both = batch([known["fcc"], known["perovskite"]], torch.float32)
    assert both.crystal_of_atom.tolist() == [0, 1, 1, 1, 1, 1]
    assert torch.allclose(both.cart_coords[2], torch.tensor([1.95] * 3))
    twice = both.repeat(2)
    assert twice.num_crystals == 4 and twice.crystal_of_atom.max() == 3
    assert [c.formula for c in twice.to_crystals()] == ["Cu", "O3TiSr"] * 2
    double = both.to(dtype=torch.float64)
    assert double.lattice.dtype == double.frac_coords.dtype == torch.float64
    assert double.atomic_numbers.dtype == torch.int64


def test_batch_with_a_bad_crystal_says_so() -> None:
    good = batch(prototypes().values())
    bad = good.replace(frac_coords=good.frac_coords * float("nan"))
    with pytest.raises(StructureError, match="finite"):
        bad.to_crystals()
