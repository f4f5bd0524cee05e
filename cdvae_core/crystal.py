"""One crystal, and a batch of crystals: the only structure types in the package.

A crystal M = (A, X, L) is its atomic numbers A, its fractional coordinates X and its lattice L
(Eq. 1 of the paper). Lattice vectors are rows: cartesian = fractional @ lattice. Lengths are in Å,
angles in degrees. `Crystal` is numpy and validated, for files and people; `CrystalBatch` is torch
and trusted, for networks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from cdvae_core.errors import StructureError
from cdvae_core.lattice import exact, matrix_to_parameters, parameters_to_matrix

MAX_ATOMIC_NUMBER = 100
MIN_VOLUME = 0.1  # Å3, the published rule for a crystal that exists at all

SYMBOLS = (
    "X H He Li Be B C N O F Ne Na Mg Al Si P S Cl Ar K Ca Sc Ti V Cr Mn Fe Co Ni Cu Zn Ga Ge As Se "
    "Br Kr Rb Sr Y Zr Nb Mo Tc Ru Rh Pd Ag Cd In Sn Sb Te I Xe Cs Ba La Ce Pr Nd Pm Sm Eu Gd Tb Dy "
    "Ho Er Tm Yb Lu Hf Ta W Re Os Ir Pt Au Hg Tl Pb Bi Po At Rn Fr Ra Ac Th Pa U Np Pu Am Cm Bk Cf "
    "Es Fm"
).split()


@dataclass(frozen=True, eq=False)
class Crystal:
    """One crystal.

    Attributes:
        atomic_numbers: `[atoms]`, 1 to 100.
        frac_coords: `[atoms, 3]`, wrapped into [0, 1).
        lattice: `[3, 3]`, rows are the lattice vectors in Å.

    Raises:
        StructureError: no atoms, shapes that disagree, a number that is not finite, an element
            beyond fermium, or a cell of less than 0.1 Å3.
    """

    atomic_numbers: np.ndarray
    frac_coords: np.ndarray
    lattice: np.ndarray

    def __post_init__(self) -> None:
        numbers = np.array(self.atomic_numbers, dtype=np.int64)  # copies: the crystal is frozen
        coords = np.asarray(self.frac_coords, dtype=np.float64)
        lattice = np.array(self.lattice, dtype=np.float64)
        if numbers.ndim != 1 or len(numbers) == 0:
            raise StructureError("the crystal has no atoms")
        if coords.shape != (len(numbers), 3) or lattice.shape != (3, 3):
            raise StructureError(
                f"{len(numbers)} atoms need coordinates [{len(numbers)}, 3] and a lattice [3, 3], "
                f"not {list(coords.shape)} and {list(lattice.shape)}"
            )
        if not (np.isfinite(coords).all() and np.isfinite(lattice).all()):
            raise StructureError("a coordinate or a lattice component is not a finite number")
        bad = numbers[(numbers < 1) | (numbers > MAX_ATOMIC_NUMBER)]
        if len(bad):
            raise StructureError(f"atomic number {bad[0]} is not an element from 1 (H) to 100 (Fm)")
        volume = abs(np.linalg.det(lattice))
        if volume < MIN_VOLUME:
            raise StructureError(f"the cell has a volume of {volume:.3g} Å3, below {MIN_VOLUME} Å3")
        wrapped = coords - np.floor(coords)
        wrapped[wrapped >= 1.0] = 0.0  # -1e-17 - floor(-1e-17) rounds to 1.0
        object.__setattr__(self, "atomic_numbers", numbers)
        object.__setattr__(self, "frac_coords", wrapped)
        object.__setattr__(self, "lattice", lattice)

    @classmethod
    def from_parameters(
        cls,
        lengths: Sequence[float] | np.ndarray,
        angles: Sequence[float] | np.ndarray,
        frac_coords: np.ndarray,
        atomic_numbers: Sequence[int] | np.ndarray,
    ) -> Crystal:
        """A crystal from a, b, c in Å and alpha, beta, gamma in degrees.

        Raises:
            StructureError: see `Crystal`; no cell has these angles.
        """
        matrix = parameters_to_matrix(
            torch.as_tensor(np.asarray(lengths, dtype=np.float64)),
            torch.as_tensor(np.asarray(angles, dtype=np.float64)),
        )
        return cls(np.asarray(atomic_numbers), np.asarray(frac_coords), matrix.numpy())

    @cached_property
    def _parameters(self) -> tuple[np.ndarray, np.ndarray]:
        lengths, angles = matrix_to_parameters(torch.as_tensor(self.lattice))
        return lengths.numpy(), angles.numpy()

    @property
    def lengths(self) -> np.ndarray:
        """`[3]`, Å."""
        return self._parameters[0]

    @property
    def angles(self) -> np.ndarray:
        """`[3]`, degrees."""
        return self._parameters[1]

    @property
    def volume(self) -> float:
        """Å3."""
        return float(abs(np.linalg.det(self.lattice)))

    @property
    def num_atoms(self) -> int:
        return len(self.atomic_numbers)

    @property
    def formula(self) -> str:
        """Symbols in order of atomic number with their counts in the cell, such as O3TiSr."""
        counts = sorted(Counter(self.atomic_numbers.tolist()).items())
        return "".join(f"{SYMBOLS[z]}{n if n > 1 else ''}" for z, n in counts)


def atomic_numbers_of(symbols: str) -> tuple[int, ...]:
    """Elements as a person types them, such as "Ti, O"; each once, in their order.

    Raises:
        StructureError: what is no element up to fermium.
    """
    found = dict.fromkeys(symbols.replace(",", " ").split())
    for symbol in found:
        if symbol not in SYMBOLS[1:]:
            raise StructureError(f"'{symbol}' is no element from H to Fm")
    return tuple(SYMBOLS.index(symbol) for symbol in found)


@dataclass(frozen=True, eq=False)
class CrystalBatch:
    """Several crystals, their atoms laid end to end.

    Attributes:
        atomic_numbers: `[atoms]`, long.
        frac_coords: `[atoms, 3]`.
        lattice: `[crystals, 3, 3]`, rows in Å.
        num_atoms: `[crystals]`, long; sums to `atoms`.
    """

    atomic_numbers: Int[Tensor, " atoms"]
    frac_coords: Float[Tensor, "atoms 3"]
    lattice: Float[Tensor, "crystals 3 3"]
    num_atoms: Int[Tensor, " crystals"]

    @classmethod
    def from_crystals(
        cls, crystals: Sequence[Crystal], dtype: torch.dtype = torch.float32
    ) -> CrystalBatch:
        return cls(
            torch.as_tensor(np.concatenate([c.atomic_numbers for c in crystals])),
            torch.as_tensor(np.concatenate([c.frac_coords for c in crystals])).to(dtype),
            torch.as_tensor(np.stack([c.lattice for c in crystals])).to(dtype),
            torch.tensor([c.num_atoms for c in crystals]),
        )

    def to_crystals(self) -> list[Crystal]:
        """Each crystal by itself, on the CPU.

        Raises:
            StructureError: one of them is no crystal (see `Crystal`).
        """
        sizes = self.num_atoms.tolist()
        numbers = self.atomic_numbers.cpu().split(sizes)
        coords = self.frac_coords.detach().double().cpu().split(sizes)
        lattices = self.lattice.detach().double().cpu()
        return [
            Crystal(a.numpy(), x.numpy(), cell.numpy())
            for a, x, cell in zip(numbers, coords, lattices, strict=True)
        ]

    @property
    def num_crystals(self) -> int:
        return len(self.num_atoms)

    @cached_property
    def crystal_of_atom(self) -> Int[Tensor, " atoms"]:
        """The crystal that each atom belongs to."""
        index = torch.arange(self.num_crystals, device=self.num_atoms.device)
        return torch.repeat_interleave(
            index, self.num_atoms, output_size=self.atomic_numbers.shape[0]
        )

    @property
    def element_counts(self) -> Float[Tensor, "crystals elements"]:
        """How many atoms of each element there are; atomic number Z stands at Z - 1."""
        counts = self.lattice.new_zeros(self.num_crystals, MAX_ATOMIC_NUMBER)
        places = (self.crystal_of_atom, self.atomic_numbers - 1)
        return counts.index_put(places, counts.new_ones(()), accumulate=True)

    @property
    @exact
    def cart_coords(self) -> Float[Tensor, "atoms 3"]:
        """Å."""
        lattice = self.lattice[self.crystal_of_atom]
        return torch.einsum("ai,aij->aj", self.frac_coords, lattice)

    def to(
        self, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> CrystalBatch:
        return CrystalBatch(
            self.atomic_numbers.to(device=device),
            self.frac_coords.to(device=device, dtype=dtype),
            self.lattice.to(device=device, dtype=dtype),
            self.num_atoms.to(device=device),
        )

    def repeat(self, times: int) -> CrystalBatch:
        """The same crystals several times over."""
        return CrystalBatch(
            self.atomic_numbers.repeat(times),
            self.frac_coords.repeat(times, 1),
            self.lattice.repeat(times, 1, 1),
            self.num_atoms.repeat(times),
        )

    def replace(self, **fields: Tensor) -> CrystalBatch:
        return replace(self, **fields)
