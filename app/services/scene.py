"""What the 3D view draws of a crystal: its atoms, their periodic images on the faces, and bonds.

Both are worked out here and not by the viewer, which knows neither periodicity nor chemistry. All
of it is for the eye: a bond is two atoms closer than their covalent radii (Cordero et al. 2008)
allow, not a statement on bonding.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import Any

import numpy as np
from ase.data import chemical_symbols, covalent_radii
from ase.data.colors import jmol_colors
from scipy.spatial import cKDTree

from cdvae_core.crystal import Crystal

FACE_TOLERANCE = 0.35  # Å: an atom this close to a face is drawn on the opposite face too
MAX_FACE_FRACTION = 0.08  # of the cell, for very short axes
BOND_TOLERANCE = 1.15  # times the sum of the covalent radii
SHELL = 1.3  # times the shortest bond of either atom
TOO_CLOSE = 0.4  # Å: two atoms on top of each other are not bonded
MAX_BONDED_ATOMS = 1500  # beyond this many drawn atoms bonds are left out
ANIONS = np.array([7, 8, 9, 16, 17, 34, 35, 52, 53])
NOT_METALS = np.array([1, 2, 5, 6, 10, 14, 15, 18, 33, 36, 54, 85, 86, *ANIONS])


@dataclass(frozen=True, eq=False)
class Scene:
    """What is drawn.

    Attributes:
        numbers: `[drawn]`, atomic numbers; the atoms of the cell come first.
        positions: `[drawn, 3]`, Å.
        image: `[drawn]`, true for a periodic copy.
        bonds: `[bonds, 2]`, indices of drawn atoms.
        cell: `[3, 3]`, rows in Å.
    """

    numbers: np.ndarray
    positions: np.ndarray
    image: np.ndarray
    bonds: np.ndarray
    cell: np.ndarray

    def payload(self) -> dict[str, list]:
        """The viewer's compact form: n atomic numbers, x coordinates, m images, b bonds, c cell."""
        return {
            "n": self.numbers.tolist(),
            "x": np.round(self.positions, 3).ravel().tolist(),
            "m": self.image.astype(int).tolist(),
            "b": self.bonds.ravel().tolist(),
            "c": np.round(self.cell, 4).ravel().tolist(),
        }


def scene(crystal: Crystal) -> Scene:
    """Atoms, face images and bonds of one crystal."""
    owner, frac = face_images(crystal)
    numbers = crystal.atomic_numbers[owner]
    positions = frac @ crystal.lattice
    image = np.arange(len(owner)) >= crystal.num_atoms
    return Scene(numbers, positions, image, bonds(numbers, positions), crystal.lattice)


def face_images(crystal: Crystal) -> tuple[np.ndarray, np.ndarray]:
    """Every atom, then its copies on opposite faces, edges and corners.

    Returns:
        the index of the original `[drawn]`, and fractional coordinates `[drawn, 3]`.
    """
    heights = crystal.volume / np.linalg.norm(
        np.cross(np.roll(crystal.lattice, -1, 0), np.roll(crystal.lattice, -2, 0)), axis=1
    )
    tolerance = np.minimum(FACE_TOLERANCE / heights, MAX_FACE_FRACTION)
    owners = [np.arange(crystal.num_atoms)]
    coords = [crystal.frac_coords]
    up = crystal.frac_coords < tolerance
    down = crystal.frac_coords > 1 - tolerance
    for shift in product((0, 1, -1), repeat=3):
        moved = np.array(shift)
        if not moved.any():
            continue
        fits = (np.where(moved > 0, up, True) & np.where(moved < 0, down, True)).all(1)
        owners.append(np.flatnonzero(fits))
        coords.append(crystal.frac_coords[fits] + moved)
    return np.concatenate(owners), np.concatenate(coords)


def bonds(numbers: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Pairs of drawn atoms to join.

    Two atoms are joined when they are within 1.15 times the sum of their covalent radii and when
    neither has a bond 1.3 times shorter: that leaves coordination polyhedra and drops the long
    contacts of large cations. Where there are anions, metals are not joined to metals.

    Returns:
        `[bonds, 2]`, i < j.
    """
    if not 1 < len(numbers) <= MAX_BONDED_ATOMS:
        return np.zeros((0, 2), dtype=np.int64)
    radii = covalent_radii[numbers]
    reach = 2 * BOND_TOLERANCE * radii.max()
    pairs = cKDTree(positions).query_pairs(reach, output_type="ndarray")
    distance = np.linalg.norm(positions[pairs[:, 0]] - positions[pairs[:, 1]], axis=1)
    limit = BOND_TOLERANCE * radii[pairs].sum(1)
    near = (distance < limit) & (distance > TOO_CLOSE)
    if np.isin(numbers, ANIONS).any():
        near &= np.isin(numbers[pairs], NOT_METALS).any(1)
    pairs, distance = pairs[near], distance[near]
    shortest = np.full(len(numbers), np.inf)
    np.minimum.at(shortest, pairs.ravel(), np.repeat(distance, 2))
    return pairs[distance <= SHELL * shortest[pairs].min(1)].astype(np.int64)


@cache
def element_style(number: int) -> tuple[str, str, float]:
    """Symbol, the usual colour (Jmol's), and the drawn radius in Å, 0.3 to 0.8."""
    red, green, blue = (round(255 * float(c)) for c in jmol_colors[number])
    radius = 0.16 + 0.26 * float(covalent_radii[number])
    return chemical_symbols[number], f"#{red:02x}{green:02x}{blue:02x}", round(radius, 3)


def elements_of(frames: Iterable[dict[str, Any]]) -> dict[str, tuple[str, str, float]]:
    """The style of every element that occurs in any frame, by atomic number as text."""
    numbers = sorted({z for frame in frames for z in frame["n"]})
    return {str(z): element_style(z) for z in numbers}
