"""The recipe of `perov_like`: ABX3 perovskites on Castelli's composition grid, cubic cells.

The grid (52 x 52 cations, 7 anion triples, 18,928 compositions) is that of Castelli et al.,
Energy Environ. Sci. 5, 5814 (2012) and 9034 (2012); no structure or energy of theirs is used.
Every other candidate keeps ideal positions, so that only the lattice constant is relaxed; the
others are displaced along [100] and relaxed along that axis together with the lattice constant.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cdvae_core.data.embedded.relax import (
    Rejected,
    covalent_radii,
    finish,
    run_bfgs,
    scan_volume,
)

if TYPE_CHECKING:
    from ase import Atoms
    from ase.calculators.calculator import Calculator

SIZE = 5000
CATIONS = (
    "Ag Al As Au B Ba Be Bi Ca Cd Co Cr Cs Cu Fe Ga Ge Hf Hg In Ir K La Li Mg Mn Mo Na Nb Ni Os "
    "Pb Pd Pt Rb Re Rh Ru Sb Sc Si Sn Sr Ta Te Ti Tl V W Y Zn Zr"
).split()
# The first anion sits on the axis of displacement, above and below the B cation along [100].
ANIONS = {
    "O3": ("O", "O", "O"),
    "O2N": ("O", "O", "N"),
    "ON2": ("O", "N", "N"),
    "N3": ("N", "N", "N"),
    "O2S": ("O", "O", "S"),
    "O2F": ("O", "O", "F"),
    "OFN": ("O", "F", "N"),
}
SITES = np.array([[0, 0, 0], [0.5, 0.5, 0.5], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])
MAX_DISPLACEMENT = 0.3  # Å
PRESSURE_TOLERANCE = {"ideal": 0.1, "displaced": 1.0}  # GPa, where the volume scan stops
MAX_PRESSURE = 0.5  # GPa, above which an ideal crystal counts as not relaxed


@dataclass(frozen=True)
class Candidate:
    """One composition: A on the corner, B in the centre, three anions on the faces."""

    a: str
    b: str
    anions: str
    kind: str  # "ideal" or "displaced"


def candidates(seed: int) -> list[Candidate]:
    """All 18,928 compositions in a seeded order, ideal and displaced in turn."""
    grid = [(a, b, anions) for a in CATIONS for b in CATIONS for anions in ANIONS]
    order = np.random.default_rng(seed).permutation(len(grid))
    kinds = ("ideal", "displaced")
    return [Candidate(*grid[int(cell)], kinds[i % 2]) for i, cell in enumerate(order)]


def ideal_perovskite(a: str, b: str, anions: str) -> Atoms:
    """The ideal cell, its lattice constant the mean of what A-X and B-X contacts ask for."""
    from ase import Atoms

    atoms = Atoms([a, b, *ANIONS[anions]], scaled_positions=SITES, cell=np.eye(3), pbc=True)
    radii = covalent_radii()[atoms.numbers]
    anion = radii[2:].mean()
    constant = (2.0 * (radii[1] + anion) + np.sqrt(2.0) * (radii[0] + anion)) / 2.0
    atoms.set_cell(np.eye(3) * constant, scale_atoms=True)
    return atoms


def relax_displaced(atoms: Atoms, rng: np.random.Generator) -> None:
    """Displace every atom by up to 0.3 Å along [100] and relax that axis and the volume."""
    from ase.constraints import FixCartesian
    from ase.filters import FrechetCellFilter

    shift = rng.uniform(-MAX_DISPLACEMENT, MAX_DISPLACEMENT, len(atoms))
    atoms.positions[:, 0] += shift - shift.mean()
    atoms.set_constraint(FixCartesian(range(len(atoms)), mask=(False, True, True)))
    target = FrechetCellFilter(atoms, hydrostatic_strain=True)
    run_bfgs(atoms, target, fmax=0.05, steps=60, stiffness=20.0, maxstep=0.2)
    atoms.set_constraint()


def relax(
    candidate: Candidate,
    rng: np.random.Generator,
    calculator: Calculator,
    references: dict[str, float],
) -> dict[str, object]:
    """Relax one candidate and return its record (see `relax.finish`).

    Raises:
        Rejected: the search did not converge, or two atoms came closer than 1.0 Å.
    """
    atoms = ideal_perovskite(candidate.a, candidate.b, candidate.anions)
    atoms.calc = calculator
    tolerance = PRESSURE_TOLERANCE[candidate.kind]
    left = scan_volume(atoms, tolerance=tolerance, max_evaluations=10)
    if candidate.kind == "displaced":
        relax_displaced(atoms, rng)
    elif left > MAX_PRESSURE:
        raise Rejected(f"pressure above {MAX_PRESSURE} GPa after the search")
    formula = f"{candidate.a}{candidate.b}{candidate.anions}"
    return finish(atoms, references) | {"formula": formula, "kind": candidate.kind}
