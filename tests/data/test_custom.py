"""The user's own files: every format read, every bad one named."""

from __future__ import annotations

import math
from pathlib import Path

import ase.db
import ase.io
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ase import Atoms
from toys import cif_text, random_crystal

from cdvae_core.crystal import Crystal
from cdvae_core.data.custom import Entry, assign_splits, read_entries, source_digest
from cdvae_core.errors import DatasetError, StructureError
from cdvae_core.structures import load, to_cif, to_structure


def atoms_of(crystal: Crystal) -> Atoms:
    return Atoms(
        crystal.atomic_numbers, scaled_positions=crystal.frac_coords, cell=crystal.lattice, pbc=True
    )


@pytest.fixture
def crystals() -> list[Crystal]:
    rng = np.random.default_rng(3)
    return [random_crystal(rng) for _ in range(4)]


def same(entry: Entry, crystal: Crystal, tolerance: float = 1e-7) -> None:
    read = load(entry.content)
    order, expected = (np.argsort(c.atomic_numbers) for c in (read, crystal))  # CIF sorts atoms
    np.testing.assert_array_equal(read.atomic_numbers[order], crystal.atomic_numbers[expected])
    np.testing.assert_allclose(read.lengths, crystal.lengths, atol=tolerance * 10)
    np.testing.assert_allclose(read.angles, crystal.angles, atol=tolerance * 1000)
    difference = read.frac_coords[order] - crystal.frac_coords[expected]
    np.testing.assert_allclose(difference - np.round(difference), 0, atol=tolerance)


def test_csv(tmp_path: Path, crystals: list[Crystal]) -> None:
    lines = ["id,cif,gap,comment,split"]
    rows = zip(
        crystals, ("1.5", "", "-2e-3", "nan"), ("train", "val", "test", "train"), strict=True
    )
    lines += [f'x{i},"{to_cif(c)}",{gap},hello,{s}' for i, (c, gap, s) in enumerate(rows)]
    (tmp_path / "own.csv").write_text("\n".join(lines))
    entries = read_entries(tmp_path / "own.csv")
    assert [e.id for e in entries] == ["x0", "x1", "x2", "x3"]
    assert [e.split for e in entries] == ["train", "val", "test", "train"]
    assert all(set(e.properties) == {"gap"} for e in entries)
    np.testing.assert_array_equal(
        [e.properties["gap"] for e in entries], [1.5, math.nan, -0.002, math.nan]
    )
    for entry, crystal in zip(entries, crystals, strict=True):
        same(entry, crystal)


def test_parquet_with_arrays(tmp_path: Path, crystals: list[Crystal]) -> None:
    rows = [
        {
            "id": f"p{i}",
            "split": "train",
            "numbers": c.atomic_numbers.tolist(),
            "lengths": c.lengths.tolist(),
            "angles": c.angles.tolist(),
            "frac_coords": c.frac_coords.ravel().tolist(),
            "formation_energy_per_atom": -float(i),
        }
        for i, c in enumerate(crystals)
    ]
    rows.append(rows[0] | {"id": "bad", "frac_coords": [0.0] * 7})
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "made.parquet")
    *good, bad = read_entries(tmp_path / "made.parquet")
    for entry, crystal in zip(good, crystals, strict=True):
        same(entry, crystal, 1e-12)
    assert good[3].properties == {"formation_energy_per_atom": -3.0}
    with pytest.raises(StructureError, match="do not form a crystal"):
        load(bad.content)


def test_folder_of_cif_and_poscar(tmp_path: Path, crystals: list[Crystal]) -> None:
    folder = tmp_path / "mine"
    (folder / "deep").mkdir(parents=True)
    (folder / "a.cif").write_text(to_cif(crystals[0]))
    to_structure(crystals[1]).to(str(folder / "deep" / "POSCAR"), fmt="poscar")
    to_structure(crystals[2]).to(str(folder / "c.vasp"), fmt="poscar")
    (folder / "notes.txt").write_text("not a crystal")
    (folder / "empty.cif").write_text("")
    entries = {e.id: e for e in read_entries(folder)}
    assert list(entries) == ["a.cif", "c.vasp", "deep/POSCAR", "empty.cif"]
    same(entries["a.cif"], crystals[0])
    for name, crystal in (("deep/POSCAR", crystals[1]), ("c.vasp", crystals[2])):
        read = load(entries[name].content)
        assert read.formula == crystal.formula
        assert read.volume == pytest.approx(crystal.volume)
    with pytest.raises(StructureError, match="empty"):
        load(entries["empty.cif"].content)


