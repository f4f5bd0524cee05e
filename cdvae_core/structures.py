"""Between crystals and the world's files: pymatgen structures, CIF, POSCAR, Niggli cells.

Files with several crystals or with properties are read in `cdvae_core.data.custom`; `read_crystals`
here is the simple form, which wants every crystal of a file to be good.
"""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import numpy as np
from pymatgen.core import DummySpecies, Lattice, Structure
from pymatgen.io.cif import CifParser, CifWriter
from pymatgen.io.vasp import Poscar

from cdvae_core.crystal import Crystal
from cdvae_core.data.custom import Content, read_entries
from cdvae_core.errors import StructureError

MAX_ATOMS = 200
_MAX_CHARACTERS = 400_000  # a CIF of 200 atoms has about 15,000; 10,000 atoms are not even parsed
_ATOM_LINE = re.compile(r"^[ \t]*[A-Za-z][\w+\-]*([ \t]+\S+){4,}[ \t]*$", re.MULTILINE)


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
                f"a site is shared or partly empty ({site.species_string}): order the structure first"
            )
        if isinstance(site.specie, DummySpecies):
            raise StructureError(f"unknown element {site.specie.symbol!r}")
        numbers.append(site.specie.Z)
    parameters = np.array([structure.lattice.abc, structure.lattice.angles])
    if not np.isfinite(parameters).all():
        raise StructureError(
            "the cell's lengths or angles are not finite numbers: it has no volume"
        )
    lattice = Lattice.from_parameters(*parameters.ravel())
    return Crystal(np.array(numbers), structure.frac_coords, lattice.matrix)


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
    _check_text(text)
    parser, structures = None, []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            parser = CifParser.from_str(text)
            structures = parser.parse_structures(primitive=False)
        except Exception as error:  # any text may come, and the parser raises whatever it meets
            raise StructureError(f"the CIF cannot be read: {_one_line(error)}") from error
    if len(structures) != 1:
        raise StructureError(f"the CIF holds {len(structures)} crystals: keep one in each file")
    return from_structure(structures[0])


def parse_poscar(text: str) -> Crystal:
    """The crystal of a POSCAR, with element symbols in its sixth line.

    Raises:
        StructureError: not a POSCAR, or a crystal that `from_structure` refuses.
    """
    _check_text(text)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            structure = Poscar.from_str(text).structure
        except Exception as error:  # any text may come, and the parser raises whatever it meets
            raise StructureError(f"the POSCAR cannot be read: {_one_line(error)}") from error
    return from_structure(structure)


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
    if len(text) > _MAX_CHARACTERS:
        atoms = len(_ATOM_LINE.findall(text))
        _check_size(atoms)
        raise StructureError(f"the text has {len(text)} characters; the limit is {_MAX_CHARACTERS}")


def _check_size(atoms: int) -> None:
    if atoms > MAX_ATOMS:
        raise StructureError(
            f"the cell has {atoms} atoms; the limit is {MAX_ATOMS}: use a smaller cell"
        )


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
