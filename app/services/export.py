"""What a person takes home: CIF and extxyz, as text."""

from __future__ import annotations

from collections.abc import Sequence
from io import StringIO

from app.services.reconstruct import Frame


def trajectory_extxyz(frames: Sequence[Frame]) -> str:
    """One extxyz image per kept step, with its level, sigma and score norm."""
    from ase import Atoms
    from ase.io import write

    images = []
    for frame in frames:
        crystal = frame.crystal
        atoms = Atoms(
            crystal.atomic_numbers,
            cell=crystal.lattice,
            scaled_positions=crystal.frac_coords,
            pbc=True,
        )
        atoms.info |= {
            "step": frame.index,
            "level": frame.level,
            "sigma": frame.sigma,
            "score_norm": frame.score_norm,
            "shortest_distance": frame.shortest,
        }
        images.append(atoms)
    text = StringIO()
    write(text, images, format="extxyz")
    return text.getvalue()


def file_name(*parts: str) -> str:
    """A safe file name of some parts."""
    return "-".join("".join(c if c.isalnum() or c in "._" else "_" for c in p) for p in parts)
