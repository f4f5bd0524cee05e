"""Perovskites whose figures can be told by hand."""

from __future__ import annotations

import numpy as np

from cdvae_core.crystal import Crystal


def perovskite(
    a: float, numbers: tuple[int, int, int] = (56, 22, 8), shift: float = 0.0
) -> Crystal:
    coords = [[0, 0, 0], [0.5, 0.5, 0.5 + shift], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]
    first, second, anion = numbers
    atoms = np.array([first, second, anion, anion, anion])
    return Crystal(atoms, np.array(coords), a * np.eye(3))
