"""Decoding into a folder: what is written, when, and what a bad crystal does to the others."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from ase.io import read
from examples import prototypes, small_model
from safetensors.torch import load_file

from cdvae_core import decode as decoding
from cdvae_core.crystal import Crystal
from cdvae_core.decode import Decoded, Folder, Given, decode, settings, truth
from cdvae_core.errors import ConfigError
from cdvae_core.langevin import LangevinStep, Schedule
from cdvae_core.model import CDVAE
from cdvae_core.structures import read_crystals

SHORT = Schedule((0.5, 0.1), steps_per_level=2, epsilon=0.01, denoising_steps=1)
NAMES = [f"sample-{i:05d}" for i in range(5)]


@pytest.fixture
def model() -> CDVAE:
    return small_model(0)


@pytest.fixture
def z() -> torch.Tensor:
    return torch.randn(5, 16, generator=torch.Generator().manual_seed(0))


def opened(path: Path) -> Folder:
    return Folder(path, settings(Path("model"), 3, task="sample"))


def manifest(path: Path) -> dict:
    return json.loads((path / "manifest.json").read_text())


def test_a_folder_of_crystals(model: CDVAE, z: torch.Tensor, tmp_path: Path) -> None:
    folder = opened(tmp_path / "out")
    folder.latents(z, NAMES)
    found = [
        item
        for _, done in decode(model, z, NAMES, SHORT, seed=3, batch_size=2, folder=folder)
        for item in done
    ]
    assert [item.name for item in found] == NAMES
    said = manifest(tmp_path / "out")
    assert said["seed"] == 3 and said["task"] == "sample" and said["checkpoint"] == "model"
    assert [entry["name"] for entry in said["crystals"]] == NAMES
    assert torch.equal(load_file(tmp_path / "out" / "latents.safetensors")["z"], z)
    frames = read(tmp_path / "out" / "crystals.extxyz", index=":")
    for item, entry, atoms in zip(found, said["crystals"], frames, strict=True):
        assert item.crystal is not None
        assert entry["formula"] == item.crystal.formula
        assert atoms.info["name"] == item.name
        (again,) = read_crystals(tmp_path / "out" / entry["cif"])
        assert np.allclose(again.lengths, item.crystal.lengths, atol=1e-6)
        assert np.array_equal(np.sort(again.atomic_numbers), np.sort(item.crystal.atomic_numbers))
        assert np.allclose(atoms.cell.array, item.crystal.lattice, atol=1e-6)
    assert not list((tmp_path / "out").glob(".*"))


def test_the_manifest_names_what_is_there_when_stopped(
    model: CDVAE, z: torch.Tensor, tmp_path: Path
) -> None:
    folder = opened(tmp_path / "out")
    steps = decode(model, z, NAMES, SHORT, seed=3, batch_size=2, folder=folder)
    for _ in range(SHORT.total + 2):  # one batch and a bit of the next
        next(steps)
    steps.close()
    said = manifest(tmp_path / "out")
    assert [entry["name"] for entry in said["crystals"]] == NAMES[:2]
    assert sorted(p.name for p in (tmp_path / "out").glob("*.cif")) == [
        f"{name}.cif" for name in NAMES[:2]
    ]


def test_seed_and_batch_size_fix_the_crystals(model: CDVAE, z: torch.Tensor) -> None:
    def coords(seed: int) -> np.ndarray:
        steps = decode(model, z, NAMES, SHORT, seed, batch_size=2)
        return np.concatenate([d.crystal.frac_coords for _, done in steps for d in done])

    assert np.array_equal(coords(1), coords(1))
    assert not np.array_equal(coords(1), coords(2))


def test_batches_differ(model: CDVAE) -> None:
    """The same latent in another batch gets other noise."""
    z = torch.zeros(2, 16)
    steps = decode(model, z, NAMES[:2], SHORT, seed=0, batch_size=1)
    one, other = [d.crystal for _, done in steps for d in done]
    assert not np.array_equal(one.frac_coords, other.frac_coords)


@pytest.mark.parametrize("in_memory", [4, 200])
def test_trajectories(
    model: CDVAE, z: torch.Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_memory: int
) -> None:
    monkeypatch.setattr(decoding, "_STEPS_IN_MEMORY", in_memory)
    folder = opened(tmp_path / "out")
    steps = [step for step, _ in decode(model, z, NAMES, SHORT, 3, folder=folder, trajectory=True)]
    for place, name in enumerate(NAMES):
        frames = read(tmp_path / "out" / f"{name}.trajectory.extxyz", index=":")
        assert len(frames) == SHORT.total
        assert [f.info["sigma"] for f in frames] == pytest.approx([s.sigma for s in steps])
        last = steps[-1].crystals.to_crystals()[place]
        assert np.array_equal(frames[-1].numbers, last.atomic_numbers)


def test_a_stopped_batch_leaves_no_part_of_a_trajectory(
    model: CDVAE, z: torch.Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding, "_STEPS_IN_MEMORY", 1)
    folder, out = opened(tmp_path / "out"), tmp_path / "out"
    steps = decode(model, z, NAMES, SHORT, 3, batch_size=2, folder=folder, trajectory=True)
    for _ in range(SHORT.total + 2):
        next(steps)
    assert list(out.glob(f"{NAMES[2]}*"))
    steps.close()
    whole = {f"{name}.trajectory.extxyz" for name in NAMES[:2]}
    assert {p.name for p in out.glob("*trajectory*")} == whole


@pytest.mark.parametrize("trajectory", [False, True])
def test_a_bad_crystal_spoils_no_other(
    model: CDVAE,
    z: torch.Tensor,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    trajectory: bool,
) -> None:
    original = decoding.sample

    def sample(*args: object, **options: object):
        for step in original(*args, **options):
            lattice = step.crystals.lattice.clone()
            lattice[1] *= 0.01
            yield LangevinStep(**vars(step) | {"crystals": step.crystals.replace(lattice=lattice)})

    monkeypatch.setattr(decoding, "sample", sample)
    folder = opened(tmp_path / "out")
    found: list[Decoded] = []
    for _, done in decode(model, z, NAMES, SHORT, 3, folder=folder, trajectory=trajectory):
        found += done
    assert [item.crystal is None for item in found] == [False, True, False, False, False]
    assert "volume" in found[1].problem
    said = manifest(tmp_path / "out")["crystals"]
    assert "volume" in said[1]["problem"] and "cif" not in said[1]
    assert len(list((tmp_path / "out").glob("*.cif"))) == 4


def test_a_folder_that_is_not_empty_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(ConfigError, match="not empty"):
        opened(tmp_path)
    with pytest.raises(ConfigError):
        opened(tmp_path / "mine.txt")
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]
    opened(tmp_path / "new" / "deep")
    assert manifest(tmp_path / "new" / "deep")["crystals"] == []


def test_fixed_number_of_atoms(model: CDVAE, z: torch.Tensor) -> None:
    sizes = torch.tensor([1, 2, 3, 4, 5])
    steps = decode(model, z, NAMES, SHORT, 0, given=Given(sizes), batch_size=2)
    assert [d.crystal.num_atoms for _, done in steps for d in done] == [1, 2, 3, 4, 5]


def test_what_is_given_is_what_comes_out(model: CDVAE, z: torch.Tensor) -> None:
    known = prototypes()
    crystals = [known[n] for n in ("bcc", "diamond", "hcp", "perovskite", "fcc cubic")]

    def decoded(whats: list[str]) -> list[Crystal]:
        steps = decode(model, z, NAMES, SHORT, 0, given=truth(crystals, whats), batch_size=2)
        return [d.crystal for _, done in steps for d in done if d.crystal is not None]

    for found, true in zip(decoded(["composition", "lattice"]), crystals, strict=True):
        assert found.atomic_numbers.tolist() == true.atomic_numbers.tolist()
        assert np.allclose(found.lattice, true.lattice, atol=1e-5)
    for found, true in zip(decoded(["N"]), crystals, strict=True):
        assert found.num_atoms == true.num_atoms
        assert not np.allclose(found.lattice, true.lattice, atol=1e-5)
    with pytest.raises(ConfigError, match="'cell' cannot be given"):
        truth(crystals, ["cell"])
