"""Crystals of every kind of input, and one sentence for what is none."""

from __future__ import annotations

import os
import types
import zipfile
from pathlib import Path

import ase.db
import numpy as np
import pytest
import torch
from ase.io import write
from perovskites import perovskite
from torch_geometric.data import Batch, Data

from cdvae_core.crystal import Crystal
from cdvae_core.decode import Decoded, Folder
from cdvae_core.errors import DatasetError
from cdvae_core.evaluation.inputs import Broken, read
from cdvae_core.structures import to_cif, to_structure

GIVEN = [perovskite(4.0), perovskite(4.1, (38, 22, 8))]


def same(one: Crystal | Broken, other: Crystal) -> bool:
    assert isinstance(one, Crystal)
    return one.formula == other.formula and np.allclose(one.lengths, other.lengths, atol=1e-5)


def make(kind: str, folder: Path) -> Path:
    cifs = {f"{i}.cif": to_cif(crystal) for i, crystal in enumerate(GIVEN)}
    atoms = [to_structure(crystal).to_ase_atoms() for crystal in GIVEN]
    path = folder / f"given.{kind}"
    if kind == "folder":
        path.mkdir()
        for name, text in cifs.items():
            (path / name).write_text(text)
    elif kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name, text in cifs.items():
                archive.writestr(f"inside/{name}", text)
    elif kind == "csv":
        path.write_text("cif\n" + "\n".join(f'"{text}"' for text in cifs.values()))
    elif kind == "extxyz":
        write(path, atoms, format="extxyz")
    else:
        with ase.db.connect(path, type="db") as database:
            for one in atoms:
                database.write(one)
    return path


@pytest.mark.parametrize("kind", ["folder", "zip", "csv", "extxyz", "db"])
def test_every_kind(kind: str, tmp_path: Path) -> None:
    found = read(str(make(kind, tmp_path)))
    assert len(found) == 2 and all(map(same, found.items, GIVEN))
    assert found.reference is None and found.tries == 1


def test_a_split_of_a_dataset() -> None:
    found = read("mp_like:val")
    assert len(found) == 400 and found.name == "mp_like:val" and found.dataset == "mp_like"
    assert found.fingerprint and len(found.subset([3, 5])) == 2


def test_what_cannot_be_read_stays_with_its_reason(tmp_path: Path) -> None:
    folder = make("folder", tmp_path)
    (folder / "1.cif").write_text("data_x\n_cell_length_a 0\n")
    found = read(str(folder))
    assert isinstance(found.items[0], Crystal) and isinstance(found.items[1], Broken)
    assert found.items[1].reason


def test_own_output_brings_its_reference(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "out", {"k": 2, "dataset": "perov_like", "split": "test"})
    folder.reference(GIVEN, ["a", "b"])
    names = ["a-0", "a-1", "b-0", "b-1"]
    crystals = [GIVEN[0], None, GIVEN[1], GIVEN[1]]
    folder.add([Decoded(n, c, "no volume") for n, c in zip(names, crystals, strict=True)])
    found = read(str(tmp_path / "out"))
    assert list(found.ids) == names and found.tries == 2
    assert found.items[1] == Broken("no volume") and same(found.items[2], GIVEN[1])
    assert found.reference is not None and found.reference.name == "perov_like:test"
    assert all(map(same, found.reference.items, GIVEN))


def test_a_run_that_was_stopped_is_compared_as_far_as_it_came(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "out", {"k": 1, "dataset": "perov_like", "split": "test"})
    folder.reference(GIVEN, ["a", "b"])
    folder.add([Decoded("a-0", GIVEN[0])])
    found = read(str(tmp_path / "out"))
    assert len(found) == 1 and found.reference is not None and len(found.reference) == 1


class Foreign:
    """Stands for a batch whose class cannot be imported when it is read."""

    def __init__(self, **arrays: torch.Tensor) -> None:
        self._store = {"_mapping": arrays}


