"""Is a structure plausible? The published rule (G.2), and what it does not look at."""

from __future__ import annotations

import math

import numpy as np
import torch
from pymatgen.core import Structure

from cdvae_core.crystal import Crystal
from cdvae_core.lattice import minkowski_reduce

CLOSEST, SMALLEST = 0.5, 0.1  # Å between two sites, Å3 of the cell


def shortest_pair(structure: Structure) -> float:
    """Å between two distinct sites, infinite for one atom. Images of one atom do not count."""
    distances = structure.distance_matrix[np.triu_indices(len(structure), 1)]
    return float(distances.min(initial=math.inf))


def shortest_image(crystal: Crystal) -> float:
    """Å from an atom to its own nearest periodic image: the shortest vector of the lattice."""
    lattice = torch.as_tensor(crystal.lattice, dtype=torch.float64)
    return float(minkowski_reduce(lattice[None]).matrix[0].norm(dim=-1).min())


def structure_valid(pair: float, volume: float) -> bool:
    """No two distinct sites nearer than 0.5 Å, and a volume of at least 0.1 Å3.

    An atom's own images are not looked at, as in the published code: see `shortest_image`.
    """
    return pair >= CLOSEST and volume >= SMALLEST
