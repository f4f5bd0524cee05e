"""What can be said of one crystal at a glance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from app.services.chemistry import density, formula
from cdvae_core.crystal import Crystal, CrystalBatch

if TYPE_CHECKING:
    from pymatgen.symmetry.analyzer import SpacegroupAnalyzer

SYMMETRY_TOLERANCE = 0.1  # Å: a generated crystal is never exactly symmetric


@dataclass(frozen=True)
class CrystalFacts:
    """One crystal in numbers: Å, degrees, Å3 and g/cm3.

    Attributes:
        space_group: symbol and number, or a dash where none was found.
        shortest: the shortest distance between two atoms, own periodic images included, Å.
    """

    formula: str
    num_atoms: int
    space_group: str
    lengths: tuple[float, float, float]
    angles: tuple[float, float, float]
    volume: float
    density: float
    shortest: float


def crystal_facts(crystal: Crystal) -> CrystalFacts:
    """Formula, symmetry, cell, density and shortest distance of a crystal."""
    import torch

    from cdvae_core.graph import shortest_distances

    batch = CrystalBatch.from_crystals([crystal], torch.float64)
    return CrystalFacts(
        formula(crystal.atomic_numbers),
        crystal.num_atoms,
        space_group(crystal),
        _triple(crystal.lengths),
        _triple(crystal.angles),
        crystal.volume,
        density(crystal.atomic_numbers, crystal.volume),
        float(shortest_distances(batch)[0]),
    )


def symmetry(crystal: Crystal) -> SpacegroupAnalyzer | None:
    """What spglib finds within 0.1 Å, None where it finds nothing."""
    from pymatgen.symmetry.analyzer import SpacegroupAnalyzer, SymmetryUndeterminedError

    from cdvae_core.structures import to_structure

    try:
        return SpacegroupAnalyzer(to_structure(crystal), symprec=SYMMETRY_TOLERANCE)
    except (SymmetryUndeterminedError, TypeError):
        return None


def space_group(crystal: Crystal) -> str:
    """Symbol and number by spglib, within 0.1 Å."""
    found = symmetry(crystal)
    if found is None:
        return "–"
    return f"{found.get_space_group_symbol()} ({found.get_space_group_number()})"


def crystal_system(crystal: Crystal) -> str:
    """Of its space group by spglib, within 0.1 Å."""
    found = symmetry(crystal)
    return "unknown" if found is None else str(found.get_crystal_system())


def _triple(values: np.ndarray) -> tuple[float, float, float]:
    a, b, c = (float(v) for v in values)
    return a, b, c