def test_extxyz(tmp_path: Path, crystals: list[Crystal]) -> None:
    frames = [atoms_of(c) for c in crystals]
    for i, frame in enumerate(frames[:3]):
        frame.info["gap"] = 0.5 * i
    frames.append(Atoms("H2", positions=[[0, 0, 0], [0, 0, 1]]))
    ase.io.write(tmp_path / "own.extxyz", frames)
    *good, molecule = read_entries(tmp_path / "own.extxyz")
    for entry, crystal in zip(good, crystals, strict=True):
        same(entry, crystal)
    np.testing.assert_array_equal([e.properties["gap"] for e in good], [0, 0.5, 1, math.nan])
    with pytest.raises(StructureError, match="not periodic"):
        load(molecule.content)


def test_ase_database(tmp_path: Path, crystals: list[Crystal]) -> None:
    with ase.db.connect(tmp_path / "own.db") as database:
        for i, crystal in enumerate(crystals):
            database.write(atoms_of(crystal), gap=float(i), kind="toy")
    entries = read_entries(tmp_path / "own.db")
    for i, (entry, crystal) in enumerate(zip(entries, crystals, strict=True)):
        assert entry.properties == {"gap": float(i)}
        same(entry, crystal, 1e-12)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("gone.csv", None, "there is no .*gone.csv"),
        ("empty.csv", "", "empty.csv is empty"),
        ("header.csv", "id,cif\n", "has no column `cif`: it has nothing|no crystals"),
        ("other.csv", "id,smiles\n1,CC\n", "has no column `cif`: it has id, smiles"),
        ("binary.csv", b"\xff\xfe\x00\x81", "is no CSV file"),
        ("twins.csv", "id,cif\n1,a\n1,b\n", "two crystals named '1'"),
        ("broken.parquet", "hello", "is no Parquet file or is damaged"),
        ("broken.db", "hello hello hello", "is no ASE database or is damaged"),
        ("broken.extxyz", "3\nhello\nH 0 0\n", "frame 0 of .*broken.extxyz cannot be read"),
        ("broken.xyz", "many\nhello\n", "frame 0 of .*broken.xyz cannot be read"),
        ("model.pkl", "hello", "is no CSV, Parquet, CIF, POSCAR, extxyz or ASE db file"),
    ],
)
def test_bad_files_are_named(tmp_path: Path, name, content, message) -> None:
    if isinstance(content, str):
        (tmp_path / name).write_text(content)
    elif content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DatasetError, match=message):
        read_entries(tmp_path / name)


def test_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="there are no crystals in"):
        read_entries(tmp_path)


def entries_named(count: int, split: str | None = None) -> list[Entry]:
    return [Entry(str(i), cif_text(), split=split) for i in range(count)]


@pytest.mark.parametrize(("count", "held_out"), [(1, 0), (2, 0), (3, 1), (10, 1), (57, 5)])
def test_seeded_splits(count: int, held_out: int) -> None:
    splits = assign_splits(entries_named(count))
    assert [len(splits[s]) for s in ("val", "test")] == [held_out] * 2
    ids = [e.id for s in splits.values() for e in s]
    assert sorted(ids, key=int) == [str(i) for i in range(count)]
    assert splits == assign_splits(entries_named(count))


def test_given_splits_are_kept_and_half_given_ones_refused() -> None:
    given = [*entries_named(3, "train"), *entries_named(2, "test")]
    assert {s: len(e) for s, e in assign_splits(given).items()} == {"train": 3, "val": 0, "test": 2}
    with pytest.raises(DatasetError, match="'0' has no split"):
        assign_splits([*entries_named(1), *entries_named(2, "val")])


def test_the_digest_follows_the_content(tmp_path: Path) -> None:
    path = tmp_path / "a.cif"
    path.write_text(cif_text())
    seen = {source_digest([Entry("a", path)])}
    path.write_text(cif_text(a=4.2))
    seen.add(source_digest([Entry("a", path)]))
    seen.add(source_digest([Entry("b", path)]))
    seen.add(source_digest([Entry("b", path, {"gap": 1.0})]))
    seen.add(source_digest([Entry("b", path, {"gap": math.nan})]))
    crystal = random_crystal(np.random.default_rng(0))
    seen.add(source_digest([Entry("b", crystal)]))
    assert len(seen) == 6
