"""Symmetry made exact: crystals shaken a little come back; figures say before and after."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from examples import crystal, prototypes
from hypothesis import given
from hypothesis import strategies as st
from pymatgen.symmetry.analyzer import SpacegroupAnalyzer

from cdvae_core import refine as refining
from cdvae_core.crystal import Crystal
from cdvae_core.evaluation.inputs import Broken, Crystals
from cdvae_core.metrics.stability import Relaxed
from cdvae_core.refine import Refined, names_of, refined, settings, symmetrised, table
from cdvae_core.structures import to_structure

GROUPS = {"perovskite": 221, "rocksalt": 225, "diamond": 227, "hcp": 194, "bcc": 229}


def shaken(ideal: Crystal, seed: int, by: float = 0.01) -> Crystal:
    """Every atom moved by about so many Å, the cell strained by half a percent."""
    rng = np.random.default_rng(seed)
    moved = ideal.frac_coords + rng.normal(0, by, ideal.frac_coords.shape) @ np.linalg.inv(
        ideal.lattice
    )
    strain = rng.normal(0, 0.002, (3, 3))
    return Crystal(ideal.atomic_numbers, moved, ideal.lattice @ (np.eye(3) + (strain + strain.T)))


def group(one: Crystal, tolerance: float) -> int:
    return SpacegroupAnalyzer(to_structure(one), symprec=tolerance).get_space_group_number()


@pytest.mark.parametrize("name", GROUPS)
@given(seed=st.integers(0, 1000))
def test_a_shaken_crystal_gets_its_symmetry_back(name: str, seed: int) -> None:
    before = shaken(prototypes()[name], seed)
    after = symmetrised(before, 0.2)
    assert group(after, 1e-3) == GROUPS[name]
    assert after.formula == before.formula
    assert (after.atomic_numbers == before.atomic_numbers).all()
    moved = (after.frac_coords - before.frac_coords + 0.5) % 1 - 0.5
    assert np.abs((moved - moved.mean(0)) @ before.lattice).max() < 0.1
    np.testing.assert_allclose(after.lengths, before.lengths, rtol=0.03)


def test_what_has_no_symmetry_stays_as_it_is() -> None:
    rng = np.random.default_rng(0)
    odd = crystal([11, 17, 8, 6], rng.random((4, 3)), [[4.0, 0, 0], [0.7, 5.1, 0], [1.1, 0.4, 6.3]])
    after = symmetrised(odd, 0.1)
    np.testing.assert_allclose(after.frac_coords, odd.frac_coords, atol=1e-8)
    np.testing.assert_allclose(after.lengths, odd.lengths, atol=1e-8)


def test_an_exact_crystal_stays_as_it_is() -> None:
    ideal = prototypes()["perovskite"]
    after = symmetrised(ideal, 0.1)
    np.testing.assert_allclose(after.frac_coords, ideal.frac_coords, atol=1e-8)


def test_the_table_says_before_and_after() -> None:
    ideal = prototypes()["perovskite"]
    found = [refined(shaken(ideal, seed, 0.02), 0.2, None) for seed in range(4)]
    text = table(found, [ideal] * 4)
    rows = {line[:34].strip(): line[34:].split() for line in text.splitlines()}
    assert rows["in P1, within 0.01 Å"] == ["100.0", "%", "0.0", "%"]
    assert rows["match"] == ["100.0", "%", "100.0", "%"]
    before, after = (float(value) for value in rows["RMSE"])
    assert after < 1e-6 < before
    assert "energy" not in text  # nothing was asked of a potential
    assert text.endswith("Over 4 of 4 crystals, those for which every step succeeded.")


def test_a_crystal_that_cannot_be_refined_stays_as_it_was() -> None:
    ideal = prototypes()["perovskite"]
    touching = crystal([11, 11], [[0, 0, 0], [0, 0, 1e-7]], 4 * np.eye(3))
    found = [refined(ideal, 0.1, None), refined(touching, 0.1, None)]
    assert found[1].after is None and found[1].last is touching and "0.1 Å" in found[1].problem
    assert table(found).endswith("Over 1 of 2 crystals, those for which every step succeeded.")


def test_a_relaxation_comes_first_and_its_energies_are_shown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The potential is a stand-in here: `test_stability` has the real one."""
    ideal = prototypes()["perovskite"]
    energies = {4.1: -1.0, 3.9: -2.0}
    monkeypatch.setattr(refining, "relax", lambda one, _: Relaxed(ideal, -2.0, 0.1))
    monkeypatch.setattr(refining, "energy", lambda one, _: energies[round(one.lengths[0], 1)])
    wide = Crystal(ideal.atomic_numbers, ideal.frac_coords, ideal.lattice * 4.1 / 3.9)
    found = refined(wide, 0.1, "chgnet")
    assert found.after is not None and round(found.after.lengths[0], 6) == 3.9
    [row] = [line for line in table([found]).splitlines() if "energy" in line]
    assert row.split()[-2:] == ["-1.0000", "-2.0000"]

    def unknown(one: Crystal, potential: str) -> Relaxed:
        raise KeyError(100)  # as a potential does to an element that it does not know

    monkeypatch.setattr(refining, "relax", unknown)
    failed = refined(wide, 0.1, "chgnet")
    assert failed.last is wide and "KeyError" in failed.problem


def test_what_is_no_crystal_keeps_its_reason() -> None:
    found = refined(Broken("it has no atoms"), 0.1, None)
    assert found == Refined(None, None, "it has no atoms")
    assert table([found]) == "no crystal was refined"


def test_names_are_the_ids_where_files_can_be_called_so() -> None:
    assert names_of(["mp-1", "b.2", "c.cif"]) == ["mp-1", "b.2", "c"]
    for ids in (["a", "a"], ["a", "A"], ["../a", "b"], ["a/b", "c"], [".a", "b"], ["a" * 200, "b"]):
        assert names_of(ids) == ["crystal-00000", "crystal-00001"]


def test_the_manifest_keeps_what_scoring_needs() -> None:
    true = Crystals("perov_like:val", ["x"], [prototypes()["bcc"]])
    given = Crystals("made", ["x-0", "x-1"], [*true.items] * 2, 2, true, dataset="perov_like")
    about = settings(Path("made"), given, 0.1, None)
    assert json.loads(json.dumps(about))["k"] == 2
    assert (about["dataset"], about["split"]) == ("perov_like", "val")
    assert given.true == [*true.items] * 2
