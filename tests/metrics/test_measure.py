"""One crystal by itself: against the published code's figures, and what may not change them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from golden import CASES, crystals, expected, fingerprints

from cdvae_core.crystal import Crystal
from cdvae_core.metrics.measure import Measurement, measure

ROCK_SALT = [[0, 0, 0], [0.5, 0.5, 0.5]]


def primitive(a: float, numbers: list[int]) -> Crystal:
    return Crystal(np.array(numbers), np.array(ROCK_SALT), a / 2 * (np.ones((3, 3)) - np.eye(3)))


def check(case: str, places: range) -> None:
    known = fingerprints(case)
    for side in ("pred", "gt"):
        for i in places:
            found, wanted = measure(crystals(case, side)[i]), expected_of(case, side)[i]
            for flag in ("struct_valid", "comp_valid", "valid"):
                assert getattr(found, flag) == wanted[flag], (case, side, i, flag)
            assert found.density == pytest.approx(wanted["density"], rel=1e-6)
            assert found.volume == pytest.approx(wanted["volume"], rel=1e-6)
            assert found.shortest_pair == pytest.approx(wanted["min_distance_offdiag"], rel=1e-6)
            assert found.num_elements == wanted["n_elem"]
            # of its norm, as distances between fingerprints are what counts
            near = {"rtol": 0, "atol": 1e-6 * np.linalg.norm(known[f"{side}_struct"][i])}
            assert np.allclose(found.structure_fingerprint, known[f"{side}_struct"][i], **near)
            composition = known[f"{side}_comp"][i]
            assert np.allclose(
                found.composition_fingerprint, composition, rtol=1e-6, equal_nan=True
            )


_EXPECTED: dict[str, dict] = {}


def expected_of(case: str, side: str) -> list[dict]:
    if case not in _EXPECTED:
        _EXPECTED[case] = expected(case)["per_structure"]
    return _EXPECTED[case][side]


@pytest.mark.parametrize("case", CASES)
def test_the_published_figures_of_some(case: str) -> None:
    check(case, range(0, len(crystals(case, "pred")), 25))


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_the_published_figures_of_all(case: str) -> None:
    check(case, range(len(crystals(case, "pred"))))


def test_rock_salt() -> None:
    found = measure(primitive(5.64, [11, 17]))
    assert found.formula == "NaCl" and found.spacegroup == 225
    assert found.density == pytest.approx(2.164, abs=0.01)
    assert found.shortest_pair == pytest.approx(2.82)
    assert found.shortest_image == pytest.approx(5.64 / math.sqrt(2))
    assert found.valid and found.comp_valid_current and not found.failures


def test_own_images_are_not_the_published_rule() -> None:
    """A cell 0.4 Å thin passes it, and is reported beside it."""
    thin = Crystal(np.array([6]), np.zeros((1, 3)), np.diag([0.4, 5.0, 5.0]))
    found = measure(thin)
    assert found.struct_valid and found.shortest_image == pytest.approx(0.4)
    assert found.shortest_pair == math.inf


def test_another_description_measures_the_same() -> None:
    """Without symmetry: where neighbours tie, CrystalNN's choice depends on their order."""
    rng = np.random.default_rng(0)
    coords = np.array([[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0.03], [0.5, 0, 0.5], [0, 0.5, 0.5]])
    coords = coords + 0.02 * rng.normal(size=(5, 3))
    given = Crystal(np.array([56, 22, 8, 8, 8]), coords, np.diag([3.9, 4.0, 4.2]))
    order = rng.permutation(5)
    moved = Crystal(given.atomic_numbers[order], given.frac_coords[order] + 0.3, given.lattice)
    one, other = measure(given), measure(moved)
    assert (one.formula, one.spacegroup, one.valid) == (
        other.formula,
        other.spacegroup,
        other.valid,
    )
    assert other.shortest_pair == pytest.approx(one.shortest_pair)
    assert np.allclose(one.structure_fingerprint, other.structure_fingerprint, atol=1e-6)
    assert np.allclose(one.composition_fingerprint, other.composition_fingerprint)


def test_no_crystal() -> None:
    found = Measurement.of_no_crystal([11, 17], "no volume")
    assert found.comp_valid and not found.struct_valid and not found.valid
    assert found.failures == {"crystal": "no volume"} and math.isnan(found.density)
    unknown = Measurement.of_no_crystal(None, "unreadable")
    assert not unknown.comp_valid and unknown.num_atoms == 0
