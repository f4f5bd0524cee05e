"""Scalers fitted to a split of the cache: there and back, and features that never change."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from toys import random_crystal

from cdvae_core.crystal import Crystal
from cdvae_core.data.cache import CachedSplit, LabelledBatch, read_split
from cdvae_core.data.custom import Entry
from cdvae_core.data.preprocess import prepare_split
from cdvae_core.scalers import Scalers


def split_of(crystals: list[Crystal], energies: list[float], folder: Path) -> CachedSplit:
    entries = [
        Entry(str(i), c, {"energy": e})
        for i, (c, e) in enumerate(zip(crystals, energies, strict=True))
    ]
    prepare_split(entries, folder, "toy", "train", progress=False)
    return read_split(folder / "toy-train.safetensors")


def fitted(split: CachedSplit) -> tuple[Scalers, LabelledBatch]:
    batch = split.batch(range(len(split)), "energy")
    crystals = batch.crystals
    return Scalers.fit(crystals.lattice, crystals.num_atoms, batch.prop), batch


def test_lattice_there_and_back(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    crystals = [random_crystal(rng, 1 + i % 4) for i in range(20)]
    split = split_of(crystals, rng.normal(-3, 2, 20).tolist(), tmp_path)
    scalers, batch = fitted(split)
    standard = scalers.standard_lattice(batch.crystals.lattice, batch.crystals.num_atoms)
    torch.testing.assert_close(standard.mean(0), torch.zeros(6), atol=1e-4, rtol=0)
    torch.testing.assert_close(standard.std(0, correction=0), torch.ones(6), atol=1e-2, rtol=0)
    back = scalers.lattice_from_standard(standard).numpy()
    kept = [split.crystal(i) for i in range(len(split))]
    lengths = np.array([c.lengths / c.num_atoms ** (1 / 3) for c in kept])
    np.testing.assert_allclose(back[:, :3], lengths, rtol=1e-4)
    np.testing.assert_allclose(back[:, 3:], [c.angles for c in kept], rtol=1e-4)


def test_property_there_and_back_with_unknown_values(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    energies = [*rng.normal(-3, 2, 19).tolist(), float("nan")]
    split = split_of([random_crystal(rng, 2) for _ in range(20)], energies, tmp_path)
    scalers, batch = fitted(split)
    standard = scalers.standard_prop(batch.prop)
    assert standard[:19].mean().abs() < 1e-5
    assert standard[:19].std(correction=0) == pytest.approx(1, abs=1e-3)
    torch.testing.assert_close(
        scalers.prop_from_standard(standard), batch.prop, equal_nan=True, rtol=1e-5, atol=1e-5
    )


def test_constant_features_do_not_blow_up(tmp_path: Path) -> None:
    coords = np.array([[0, 0, 0], [0.5, 0.5, 0.5]])
    cubic = [
        Crystal.from_parameters([a] * 3, [90.0] * 3, coords, [55, 17])
        for a in np.linspace(3.8, 4.4, 8)
    ]
    split = split_of(cubic, [1.5] * 8, tmp_path)
    scalers, batch = fitted(split)
    standard = scalers.standard_lattice(batch.crystals.lattice, batch.crystals.num_atoms)
    assert standard.isfinite().all() and standard.abs().max() < 10
    # whatever a network says of an angle that never changes, the cell stays rectangular
    said = torch.full((1, 6), 5.0)
    torch.testing.assert_close(
        scalers.lattice_from_standard(said)[0, 3:], torch.full((3,), 90.0), atol=1e-3, rtol=0
    )
    assert scalers.prop_from_standard(torch.tensor([3.0])).item() == pytest.approx(1.5, abs=1e-3)
