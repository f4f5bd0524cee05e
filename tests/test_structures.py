"""Files and pymatgen structures in and out, and one clear sentence for each bad one."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Lattice, Structure

from cdvae_core.crystal import Crystal
from cdvae_core.errors import CdvaeError, DatasetError, StructureError
from cdvae_core.structures import (
    MAX_ATOMS,
    from_structure,
    niggli,
    parse_cif,
    parse_poscar,
    read_crystals,
    to_cif,
    to_structure,
)

POSCAR = """SrTiO3
1.0
3.9 0 0
0 3.9 0
0 0 3.9
Sr Ti O
1 1 3
direct
0 0 0
.5 .5 .5
.5 .5 0
.5 0 .5
0 .5 .5
"""


@pytest.fixture
def skewed() -> Crystal:
    coords = np.array([[0.1, 0.2, 0.3], [0.6, 0.75, 0.85], [0.333333, 0.0, 0.5]])
    return Crystal.from_parameters([3.2, 4.5, 6.1], [71.0, 98.0, 112.0], coords, [3, 26, 8])


def many(count: int) -> str:
    rng = np.random.default_rng(0)
    crystal = Crystal(np.full(1, 14), np.zeros((1, 3)), np.eye(3) * 60)
    lines = "\n".join(
        f"  Si  Si{i}  1  {x:.8f}  {y:.8f}  {z:.8f}  1"
        for i, (x, y, z) in enumerate(rng.random((count, 3)))
    )
    head = to_cif(crystal)
    return head[: head.index("  Si  Si0")] + lines + "\n"


def test_structures_there_and_back(skewed: Crystal) -> None:
    back = from_structure(to_structure(skewed))
    np.testing.assert_allclose(back.lattice, skewed.lattice, atol=1e-12)
    np.testing.assert_allclose(back.frac_coords, skewed.frac_coords, atol=1e-15)
    np.testing.assert_array_equal(back.atomic_numbers, skewed.atomic_numbers)


def test_cif_there_and_back(skewed: Crystal) -> None:
    back = parse_cif(to_cif(skewed))
    np.testing.assert_allclose(back.lattice, skewed.lattice, atol=1e-6)
    np.testing.assert_allclose(back.frac_coords, skewed.frac_coords, atol=1e-6)  # 0.333333 is 1/3
    np.testing.assert_array_equal(back.atomic_numbers, skewed.atomic_numbers)


def test_niggli_is_the_same_crystal_in_a_reduced_cell() -> None:
    rng = np.random.default_rng(1)
    for _ in range(20):
        lattice = Lattice(rng.normal(size=(3, 3)) * 3 + np.eye(3) * 2)
        if lattice.volume < 5:
            continue
        structure = Structure(lattice, ["Na", "Cl"], rng.random((2, 3)))
        reduced = niggli(structure)
        assert sum(reduced.lattice.abc) <= sum(structure.lattice.abc) + 1e-9
        assert reduced.volume == pytest.approx(structure.volume)
        assert StructureMatcher(primitive_cell=False, scale=False).fit(structure, reduced)


def test_poscar() -> None:
    crystal = parse_poscar(POSCAR)
    assert crystal.formula == "O3TiSr"
    np.testing.assert_allclose(crystal.lengths, 3.9)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("Sr Ti O\n", ""), "does not name its elements"),
        (("0 0 3.9", "0 3.9 0"), "no volume"),
        ((".5 .5 .5", "nan .5 .5"), "not a finite number"),
        (("Sr Ti O", "Sr Xx O"), "unknown element 'Xx'"),
        (("0 .5 .5\n", ""), "a line or a value is missing"),
        ((POSCAR, "hello"), "a line or a value is missing"),
        ((POSCAR, " \n"), "the file is empty"),
    ],
)
def test_bad_poscars(change: tuple[str, str], message: str) -> None:
    with pytest.raises(StructureError, match=message):
        parse_poscar(POSCAR.replace(*change))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("_cell_length_a   3.2", "_cell_length_a   0.0", "no volume"),
        ("_cell_length_a   3.20000000", "_cell_length_a   nan", "not finite"),
        ("_cell_angle_alpha   71", "_cell_angle_alpha   0", "no volume"),
        ("  Li  Li0", "  Qq  Qq0", "unknown element 'Q"),
        ("  Li  Li0", "  Lr  Lr0", "atomic number 103 is not an element from 1"),
        ("0.10000000", "nan", "not a number"),
        ("0.10000000", "?", "should be a number is not one"),
        ("data_", "no CIF of ", "no cell with atoms"),
    ],
)
def test_bad_cifs(skewed: Crystal, old: str, new: str, message: str) -> None:
    text = to_cif(skewed)
    assert old in text
    with pytest.raises(StructureError, match=message):
        parse_cif(text.replace(old, new))


@pytest.mark.parametrize("text", ["", "\n \n", "hello", "\0\1\2" * 50, "data_x\nloop_\n"])
def test_texts_that_are_no_cif(text: str) -> None:
    with pytest.raises(StructureError):
        parse_cif(text)


def test_several_and_shared_sites(skewed: Crystal) -> None:
    text = to_cif(skewed)
    with pytest.raises(StructureError, match="holds 2 crystals"):
        parse_cif(text + text.replace("data_", "data_b"))
    with pytest.raises(StructureError, match=r"shared or partly empty \(Li:0.5"):
        parse_cif(
            text.replace("0.30000000  1.0", "0.30000000  0.5").replace(
                "0.30000000  1\n", "0.30000000  0.5\n"
            )
        )


@pytest.mark.parametrize("count", [MAX_ATOMS + 1, 10_000])
def test_too_many_atoms_are_refused_soon(count: int) -> None:
    text = many(count)
    start = time.perf_counter()
    with pytest.raises(StructureError, match=f"{count} atoms; the limit is {MAX_ATOMS}"):
        parse_cif(text)
    assert time.perf_counter() - start < 5


def test_as_many_atoms_as_allowed() -> None:
    assert parse_cif(many(MAX_ATOMS)).num_atoms == MAX_ATOMS


def test_disordered_structures_are_refused() -> None:
    structure = Structure(Lattice.cubic(4), [{"Na": 0.5, "K": 0.5}], [[0, 0, 0]])
    with pytest.raises(StructureError, match="order it first"):
        from_structure(structure)


def test_read_crystals(tmp_path: Path, skewed: Crystal) -> None:
    (tmp_path / "a.cif").write_text(to_cif(skewed))
    assert read_crystals(tmp_path / "a.cif")[0].formula == skewed.formula
    assert len(read_crystals(tmp_path)) == 1
    (tmp_path / "b.cif").write_text("hello")
    with pytest.raises(StructureError, match=r"^b.cif: the CIF cannot be read"):
        read_crystals(tmp_path)
    with pytest.raises(DatasetError, match="there is no"):
        read_crystals(tmp_path / "c.cif")
    (tmp_path / "d.cif").write_bytes(b"\xff\xfe\x81" * 10)
    with pytest.raises(CdvaeError):
        read_crystals(tmp_path / "d.cif")
