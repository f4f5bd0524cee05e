"""The recipe of `mp_like`: crystals of many types, from known prototypes with other elements.

pymatgen's AFLOW prototypes (Mehl et al., Comput. Mater. Sci. 136, S1 (2017)) of up to 12 atoms,
every element replaced by a random one of its own group, kept where the composition can be neutral
(SMACT, Davies et al. 2019), then relaxed in full: cell and positions.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, lru_cache
from typing import TYPE_CHECKING

import numpy as np

from cdvae_core.data.embedded.relax import Rejected, covalent_radii, finish, relax_fully

if TYPE_CHECKING:
    from ase import Atoms
    from ase.calculators.calculator import Calculator
    from pymatgen.core import Structure

SIZE = 2000
MAX_ATOMS = 12
DRAWS = 30000  # of substitutions, before SMACT and before those drawn twice are left out
START_PACKING = 0.3  # open structures start compressed towards it
MIN_PACKING = 0.12  # below it the atoms are molecules far apart
# By group of the periodic table; hydrogen, noble gases and short-lived elements are left out.
GROUPS = {
    1: "Li Na K Rb Cs",
    2: "Be Mg Ca Sr Ba",
    3: "Sc Y La Ce Pr Nd Sm Gd Tb Dy Ho Er Tm Lu",
    4: "Ti Zr Hf",
    5: "V Nb Ta",
    6: "Cr Mo W",
    7: "Mn Re",
    8: "Fe Ru Os",
    9: "Co Rh Ir",
    10: "Ni Pd Pt",
    11: "Cu Ag Au",
    12: "Zn Cd Hg",
    13: "B Al Ga In Tl",
    14: "C Si Ge Sn Pb",
    15: "N P As Sb Bi",
    16: "O S Se Te",
    17: "F Cl Br I",
}


@dataclass(frozen=True)
class Candidate:
    """A prototype by its place in pymatgen's list, with the element on each of its sites."""

    prototype: int
    symbols: tuple[str, ...]


@lru_cache(maxsize=1)
def prototypes() -> list[tuple[str, Structure]]:
    """AFLOW label and primitive cell of every prototype in pymatgen's list, in its order."""
    from pymatgen.analysis.prototypes import AFLOW_PROTOTYPE_LIBRARY

    entries = [(e["tags"]["aflow"], e["snl"].structure) for e in AFLOW_PROTOTYPE_LIBRARY]
    return [(label, structure.get_primitive_structure()) for label, structure in entries]


@cache
def is_neutral(formula: str) -> bool:
    """Whether SMACT finds oxidation states that sum to zero (or the crystal is an alloy)."""
    from smact.screening import smact_validity

    return bool(smact_validity(formula, oxidation_states_set="smact14"))


def draw_elements(structure: Structure, rng: np.random.Generator) -> dict[str, str] | None:
    """A random replacement from its own group for each element; None if two become the same."""
    chosen = {
        element.symbol: str(rng.choice(GROUPS[element.group].split()))
        for element in sorted(structure.composition)
    }
    return chosen if len(set(chosen.values())) == len(chosen) else None


def candidates(seed: int) -> list[Candidate]:
    """Distinct neutral substitutions in the order in which they were drawn.

    A prototype is drawn with a probability proportional to its number of elements: there are
    few ways to fill one of a single element.
    """
    rng = np.random.default_rng(seed)
    pool = [
        (number, structure)
        for number, (_, structure) in enumerate(prototypes())
        if len(structure) <= MAX_ATOMS and all(e.group in GROUPS for e in structure.composition)
    ]
    weights = np.array([len(structure.composition) for _, structure in pool], dtype=float)
    found: dict[Candidate, None] = {}  # an ordered set
    for draw in rng.choice(len(pool), DRAWS, p=weights / weights.sum()):
        number, structure = pool[draw]
        chosen = draw_elements(structure, rng)
        if chosen is None:
            continue
        counts = structure.composition.reduced_composition.items()
        formula = "".join(f"{chosen[element.symbol]}{int(count)}" for element, count in counts)
        if is_neutral(formula):
            symbols = tuple(chosen[site.specie.symbol] for site in structure)
            found.setdefault(Candidate(number, symbols))
    return list(found)


def start_structure(candidate: Candidate) -> Atoms:
    """The substituted prototype at a guessed volume.

    It is scaled until its closest pair touches (covalent radii); an open structure is then
    compressed, to half that volume at most, towards a packing of 0.3: from the dense side the
    scan finds the solid and not its vapour.
    """
    from ase import Atoms
    from ase.neighborlist import neighbor_list

    structure = prototypes()[candidate.prototype][1]
    atoms = Atoms(
        candidate.symbols,
        scaled_positions=structure.frac_coords,
        cell=structure.lattice.matrix,
        pbc=True,
    )
    radii = covalent_radii()[atoms.numbers]
    cutoff = 1.5 * float(structure.volume ** (1 / 3))
    first, second, distance = neighbor_list("ijd", atoms, cutoff)
    scale = float(((radii[first] + radii[second]) / distance).max())
    atoms.set_cell(atoms.cell.array * scale, scale_atoms=True)
    squeeze = float(np.clip(packing(atoms) / START_PACKING, 0.5, 1.0))
    atoms.set_cell(atoms.cell.array * squeeze ** (1 / 3), scale_atoms=True)
    return atoms


def packing(atoms: Atoms) -> float:
    """Volume of the covalent spheres over that of the cell: 0.8 for copper, 0.2 for quartz."""
    spheres = 4.0 / 3.0 * np.pi * covalent_radii()[atoms.numbers] ** 3
    return float(spheres.sum() / atoms.get_volume())


def relax(
    candidate: Candidate,
    rng: np.random.Generator,
    calculator: Calculator,
    references: dict[str, float],
) -> dict[str, object]:
    """Relax one candidate and return its record (see `relax.finish`).

    Raises:
        Rejected: the relaxation failed, or what came out is no crystal (see `relax`).
    """
    atoms = start_structure(candidate)
    relax_fully(atoms, calculator, fmax=0.1, steps=80)
    if packing(atoms) < MIN_PACKING:
        raise Rejected("packing so low that it is a vapour")
    return finish(atoms, references) | {"prototype": prototypes()[candidate.prototype][0]}
