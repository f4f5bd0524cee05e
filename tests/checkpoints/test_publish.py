"""What ships with a checkpoint: its pictures are of what they say."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from ase.io import read

sys.path.insert(0, str(Path(__file__).parents[1] / "core"))
sys.path.insert(0, str(Path(__file__).parents[2] / "checkpoints"))
from examples import perovskites
from publish import pairs

from cdvae_core.decode import Decoded, Folder, settings


def test_each_reconstruction_stands_beside_its_own_original(tmp_path: Path) -> None:
    original = perovskites(6)
    folder = Folder(tmp_path / "out", settings(Path("model"), 0))
    folder.reference(original, [f"id-{i}" for i in range(6)])
    folder.add(
        [
            Decoded(f"test-{i}-0", None if i in (0, 2) else one, "" if i else "no volume")
            for i, one in enumerate(original)
        ]
    )
    found = pairs(folder.path, read(folder.path / "crystals.extxyz", ":3"))
    assert [one.info["name"] for one in found] == [
        "id-1", "test-1-0", "id-3", "test-3-0", "id-4", "test-4-0",
    ]  # fmt: skip
    for one, other in zip(found[::2], found[1::2], strict=True):
        assert np.allclose(one.get_positions(), other.get_positions(), atol=1e-5)


def test_a_system_that_reconstructs_nothing_has_no_pictures(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "out", settings(Path("model"), 0))
    folder.reference(perovskites(2), ["a", "b"])
    folder.add([Decoded(f"test-{i}-0", None, "no volume") for i in range(2)])
    assert pairs(folder.path, []) == []
