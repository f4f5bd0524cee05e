"""Energies of the elements by the same model, the zero of every formation energy here.

For each element the lowest of: the solids of `ase.collections.dcdft` (used while building only),
fcc, bcc and hcp, and pymatgen's AFLOW prototypes of that element, each relaxed by CHGNet. The
result ships as `references.json`; `python -m cdvae_core.data.embedded.references` remakes it.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cdvae_core.data.embedded import mp_like, perov_like
from cdvae_core.data.embedded.calculator import load_calculator
from cdvae_core.data.embedded.relax import (
    MIN_DISTANCE,
    Rejected,
    covalent_radii,
    relax_fully,
    shortest_distance,
)

if TYPE_CHECKING:
    from ase import Atoms
    from ase.calculators.calculator import Calculator

logger = logging.getLogger(__name__)
PATH = Path(__file__).with_name("references.json")
MAX_ATOMS = 40


def elements() -> list[str]:
    """Symbols of every element that a recipe can use, sorted."""
    used = {symbol for group in mp_like.GROUPS.values() for symbol in group.split()}
    used |= set(perov_like.CATIONS) | {x for triple in perov_like.ANIONS.values() for x in triple}
    return sorted(used)


def phases(symbol: str) -> Iterator[tuple[str, Atoms]]:
    """Unrelaxed solids of one element with the name of where each comes from."""
    from ase.build import bulk
    from ase.collections import dcdft
    from ase.data import atomic_numbers
    from pymatgen.io.ase import AseAtomsAdaptor

    if dcdft.has(symbol):
        yield "dcdft", dcdft[symbol]
    diameter = 2.0 * covalent_radii()[atomic_numbers[symbol]]
    for name, ratio in (("fcc", 2**0.5), ("bcc", 2 / 3**0.5), ("hcp", 1.0)):
        yield name, bulk(symbol, name, a=ratio * diameter)
    for label, structure in mp_like.prototypes():
        if structure.composition.chemical_system == symbol and len(structure) <= MAX_ATOMS:
            yield label, AseAtomsAdaptor.get_atoms(structure)


def lowest(symbol: str, calculator: Calculator | None = None) -> dict[str, Any]:
    """The lowest relaxed phase: `energy` (eV/atom), `phase`, and `tried` (energy by phase).

    Args:
        calculator: another potential's than CHGNet's.

    Raises:
        ValueError: none relaxes.
    """
    calculator = calculator or load_calculator()
    tried: dict[str, float] = {}
    for name, atoms in phases(symbol):
        atoms.set_constraint()
        atoms.pbc = True
        try:
            relax_fully(atoms, calculator, fmax=0.05, steps=150)
        except (Rejected, ValueError) as reason:
            logger.info("%s %s: %s", symbol, name, reason)
            continue
        if shortest_distance(atoms) >= MIN_DISTANCE:
            tried[name] = round(atoms.get_potential_energy() / len(atoms), 6)
    phase = min(tried, key=tried.__getitem__)
    return {"energy": tried[phase], "phase": phase, "tried": tried}


def load() -> dict[str, float]:
    """Energy of each element in eV/atom, from the shipped file."""
    table = json.loads(PATH.read_text(encoding="utf-8"))
    return {symbol: entry["energy"] for symbol, entry in table.items()}


def main(workers: int = 2) -> None:
    """Remake `references.json`."""
    names = elements()
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        table = dict(zip(names, pool.map(lowest, names), strict=True))
    PATH.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    main()
