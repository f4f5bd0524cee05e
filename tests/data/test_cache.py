"""Splits in memory: batches against a plain loop, fingerprints, damage, what is imported."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from toys import random_crystal

import cdvae_core.data.format as format_module
from cdvae_core.crystal import CrystalBatch
from cdvae_core.data.cache import CachedSplit, open_split, read_split
from cdvae_core.data.format import (
    Skipped,
    SplitInfo,
    concatenate,
    join_splits,
    pack,
    write_split,
)
from cdvae_core.errors import DatasetError, OutputError


def fake_edges(rng: np.random.Generator, atoms: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    count = int(rng.integers(1, 30))
    target = np.sort(rng.integers(0, atoms, count))
    return rng.integers(0, atoms, count), target, rng.integers(-3, 4, (count, 3))


def fake_arrays(count: int, seed: int = 0, first: str = "c") -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    parts = []
    for i in range(count):
        crystal = random_crystal(rng, 1 + i % 7)
        edges = fake_edges(rng, crystal.num_atoms)
        parts.append(
            pack(f"{first}-{i}-é", crystal, edges, {"energy": rng.normal(), "gap": np.nan})
        )
    return concatenate(parts)


@pytest.fixture
def split(tmp_path: Path) -> CachedSplit:
    path = tmp_path / "toy-train.safetensors"
    write_split(path, fake_arrays(40), SplitInfo("toy", "train", "abc", ("a note",)))
    return read_split(path)


def test_batch_equals_a_loop_over_its_crystals(split: CachedSplit) -> None:
    order = [7, 0, 39, 7, 21]
    batch = split.batch(order, "energy")
    expected = CrystalBatch.from_crystals([split.crystal(i) for i in order])
    for name in ("atomic_numbers", "frac_coords", "lattice", "num_atoms"):
        torch.testing.assert_close(getattr(batch.crystals, name), getattr(expected, name))
    np.testing.assert_allclose(batch.prop, split.properties["energy"][order], rtol=1e-6)
    assert batch.index.tolist() == order
    atom, edge = 0, 0
    for i in order:
        one = split.batch([i]).graph
        size = len(one.source)
        for name, shift in (("source", atom), ("target", atom), ("image", 0)):
            part = getattr(batch.graph, name)[edge : edge + size]
            assert torch.equal(part, getattr(one, name) + shift)
        atom, edge = atom + int(split.num_atoms[i]), edge + size
    assert edge == len(batch.graph.source)
    assert (batch.graph.target.diff() >= 0).all()


def test_names_and_unknown_properties(split: CachedSplit) -> None:
    assert split.ids == [f"c-{i}-é" for i in range(40)]
    assert len(split) == 40
    assert split.batch([1, 2], "gap").prop.isnan().all()
    assert split.batch(torch.tensor([3])).prop.isnan().all()


@pytest.mark.parametrize(
    ("indices", "name", "message"),
    [
        ([0], "mass", "no property 'mass': it has energy, gap"),
        ([], "energy", "at least one index"),
        ([40], "energy", "index 40 is outside"),
        ([-1], "energy", "index -1 is outside"),
    ],
)
def test_impossible_batches(split: CachedSplit, indices, name, message) -> None:
    with pytest.raises(DatasetError, match=message):
        split.batch(indices, name)


def test_some_are_distinct_in_order_and_the_same_again(split: CachedSplit) -> None:
    some, again = (split.some(3, torch.Generator().manual_seed(1)) for _ in range(2))
    assert some == again == sorted(set(some)) and len(some) == 3
    for n in (None, len(split) + 1):
        assert split.some(n, torch.Generator().manual_seed(1)) == list(range(len(split)))


def test_fingerprint_follows_every_part(tmp_path: Path) -> None:
    arrays, info = fake_arrays(5), SplitInfo("toy", "train", notes=("a",))
    seen = {write_split(tmp_path / "x", arrays, info).fingerprint}
    for other in (
        SplitInfo("other", "train", notes=("a",)),
        SplitInfo("toy", "val", notes=("a",)),
        SplitInfo("toy", "train", notes=("b",)),
    ):
        seen.add(write_split(tmp_path / "x", arrays, other).fingerprint)
    for name, array in arrays.items():
        changed = array.copy()
        changed.reshape(-1)[0] += 1
        if not np.array_equal(changed, array, equal_nan=True):
            seen.add(write_split(tmp_path / "x", arrays | {name: changed}, info).fingerprint)
    assert len(seen) == 4 + len(arrays) - 1  # all but the property that is NaN
    assert write_split(tmp_path / "y", arrays, info).fingerprint in seen


def test_the_library_reads_what_is_written_piece_by_piece(tmp_path: Path) -> None:
    arrays = fake_arrays(12)
    write_split(tmp_path / "x", arrays, SplitInfo("toy", "train"))
    read = load_file(tmp_path / "x")
    assert read.keys() == arrays.keys()
    for name, value in arrays.items():
        np.testing.assert_array_equal(read[name], value)
        assert read[name].dtype == value.dtype


def test_parts_join_into_the_split_that_was_never_cut(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(format_module, "_PIECE", 100)  # bytes: many pieces for each array
    pieces = [fake_arrays(count, seed) for seed, count in enumerate((9, 1, 14))]
    info = SplitInfo("toy", "train", "abc", ("a note",), (Skipped("x", "why"),))
    paths = [tmp_path / f"{i}" for i in range(3)]
    for path, piece in zip(paths, pieces, strict=True):
        write_split(path, piece, SplitInfo("toy", "train"))
    joined = join_splits(paths, tmp_path / "joined", info)
    assert joined == write_split(tmp_path / "whole", concatenate(pieces), info)
    assert (tmp_path / "joined").read_bytes() == (tmp_path / "whole").read_bytes()


def test_a_split_is_read_again_after_its_memory_was_given_back(split: CachedSplit) -> None:
    before = split.batch(range(40), "energy")
    split.release()
    after = split.batch(range(40), "energy")
    assert torch.equal(before.crystals.frac_coords, after.crystals.frac_coords)
    assert torch.equal(before.prop, after.prop)
    with pytest.raises(ValueError, match="read-only"):
        split.arrays["frac_coords"][0] = 0


@pytest.mark.parametrize("damage", ["truncate", "flip", "foreign", "empty", "other format"])
def test_damage_is_named(split: CachedSplit, tmp_path: Path, damage: str) -> None:
    path = tmp_path / "toy-train.safetensors"
    content = path.read_bytes()
    path.write_bytes(
        {
            "truncate": content[:-100],
            "flip": content[:-1000] + bytes([content[-1000] ^ 1]) + content[-999:],
            "foreign": b"PK\3\4 something else entirely",
            "empty": b"",
            "other format": content.replace(b"cdvae-split-1", b"cdvae-split-0"),
        }[damage]
    )
    with pytest.raises(DatasetError, match=r"toy-train.safetensors is .* damaged .*delete it"):
        read_split(path)


def test_a_failed_write_leaves_the_old_file(split: CachedSplit, tmp_path: Path) -> None:
    path = tmp_path / "toy-train.safetensors"
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(OutputError, match=r"toy-train.safetensors cannot be written: File too"):
            write_split(path, fake_arrays(30), SplitInfo("toy", "train"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_open_split_tells_what_to_run(cache: Path) -> None:
    with pytest.raises(
        DatasetError, match="cdvae data fetch carbon_24` and `cdvae data build carb"
    ):
        open_split("carbon_24", "train")
    with pytest.raises(DatasetError, match="no dataset 'nonsense': choose one of perov_like"):
        open_split("nonsense", "train")
    with pytest.raises(DatasetError, match="no split 'valid': choose one of train, val, test"):
        open_split("perov_5", "valid")


def test_reading_needs_no_pymatgen(split: CachedSplit, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path;"
        "from cdvae_core.data.cache import read_split, open_split;"
        f"read_split(Path({str(tmp_path / 'toy-train.safetensors')!r})).batch([0, 1], 'energy');"
        "heavy = {'pymatgen', 'smact', 'pandas', 'ase', 'pyarrow'} & "
        "{name.split('.')[0] for name in sys.modules};"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
