"""What a person takes home: CIF, POSCAR and extxyz, as text or zipped."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Sequence
from io import BytesIO, StringIO
from typing import TYPE_CHECKING

from app.services.facts import symmetry
from app.services.reconstruct import Frame
from cdvae_core.crystal import Crystal
from cdvae_core.errors import StructureError

if TYPE_CHECKING:
    from ase import Atoms


def trajectory_extxyz(frames: Sequence[Frame]) -> str:
    """One extxyz image per kept step, with its level, sigma and score norm."""
    from ase.io import write

    images = [
        to_atoms(
            frame.crystal, step=frame.index, level=frame.level, sigma=frame.sigma,
            score_norm=frame.score_norm, shortest_distance=frame.shortest,
        )
        for frame in frames
    ]  # fmt: skip
    text = StringIO()
    write(text, images, format="extxyz")
    return text.getvalue()


def file_name(*parts: str) -> str:
    """A safe file name of some parts."""
    return "-".join("".join(c if c.isalnum() or c in "._" else "_" for c in p) for p in parts)


def extxyz(crystals: Sequence[tuple[str, Crystal]]) -> str:
    """All crystals as images of one extxyz."""
    from ase.io import write

    text = StringIO()
    write(text, [to_atoms(crystal, name=name) for name, crystal in crystals], format="extxyz")
    return text.getvalue()


def cif_zip(crystals: Sequence[tuple[str, Crystal]], symmetrised: bool = False) -> bytes:
    """One CIF for each, in P1 as it came or in the conventional cell of its space group."""
    from cdvae_core.structures import to_cif

    return _zip((f"{name}.cif", to_cif(symmetric(c) if symmetrised else c)) for name, c in crystals)


def poscar_zip(crystals: Sequence[tuple[str, Crystal]]) -> bytes:
    """One POSCAR for each."""
    from pymatgen.io.vasp import Poscar

    from cdvae_core.structures import to_structure

    return _zip(
        (f"{name}.vasp", str(Poscar(to_structure(c).get_sorted_structure())))
        for name, c in crystals
    )


def symmetric(crystal: Crystal) -> Crystal:
    """The crystal moved onto the symmetry that it nearly has, in the conventional cell.

    Where spglib finds none within 0.1 Å, or the result is no crystal, it comes back as it was.
    """
    from cdvae_core.structures import from_structure

    found = symmetry(crystal)
    try:
        return crystal if found is None else from_structure(found.get_refined_structure())
    except (StructureError, TypeError):
        return crystal


def _zip(files: Iterable[tuple[str, str]]) -> bytes:
    content = BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in files:
            archive.writestr(file_name(name), text)
    return content.getvalue()


def to_atoms(crystal: Crystal, **info: str | float) -> Atoms:
    """As ASE has it, with words and numbers beside it."""
    from ase import Atoms

    atoms = Atoms(
        crystal.atomic_numbers, cell=crystal.lattice, scaled_positions=crystal.frac_coords, pbc=True
    )
    atoms.info |= info
    return atoms
