"""What can be done to decoded crystals afterwards: a relaxation, and the symmetry they nearly have.

A decoder puts atoms near their places, each by itself, so a crystal comes out in P1 and not quite
at a minimum. Both steps change what the model made: figures of a generator should say whether they
were taken before or after, and `cdvae refine` prints both.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase.spacegroup.symmetrize import refine_symmetry
from pymatgen.io.ase import AseAtomsAdaptor
from pymatgen.symmetry.analyzer import SpacegroupAnalyzer, SymmetryUndeterminedError

from cdvae_core import __version__
from cdvae_core.crystal import Crystal
from cdvae_core.data.registry import SPLITS
from cdvae_core.errors import StructureError
from cdvae_core.evaluation.inputs import Broken, Crystals
from cdvae_core.metrics.reconstruction import reconstruction
from cdvae_core.metrics.stability import energy, relax
from cdvae_core.metrics.structure_rule import shortest_pair, structure_valid
from cdvae_core.structures import from_structure, to_structure

STRICT = 0.01  # Å: pymatgen's own tolerance, by which many will look at the crystal
_FILE_NAME = re.compile(r"[\w-][\w.-]{,99}")
_KIND = re.compile(r"\.(cif|poscar|vasp)$", re.IGNORECASE)


@dataclass(frozen=True)
class Refined:
    """One crystal, before and after.

    Attributes:
        before: None where the input is no crystal.
        last: as far as the steps went.
        problem: why a step failed, empty if none did.
        energies: eV/atom before and after, by the potential; NaN without one.
    """

    before: Crystal | None
    last: Crystal | None
    problem: str = ""
    energies: tuple[float, float] = (math.nan, math.nan)

    @property
    def after(self) -> Crystal | None:
        """The refined crystal, None where a step failed."""
        return None if self.problem else self.last


def symmetrised(crystal: Crystal, tolerance: float) -> Crystal:
    """The crystal with exactly the symmetry that spglib finds within a tolerance.

    Cell and order of atoms stay; both move to where the operations map them onto each other.

    Args:
        tolerance: Å.

    Raises:
        StructureError: spglib gives up, as on atoms that touch.
    """
    atoms = AseAtomsAdaptor.get_atoms(to_structure(crystal))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            refine_symmetry(atoms, symprec=tolerance)
        except Exception as error:  # whatever it meets in a cell that is no crystal
            raise StructureError(f"spglib finds no symmetry within {tolerance} Å") from error
    return from_structure(AseAtomsAdaptor.get_structure(atoms))


def refined(item: Crystal | Broken, tolerance: float, potential: str | None) -> Refined:
    """One crystal relaxed, then symmetrised, as far as either is asked for.

    Args:
        tolerance: Å, of the symmetry; 0 leaves it as it is.
        potential: of `metrics.stability.POTENTIALS`, checked to be there; None does not relax.
    """
    if isinstance(item, Broken):
        return Refined(None, None, item.reason)
    last = item
    try:
        last = last if potential is None else relax(last, potential).crystal
        last = symmetrised(last, tolerance) if tolerance else last
        if potential is None:
            return Refined(item, last)
        energies = (energy(item, potential), energy(last, potential))
        return Refined(item, last, "", energies)
    except StructureError as error:
        return Refined(item, last, str(error))
    except Exception as error:  # a potential meets elements that it has never seen in its own ways
        return Refined(item, last, f"the potential fails: {type(error).__name__}: {error}")


def settings(
    source: Path, crystals: Crystals, tolerance: float, potential: str | None
) -> dict[str, Any]:
    """What the manifest says, so that the folder can be scored as the one it was made from."""
    about = {
        "task": "refine", "source": str(source), "symmetry": tolerance, "relax": potential,
        "code_version": __version__, "k": crystals.tries, "sources": list(crystals.ids),
    }  # fmt: skip
    if crystals.dataset is not None:
        about["dataset"] = crystals.dataset
    split = crystals.reference.name.rpartition(":")[2] if crystals.reference else ""
    if split in SPLITS:
        about["split"] = split
    if crystals.starts is not None:
        about["starts"] = crystals.starts
    return about


def names_of(ids: Sequence[str]) -> list[str]:
    """Names of files: the ids without an ending, where these can be that, else numbers."""
    names = [_KIND.sub("", one) for one in ids]
    unlike = len({name.casefold() for name in names}) == len(names)
    if unlike and all(_FILE_NAME.fullmatch(name) for name in names):
        return names
    return [f"crystal-{place:05d}" for place in range(len(ids))]


def table(found: Sequence[Refined], true: Sequence[Crystal] | None = None) -> str:
    """Before beside after, over the crystals for which every step succeeded.

    Args:
        true: what each of the refined is a reconstruction of; each is counted by itself, also
            where several are of one crystal.
    """
    good = [place for place, one in enumerate(found) if one.after is not None]
    if not good:
        return "no crystal was refined"
    wanted = None if true is None else [true[place] for place in good]
    energies = np.array([found[place].energies for place in good]).mean(0)
    before = _figures(
        [one.before for one in found if one.before and one.after], energies[0], wanted
    )
    after = _figures([one.after for one in found if one.after], energies[1], wanted)
    lines = [f"{'':34}{'before':>11}{'after':>11}"]
    lines += [f"{title:34}{before[title]:>11}{after[title]:>11}" for title in before]
    lines += [f"Over {len(good)} of {len(found)} crystals, those for which every step succeeded."]
    return "\n".join(lines)


def _figures(
    crystals: Sequence[Crystal], mean_energy: float, true: Sequence[Crystal] | None
) -> dict[str, str]:
    operations = [_symmetry_operations(crystal) for crystal in crystals]
    found = {
        f"in P1, within {STRICT} Å": _share([count == 1 for count in operations]),
        "symmetry operations, on average": f"{sum(operations) / len(operations):.1f}",
        "structure valid": _share([_valid(crystal) for crystal in crystals]),
    }
    if math.isfinite(mean_energy):
        found["energy, eV/atom"] = f"{mean_energy:.4f}"
    if true is not None:
        metrics = reconstruction([[crystal] for crystal in crystals], true).metrics()
        found["match"] = f"{100 * metrics['match_rate_ungated']:.1f} %"
        found["RMSE"] = f"{metrics['rms_dist_ungated']:.4f}"
    return found


def _share(hits: Sequence[bool]) -> str:
    return f"{100 * sum(hits) / len(hits):.1f} %"


def _valid(crystal: Crystal) -> bool:
    structure = to_structure(crystal)
    return structure_valid(shortest_pair(structure), float(structure.volume))


def _symmetry_operations(crystal: Crystal) -> int:
    """Of the point group, within `STRICT`."""
    try:
        found = SpacegroupAnalyzer(to_structure(crystal), symprec=STRICT)
    except (SymmetryUndeterminedError, TypeError):  # atoms that touch: no symmetry at all
        return 1
    return len(found.get_point_group_operations())
