"""Relaxation steps shared by the recipes: a volume scan on the stress, then BFGS.

Lengths in Å, energies in eV, forces in eV/Å, pressures in GPa. Whatever stops a crystal from
entering a dataset is a `Rejected` whose text is the reason counted in the build's report.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from ase import Atoms
    from ase.calculators.calculator import Calculator
    from ase.filters import Filter

MIN_DISTANCE = 1.0  # Å, closer pairs than this are no crystal
MIN_VOLUME = 5.0  # Å3 for an atom; diamond has 5.7
TYPICAL_BULK_MODULUS = 120.0  # GPa, for steps that the secant cannot decide
MAX_LOG_STEP = 0.08  # largest change of ln(length) in one step
MIN_GROWTH, MAX_GROWTH = 0.4, 2.5  # volume in a relaxation over the volume before it
MAX_SCAN_PRESSURE = 15.0  # GPa, left by the scan of a cell that collapsed or exploded


class Rejected(Exception):
    """A candidate that does not become a crystal of the dataset; the text is the reason."""


def covalent_radii() -> np.ndarray:
    """Covalent radii in Å by atomic number (Cordero et al. 2008, as tabulated in ASE)."""
    from ase.data import covalent_radii as radii

    return radii


def pressure(atoms: Atoms) -> float:
    """Hydrostatic pressure in GPa; positive means that the cell wants to expand."""
    from ase.units import GPa

    return float(-atoms.get_stress()[:3].mean() / GPa)


def _next_step(log_scales: list[float], pressures: list[float]) -> float:
    """Change of ln(length): secant where the two last points have the sign of a stable solid."""
    step = pressures[-1] / (3.0 * TYPICAL_BULK_MODULUS)
    if len(pressures) > 1:
        run = log_scales[-1] - log_scales[-2]
        slope = (pressures[-1] - pressures[-2]) / run if run else 0.0
        if slope < 0.0:
            step = -pressures[-1] / slope
    return float(np.clip(step, -MAX_LOG_STEP, MAX_LOG_STEP))


def scan_volume(atoms: Atoms, *, tolerance: float, max_evaluations: int) -> float:
    """Scale `atoms` in place, angles and fractional coordinates fixed, towards zero pressure.

    Args:
        atoms: with a calculator.
        tolerance: pressure in GPa that counts as zero.
        max_evaluations: stress evaluations at most; the best of them is what stays.

    Returns:
        The remaining absolute pressure in GPa.
    """
    cell = atoms.cell.array.copy()
    log_scales, pressures = [0.0], [pressure(atoms)]
    while abs(pressures[-1]) > tolerance and len(pressures) < max_evaluations:
        log_scales.append(log_scales[-1] + _next_step(log_scales, pressures))
        atoms.set_cell(cell * np.exp(log_scales[-1]), scale_atoms=True)
        pressures.append(pressure(atoms))
    best = int(np.argmin(np.abs(pressures)))
    if best != len(pressures) - 1:
        atoms.set_cell(cell * np.exp(log_scales[best]), scale_atoms=True)
    return abs(pressures[best])


def run_bfgs(
    atoms: Atoms,
    target: Filter,
    *,
    fmax: float,
    steps: int,
    stiffness: float,
    maxstep: float,
    each_step: Callable[[], None] | None = None,
) -> None:
    """BFGS on a cell filter of `atoms` until the largest generalised force is below `fmax` eV/Å.

    Args:
        atoms: with a calculator.
        target: the filter of `atoms` whose degrees of freedom are relaxed.
        fmax: largest generalised force in eV/Å that counts as none.
        steps: at most.
        stiffness: curvature in eV/Å2 that the Hessian starts with.
        maxstep: longest move of an atom in one step, Å.
        each_step: called before each step; what it raises ends the relaxation.

    Raises:
        Rejected: not converged within `steps`, or a volume that ran away.
    """
    from ase.optimize import BFGS

    before = atoms.get_volume()
    optimizer = BFGS(
        target,  # type: ignore[arg-type]  # ASE takes its filters, too
        logfile=None, alpha=stiffness, maxstep=maxstep,
    )  # fmt: skip
    for converged in optimizer.irun(fmax=fmax, steps=steps):
        if each_step is not None:
            each_step()
        if not MIN_GROWTH < atoms.get_volume() / before < MAX_GROWTH:
            raise Rejected("the volume ran away during the relaxation")
        if converged:
            return
    raise Rejected(f"BFGS not converged in {steps} steps")


def relax_fully(atoms: Atoms, calculator: Calculator, *, fmax: float, steps: int) -> None:
    """Scan the volume, then relax cell and positions in place until `fmax` (eV/Å).

    Raises:
        Rejected: no volume near zero pressure, not converged, or a volume that ran away.
    """
    from ase.filters import FrechetCellFilter

    atoms.calc = calculator
    if scan_volume(atoms, tolerance=1.0, max_evaluations=6) > MAX_SCAN_PRESSURE:
        raise Rejected(f"pressure above {MAX_SCAN_PRESSURE:.0f} GPa after the volume scan")
    run_bfgs(atoms, FrechetCellFilter(atoms), fmax=fmax, steps=steps, stiffness=70.0, maxstep=0.1)


def shortest_distance(atoms: Atoms, cutoff: float = 3.0) -> float:
    """Shortest distance in Å between two atoms, own images included; `cutoff` if none is below."""
    from ase.neighborlist import neighbor_list

    distances = neighbor_list("d", atoms, cutoff)
    return float(distances.min()) if len(distances) else cutoff


def finish(atoms: Atoms, references: dict[str, float], **extra: object) -> dict[str, object]:
    """The record of a relaxed crystal: Niggli cell and formation energy.

    Args:
        atoms: relaxed, with a calculator that knows its energy.
        references: energy of each element in eV/atom, by the same model.
        extra: further columns.

    Returns:
        numbers `[atoms]`, lengths `[3]` Å, angles `[3]` degrees, frac_coords `[atoms * 3]`,
        formula, formation_energy_per_atom (eV/atom) and the extra columns.

    Raises:
        Rejected: two atoms closer than 1.0 Å, or a crystal denser than diamond.
    """
    from pymatgen.io.ase import AseAtomsAdaptor

    if (shortest := shortest_distance(atoms)) < MIN_DISTANCE:
        raise Rejected(f"two atoms closer than {MIN_DISTANCE} Å", f"{shortest:.2f} Å")
    if atoms.get_volume() / len(atoms) < MIN_VOLUME:
        raise Rejected(f"less than {MIN_VOLUME} Å3 for an atom")
    symbols = atoms.get_chemical_symbols()
    elements = sum(references[symbol] for symbol in symbols)
    energy = (atoms.get_potential_energy() - elements) / len(atoms)
    structure = AseAtomsAdaptor.get_structure(atoms).get_reduced_structure("niggli")
    return {
        "formula": structure.composition.reduced_formula,
        "numbers": [int(site.specie.Z) for site in structure],
        "lengths": [float(x) for x in structure.lattice.abc],
        "angles": [float(x) for x in structure.lattice.angles],
        "frac_coords": [float(x) for x in structure.frac_coords.ravel()],
        "formation_energy_per_atom": float(energy),
        **extra,
    }
