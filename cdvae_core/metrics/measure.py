"""Everything that evaluation needs to know of one crystal by itself."""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from pymatgen.core import Composition, Lattice, Structure
from pymatgen.symmetry.analyzer import SpacegroupAnalyzer

from cdvae_core.crystal import SYMBOLS, Crystal
from cdvae_core.errors import StructureError
from cdvae_core.metrics.composition_rule import current_rule, published_rule
from cdvae_core.metrics.fingerprints import composition_fingerprint, structure_fingerprint
from cdvae_core.metrics.structure_rule import shortest_image, shortest_pair, structure_valid

SYMPREC = (
    0.1  # Å, of spglib; looser than its default, since generated atoms are never quite on site
)
T = TypeVar("T")


@dataclass(frozen=True)
class Measurement:
    """One crystal, measured.

    Attributes:
        formula: reduced, as pymatgen writes it.
        density: g/cm3.
        volume: Å3.
        spacegroup: its number by spglib with symprec 0.1 Å, 0 where that fails.
        shortest_pair: Å between two distinct sites, infinite for one atom.
        shortest_image: Å from an atom to its own nearest image.
        struct_valid, comp_valid: by the published rules.
        comp_valid_current: by the installed SMACT.
        structure_fingerprint: `[61]`, or None where it fails.
        composition_fingerprint: `[132]`, not scaled, or None where there is no crystal.
        failures: what could not be measured, and why.
    """

    formula: str
    num_atoms: int
    num_elements: int
    density: float
    volume: float
    spacegroup: int
    shortest_pair: float
    shortest_image: float
    struct_valid: bool
    comp_valid: bool
    comp_valid_current: bool
    structure_fingerprint: np.ndarray | None
    composition_fingerprint: np.ndarray | None
    failures: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of_no_crystal(
        cls, atomic_numbers: Sequence[int] | np.ndarray | None, reason: str
    ) -> Measurement:
        """What is known where there is no crystal: its composition, if at least that is known."""
        numbers = [] if atomic_numbers is None else [int(z) for z in atomic_numbers]
        known = bool(numbers)
        return cls(
            formula=Composition(Counter(SYMBOLS[z] for z in numbers)).reduced_formula
            if known
            else "",
            num_atoms=len(numbers),
            num_elements=len(set(numbers)),
            density=math.nan,
            volume=math.nan,
            spacegroup=0,
            shortest_pair=math.nan,
            shortest_image=math.nan,
            struct_valid=False,
            comp_valid=known and published_rule(numbers),
            comp_valid_current=known and current_rule(numbers),
            structure_fingerprint=None,
            composition_fingerprint=None,
            failures={"crystal": reason},
        )

    @property
    def valid(self) -> bool:
        """As published: both rules, and a structure fingerprint."""
        return self.struct_valid and self.comp_valid and self.structure_fingerprint is not None


def published_structure(crystal: Crystal) -> Structure:
    """The cell built from its lengths and angles, as the published code does.

    That turns it by 1e-16, which decides ties between neighbours of a collapsed cell and with them
    1e-4 of its fingerprint.
    """
    lattice = Lattice.from_parameters(*crystal.lengths, *crystal.angles)
    return Structure(lattice, crystal.atomic_numbers.tolist(), crystal.frac_coords)


def measure(crystal: Crystal) -> Measurement:
    """Measure a crystal; what fails is noted and does not stop the rest."""
    structure = published_structure(crystal)
    failures: dict[str, str] = {}

    def attempt(what: str, do: Callable[[], T], otherwise: T) -> T:
        try:
            return do()
        except StructureError as error:
            failures[what] = str(error)
            return otherwise

    pair, volume = shortest_pair(structure), float(structure.volume)
    return Measurement(
        formula=structure.composition.reduced_formula,
        num_atoms=len(structure),
        num_elements=len(structure.composition),
        density=float(structure.density),
        volume=volume,
        spacegroup=attempt("spacegroup", lambda: _spacegroup(structure), 0),
        shortest_pair=pair,
        shortest_image=shortest_image(crystal),
        struct_valid=structure_valid(pair, volume),
        comp_valid=published_rule(crystal.atomic_numbers),
        comp_valid_current=current_rule(crystal.atomic_numbers),
        structure_fingerprint=attempt(
            "fingerprint", lambda: structure_fingerprint(structure), None
        ),
        composition_fingerprint=composition_fingerprint(crystal),
        failures=failures,
    )


def _spacegroup(structure: Structure) -> int:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return int(SpacegroupAnalyzer(structure, symprec=SYMPREC).get_space_group_number())
        except Exception as error:  # spglib gives up on atoms that touch
            raise StructureError(f"spglib finds no space group: {error}") from error
