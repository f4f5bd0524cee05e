"""Small made-up crystals for the data tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from toys import random_crystal

from cdvae_core.data.custom import Entry


@pytest.fixture
def entries() -> Callable[..., list[Entry]]:
    """Makes entries of random crystals with the property `energy`."""

    def make(count: int, seed: int = 0) -> list[Entry]:
        rng = np.random.default_rng(seed)
        return [
            Entry(f"c-{i}", random_crystal(rng, atoms=1 + i % 4), {"energy": rng.normal()})
            for i in range(count)
        ]

    return make


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache directory, set as CDVAE_DATA."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("CDVAE_DATA", str(folder))
    return folder
