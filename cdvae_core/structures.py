"""Between crystals and the world's files: pymatgen structures, CIF, POSCAR, Niggli cells.

Files with several crystals or with properties are read in `cdvae_core.data.custom`; `read_crystals`
here is the simple form, which wants every crystal of a file to be good.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
from pymatgen.core import DummySpecies, Lattice, Structure
from pymatgen.io.cif import CifParser, CifWriter
from pymatgen.io.vasp import Poscar

from cdvae_core.crystal import MIN_VOLUME, Crystal
from cdvae_core.data.custom import Content, read_entries
from cdvae_core.errors import StructureError

T = TypeVar("T")

MAX_ATOMS = 200
_MAX_CHARACTERS = 1_000_000
_EXPLANATIONS = {
    "Singular matrix": "the cell has no volume",
    "below threshold": "the cell has no volume",
    "convert float NaN": "a coordinate is not a number",
    "could not convert string to float": "a value that should be a number is not one",
    "with no structures": "it holds no cell with atoms",
    "modulo by zero": "it holds no cell with atoms",
    "list index out of range": "a line or a value is missing",
    "Occupancy": "several atoms share one place",
}
_MANY_LINES = 1000  # so many lines of coordinates take seconds to parse, and are refused unparsed
_NUMBER = r"-?(?:\d*\.\d+|\d+(?=[eE]))(?:[eE][-+]?\d+)?(?:\(\d+\))?"
_COORDINATES = re.compile(rf"^.*(?<!\S)(?:{_NUMBER}[ \t]+){{2}}{_NUMBER}.*$", re.MULTILINE)


def to_structure(crystal: Crystal) -> Structure:
    """The crystal as a pymatgen structure: same cell, same order of atoms."""
    return Structure(Lattice(crystal.lattice), crystal.atomic_numbers.tolist(), crystal.frac_coords)


def from_structure(structure: Structure) -> Crystal:
    """A pymatgen structure as a crystal, its cell rebuilt from lengths and angles.

    Raises:
        StructureError: partial occupancies, an unknown element, no volume, more than 200 atoms.
    """
    _check_size(len(structure))
    numbers = []
    for site in structure:
        if not site.is_ordered:
            raise StructureError(
                f"a site is shared or partly empty ({site.species_string}): order it first"
            )
        if isinstance(site.specie, DummySpecies):
            raise StructureError(f"unknown element {site.specie.symbol!r}")
        numbers.append(site.specie.Z)
    matrix = structure.lattice.matrix
    if not np.isfinite(matrix).all():
        raise StructureError("the cell's lengths or angles are not finite numbers")
    if abs(np.linalg.det(matrix)) < MIN_VOLUME:
        raise StructureError(f"the cell has no volume (less than {MIN_VOLUME} Å3)")
    lattice = Lattice.from_parameters(*structure.lattice.parameters)
    return Crystal(np.array(numbers), structure.frac_coords, lattice.matrix.copy())


def niggli(structure: Structure) -> Structure:
    """The Niggli-reduced cell (F.1), atoms wrapped into it."""
    return structure.get_reduced_structure(reduction_algo="niggli")


def to_cif(crystal: Crystal) -> str:
    """The crystal as CIF text without symmetry (P1), coordinates to eight decimals."""
    return str(CifWriter(to_structure(crystal)))


def parse_cif(text: str) -> Crystal:
    """The one crystal of a CIF.

    Raises:
        StructureError: not CIF, no crystal or several, or one that `from_structure` refuses.
    """
    structures = _parse("CIF", text, _cif_structures)
    if len(structures) != 1:
        raise StructureError(f"the CIF holds {len(structures)} crystals: keep one in each file")
    return from_structure(structures[0])


def parse_poscar(text: str) -> Crystal:
    """The crystal of a POSCAR, with element symbols in its sixth line.

    Raises:
        StructureError: not a POSCAR, or a crystal that `from_structure` refuses.
    """
    return from_structure(_parse("POSCAR", text, lambda poscar: Poscar.from_str(poscar).structure))


def load(content: Content) -> Crystal:
    """The crystal of an entry: CIF text, a CIF or POSCAR file, or a crystal already.

    Raises:
        StructureError: it cannot be read, or the entry holds the reason itself.
    """
    if isinstance(content, StructureError):
        raise content
    if isinstance(content, Crystal):
        _check_size(content.num_atoms)
        return content
    if isinstance(content, str):
        return parse_cif(content)
    try:
        text = content.read_text(errors="replace")
    except OSError as error:
        raise StructureError(f"{content} cannot be opened: {error.strerror}") from error
    return parse_cif(text) if content.suffix.lower() == ".cif" else parse_poscar(text)


def read_crystals(path: Path | str) -> list[Crystal]:
    """All crystals of a file or folder: CIF, POSCAR, extxyz, ASE db, CSV with a `cif` column.

    Raises:
        StructureError: a crystal that cannot be read, by its name.
        DatasetError: no such file, an unknown kind of file, or nothing in it.
    """
    crystals = []
    for entry in read_entries(Path(path)):
        try:
            crystals.append(load(entry.content))
        except StructureError as error:
            raise StructureError(f"{entry.id}: {error}") from error
    return crystals


def _check_text(text: str) -> None:
    if not text.strip():
        raise StructureError("the file is empty")
    lines = len(_COORDINATES.findall(text)) if text.count("\n") > _MANY_LINES else 0
    if lines > _MANY_LINES:
        _check_size(lines)
    if len(text) > _MAX_CHARACTERS:
        raise StructureError(f"the text has {len(text)} characters; the limit is {_MAX_CHARACTERS}")


def _check_size(atoms: int) -> None:
    if atoms > MAX_ATOMS:
        raise StructureError(
            f"the cell has {atoms} atoms; the limit is {MAX_ATOMS}: use a smaller cell"
        )


def _cif_structures(text: str) -> list[Structure]:
    return CifParser.from_str(text).parse_structures(primitive=False, on_error="raise")


def _parse(kind: str, text: str, parse: Callable[[str], T]) -> T:
    """What pymatgen makes of a text; whatever goes wrong becomes one sentence."""
    _check_text(text)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            result = parse(text)
        except Exception as error:  # any text may come, and the parser raises whatever it meets
            raise StructureError(f"the {kind} cannot be read: {_explain(error)}") from error
    if any("Elements in POSCAR cannot be determined" in str(w.message) for w in warned):
        raise StructureError("the POSCAR does not name its elements: put them into its sixth line")
    return result


def _explain(error: Exception) -> str:
    """One line for a person, from the parser's message."""
    text = " ".join(str(error).split()) or type(error).__name__
    for fragment, sentence in _EXPLANATIONS.items():
        if fragment in text:
            return sentence
    return text[:200]