def tensors(crystals: list[Crystal]) -> dict[str, torch.Tensor]:
    return {
        "frac_coords": torch.tensor(np.concatenate([c.frac_coords for c in crystals])).float(),
        "atom_types": torch.tensor(np.concatenate([c.atomic_numbers for c in crystals])),
        "lengths": torch.tensor(np.array([c.lengths for c in crystals])).float(),
        "angles": torch.tensor(np.array([c.angles for c in crystals])).float(),
        "num_atoms": torch.tensor([c.num_atoms for c in crystals]),
    }


def saved(path: Path, tries: list[list[Crystal]], batch: object = None) -> Path:
    each = [tensors(crystals) for crystals in tries]
    content = {name: torch.stack([one[name] for one in each]) for name in each[0]}
    content |= {"eval_setting": types.SimpleNamespace(label="x"), "time": 1.0}
    torch.save(content | ({} if batch is None else {"input_data_batch": batch}), path)
    return path


def test_a_published_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path / "eval_recon.pt", [GIVEN, GIVEN[::-1]], Foreign(**tensors(GIVEN)))
    monkeypatch.delattr("test_inputs.Foreign")
    found = read(str(path))
    assert found.tries == 2 and list(found.ids) == ["0-0", "0-1", "1-0", "1-1"]
    assert all(map(same, found.items, [GIVEN[0], GIVEN[1], GIVEN[1], GIVEN[0]]))
    assert found.reference is not None and all(map(same, found.reference.items, GIVEN))
    generated = read(str(saved(tmp_path / "eval_gen.pt", [GIVEN])))
    assert generated.reference is None and list(generated.ids) == ["0", "1"]


def test_a_published_file_with_a_batch_of_pyg(tmp_path: Path) -> None:
    """As today's torch-geometric pickles it: a class that it makes while reading."""
    parts = [Data(**tensors([crystal]), num_nodes=crystal.num_atoms) for crystal in GIVEN]
    batch = Batch.from_data_list(parts)
    found = read(str(saved(tmp_path / "eval_recon.pt", [GIVEN], batch)))
    assert found.reference is not None and all(map(same, found.reference.items, GIVEN))


def test_a_published_crystal_without_volume_keeps_its_composition(tmp_path: Path) -> None:
    path = saved(tmp_path / "eval_gen.pt", [GIVEN])
    content = torch.load(path, weights_only=False)
    content["lengths"][0, 1] = 0.01
    torch.save(content, path)
    broken = read(str(path)).items[1]
    assert isinstance(broken, Broken) and broken.atomic_numbers == (38, 22, 8, 8, 8)


class Malicious:
    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.trace),)


def test_a_published_file_runs_nothing(tmp_path: Path) -> None:
    trace = tmp_path / "was here"
    path = saved(tmp_path / "eval_recon.pt", [GIVEN], Malicious(trace))
    read(str(path))
    assert not trace.exists()
    torch.load(path, weights_only=False)
    assert trace.exists()  # it would have


def test_what_is_no_input(tmp_path: Path) -> None:
    (tmp_path / "text.pt").write_text("hello")
    (tmp_path / "broken.zip").write_text("hello")
    torch.save({"a": torch.zeros(2)}, tmp_path / "other.pt")
    wrong = saved(tmp_path / "wrong.pt", [GIVEN])
    content = torch.load(wrong, weights_only=False)
    content["num_atoms"][0, 0] = 9
    torch.save(content, wrong)
    (tmp_path / "empty").mkdir()
    for name, says in {
        "nothing": "there is no", "text.pt": "no readable torch", "broken.zip": "no readable zip",
        "other.pt": "no published eval", "wrong.pt": "do not belong together",
        "empty": "no crystals", "no_such:test": "no_such",
    }.items():  # fmt: skip
        given = name if ":" in name else str(tmp_path / name)
        with pytest.raises(DatasetError, match=says):
            read(given)
