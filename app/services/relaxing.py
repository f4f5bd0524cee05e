"""Relaxation as a job: each crystal to a minimum of CHGNet, if that is installed.

A universal potential is a guess, too, and a kind one; it tells a crystal that nearly holds together
from one that falls apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from threading import Lock

from app.services.facts import space_group
from app.services.jobs import Job
from cdvae_core.crystal import Crystal
from cdvae_core.errors import StructureError

POTENTIAL = "chgnet"
_ALONE = Lock()  # the calculator keeps the crystal it is at, and all sessions share it


@dataclass(frozen=True, eq=False)
class Relaxation:
    """One crystal, before and after.

    Attributes:
        after: None where it did not relax; `problem` then says why.
        energy: eV/atom after.
        moved: Å, how far the atoms went.
        groups: space groups before and after.
    """

    name: str
    before: Crystal
    after: Crystal | None
    problem: str = ""
    energy: float | None = None
    moved: float | None = None
    groups: tuple[str, str] = ("–", "–")


class _StoppedError(Exception):
    """Someone asked to stop in the middle of a relaxation; no error of a crystal, which is data."""


def installed() -> bool:
    """Whether the potential's package is there."""
    return find_spec(POTENTIAL) is not None


def start(crystals: Sequence[tuple[str, Crystal]]) -> Job:
    """Relax in the background; the items of the job are `Relaxation`s as they come."""

    def work(job: Job) -> None:
        from cdvae_core.metrics.stability import check_potential

        job.report(0.0, "reading the potential")
        check_potential(POTENTIAL)
        for number, (name, crystal) in enumerate(crystals):
            job.report(number / len(crystals), f"{number} of {len(crystals)} relaxed")
            try:
                job.append(_relaxed(job, name, crystal))
            except _StoppedError:
                return

    return Job(work)


def _relaxed(job: Job, name: str, crystal: Crystal) -> Relaxation:
    from cdvae_core.metrics.stability import relax

    def look() -> None:
        if job.stopping:
            raise _StoppedError("stopped")

    try:
        with _ALONE:
            found = relax(crystal, POTENTIAL, look)
    except StructureError as error:
        return Relaxation(name, crystal, None, str(error))
    groups = (space_group(crystal), space_group(found.crystal))
    return Relaxation(name, crystal, found.crystal, "", found.energy, found.rmsd, groups)
