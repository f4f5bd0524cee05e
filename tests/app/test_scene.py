"""What is drawn: images on faces, bonds, colours."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.services.scene import elements_of, face_images, scene
from cdvae_core.crystal import Crystal


def cubic(length: float, numbers: list[int], coords: list[list[float]]) -> Crystal:
    return Crystal.from_parameters([length] * 3, [90.0] * 3, np.array(coords), numbers)


PEROVSKITE = [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]


def test_perovskite_is_an_octahedron_in_a_cube_of_cations() -> None:
    drawn = scene(cubic(3.905, [38, 22, 8, 8, 8], PEROVSKITE))
    assert sorted(drawn.numbers.tolist()) == [8] * 6 + [22] + [38] * 8
    assert drawn.image.sum() == 10
    assert not drawn.image[:5].any()
    pairs = {tuple(sorted(drawn.numbers[pair].tolist())) for pair in drawn.bonds}
    assert pairs == {(8, 22)}
    assert len(drawn.bonds) == 6


def test_rock_salt_joins_only_unlike_ions() -> None:
    na = [[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]]
    cl = [[0.5, 0.5, 0.5], [0.5, 0, 0], [0, 0.5, 0], [0, 0, 0.5]]
    drawn = scene(cubic(5.64, [11] * 4 + [17] * 4, na + cl))
    assert len(drawn.numbers) == 27
    assert {tuple(sorted(drawn.numbers[p].tolist())) for p in drawn.bonds} == {(11, 17)}
    assert len(drawn.bonds) == 54  # the edges of a 3 x 3 x 3 grid


def test_a_metal_without_anions_has_bonds() -> None:
    fcc = [[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]]
    drawn = scene(cubic(3.61, [29] * 4, fcc))
    assert len(drawn.numbers) == 14
    length = np.linalg.norm(np.diff(drawn.positions[drawn.bonds], axis=1)[:, 0], axis=1)
    assert len(length) == 36
    assert length == pytest.approx(3.61 / 2**0.5)


def test_an_atom_just_outside_a_face_is_drawn_on_both() -> None:
    owner, frac = face_images(cubic(4.0, [14, 14], [[0.99, 0.5, 0.5], [0.3, 0.4, 0.6]]))
    assert owner.tolist() == [0, 1, 0]
    assert frac[2] == pytest.approx([-0.01, 0.5, 0.5])


def test_atoms_on_top_of_each_other_are_not_joined() -> None:
    assert len(scene(cubic(6.0, [6, 6], [[0.5, 0.5, 0.5], [0.5, 0.5, 0.51]])).bonds) == 0


def test_peroxide_joins_its_anions() -> None:
    drawn = scene(cubic(8.0, [8, 8], [[0.4, 0.5, 0.5], [0.58, 0.5, 0.5]]))
    assert drawn.bonds.tolist() == [[0, 1]]


@given(
    st.lists(st.integers(1, 100), min_size=1, max_size=8),
    st.integers(0, 2**32 - 1),
)
def test_every_drawn_atom_is_a_translation_of_its_own(numbers: list[int], seed: int) -> None:
    generator = np.random.default_rng(seed)
    lengths, angles = generator.uniform(3, 9, 3), generator.uniform(70, 110, 3)
    coords = generator.random((len(numbers), 3)) * generator.choice([0, 1], (len(numbers), 3))
    crystal = Crystal.from_parameters(lengths, angles, coords, numbers)
    owner, frac = face_images(crystal)
    shift = frac - crystal.frac_coords[owner]
    assert np.allclose(shift, np.round(shift))
    assert len(np.unique(np.round(np.c_[owner, frac], 6), axis=0)) == len(owner)
    drawn = scene(crystal).payload()
    assert len(drawn["x"]) == 3 * len(drawn["n"]) == 3 * len(drawn["m"])
    assert all(0 <= i < len(drawn["n"]) for i in drawn["b"])
    assert set(elements_of([drawn])) == {str(z) for z in numbers}
