"""Stability as a machine-learned potential sees it: relaxation, and energy above a hull.

An estimate, and an optimistic one: of the crystals that such potentials call stable, unique and
new, DFT confirms a third to a half. The potentials here were trained on the same data, MPtrj, and
their packages hold their weights. The hull is that of the reference set and the elements, all with
energies by the same potential: never mix those of two. What the reference lacks, such as the binary
oxides beside perovskites, the hull lacks, too, and energies above it come out too low.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import torch
from pymatgen.analysis.phase_diagram import PDEntry, PhaseDiagram
from pymatgen.core import Composition
from pymatgen.io.ase import AseAtomsAdaptor

from cdvae_core.crystal import Crystal
from cdvae_core.data.embedded import references
from cdvae_core.data.embedded.calculator import load_calculator
from cdvae_core.data.embedded.relax import Rejected, run_bfgs
from cdvae_core.errors import ConfigError, DatasetError, StructureError
from cdvae_core.lattice import minimum_image, minkowski_reduce
from cdvae_core.structures import from_structure, to_structure

if TYPE_CHECKING:
    from ase.calculators.calculator import Calculator

POTENTIALS = {"chgnet": "CHGNet 0.3.0", "7net-0": "SevenNet-0", "7net-l3i5": "SevenNet-l3i5"}
STABLE = 0.1  # eV/atom above the hull
FMAX, STEPS = 0.1, 200  # eV/Å, and relaxation steps


@dataclass(frozen=True)
class Relaxed:
    """A crystal at a minimum of the potential.

    Attributes:
        crystal: its cell and atoms, in the order of the given one.
        energy: eV/atom.
        rmsd: Å, of the atoms in the relaxed cell, less their common shift.
    """

    crystal: Crystal
    energy: float
    rmsd: float


def check_potential(name: str) -> None:
    """Whether it can be used here.

    Raises:
        ConfigError: no such potential.
        DatasetError: its package is not installed.
    """
    if name not in POTENTIALS:
        raise ConfigError(f"no potential '{name}': choose one of {', '.join(POTENTIALS)}")
    _calculator(name)


@lru_cache(maxsize=1)
def _calculator(name: str) -> Calculator:
    if name == "chgnet":
        return load_calculator()
    try:
        from sevenn.calculator import SevenNetCalculator
    except ImportError as error:
        raise DatasetError(f'{name} needs SevenNet: pip install "cdvae[stability]"') from error
    torch.set_num_threads(1)
    return SevenNetCalculator(name, device="cpu")


def relax(crystal: Crystal, potential: str, each_step: Callable[[], None] | None = None) -> Relaxed:
    """Cell and atoms, to 0.1 eV/Å.

    Args:
        each_step: called before each step; what it raises ends the relaxation.

    Raises:
        StructureError: it does not converge within 200 steps, or its volume runs away.
    """
    from ase.filters import FrechetCellFilter

    atoms = AseAtomsAdaptor.get_atoms(to_structure(crystal))
    atoms.calc = _calculator(potential)
    try:
        run_bfgs(
            atoms, FrechetCellFilter(atoms), fmax=FMAX, steps=STEPS, stiffness=70.0, maxstep=0.1,
            each_step=each_step,
        )  # fmt: skip
        energy = float(atoms.get_potential_energy()) / len(atoms)
    except (Rejected, ValueError, RuntimeError, ArithmeticError) as error:
        raise StructureError(f"not relaxed: {' '.join(str(error).split())[:200]}") from error
    relaxed = from_structure(AseAtomsAdaptor.get_structure(atoms))
    return Relaxed(relaxed, energy, _moved(crystal, relaxed))


def _moved(before: Crystal, after: Crystal) -> float:
    difference = torch.as_tensor(after.frac_coords - before.frac_coords)
    cell = minkowski_reduce(torch.as_tensor(after.lattice)[None])
    owner = torch.zeros(len(difference), dtype=torch.long)
    nearest = minimum_image(difference - difference[:1], cell, owner)
    drift = nearest.mean(0, keepdim=True)
    return float((nearest - drift).square().sum(-1).mean().sqrt())


def energy(crystal: Crystal, potential: str) -> float:
    """eV/atom of the crystal as it is."""
    atoms = AseAtomsAdaptor.get_atoms(to_structure(crystal))
    atoms.calc = _calculator(potential)
    try:
        return float(atoms.get_potential_energy()) / len(atoms)
    except (ValueError, RuntimeError, ArithmeticError) as error:
        raise StructureError(f"no energy: {' '.join(str(error).split())[:200]}") from error


def element_energy(symbol: str, potential: str) -> float:
    """eV/atom of the element's lowest solid among common ones.

    Raises:
        StructureError: none of them relaxes.
    """
    if potential == "chgnet" and symbol in references.load():
        return references.load()[symbol]
    try:
        return float(references.lowest(symbol, _calculator(potential))["energy"])
    except ValueError as error:
        raise StructureError(f"no solid of {symbol} relaxes") from error


class Hull:
    """Convex hulls of a reference set, one for each set of elements that is asked for.

    Args:
        compositions, energies: of the reference crystals, eV/atom.
        elements: energy of each element, eV/atom.
    """

    def __init__(
        self,
        compositions: Sequence[Composition],
        energies: Sequence[float],
        elements: Mapping[str, float],
    ) -> None:
        self._elements = dict(elements)
        self._entries = [
            (frozenset(map(str, c.elements)), PDEntry(c, e * c.num_atoms))
            for c, e in zip(compositions, energies, strict=True)
            if np.isfinite(e)
        ]
        self._diagrams: dict[frozenset[str], PhaseDiagram] = {}

    def above(self, composition: Composition, energy: float) -> float:
        """eV/atom above the hull of the reference, negative below it; NaN without an element."""
        system = frozenset(map(str, composition.elements))
        if not system <= self._elements.keys():
            return float("nan")
        if system not in self._diagrams:
            pure = [PDEntry(Composition(symbol), self._elements[symbol]) for symbol in system]
            inside = [entry for found, entry in self._entries if found <= system]
            self._diagrams[system] = PhaseDiagram([*pure, *inside])
        entry = PDEntry(composition, energy * composition.num_atoms)
        above = self._diagrams[system].get_e_above_hull(entry, allow_negative=True)
        assert above is not None  # it raises instead
        return float(above)
