"""Reconstruction as a job: encode a crystal, decode it by Langevin dynamics, compare.

The trajectory is thinned while it runs: one frame out of every few steps, the last one always.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from app.services.jobs import Job
from app.services.scene import scene
from cdvae_core.crystal import Crystal
from cdvae_core.data.cache import CachedSplit
from cdvae_core.errors import CdvaeError, StructureError

if TYPE_CHECKING:
    from cdvae_core.langevin import LangevinStep
    from cdvae_core.model import CDVAE

MAX_FRAMES = 160
SCHEDULES = {"fast": "Fast", "paper": "Paper, 50 levels × 100 steps"}


@dataclass(frozen=True, eq=False)
class Frame:
    """One kept step of a run.

    Attributes:
        crystal: as it stands.
        drawn: `Scene.payload` of it.
        index, total: which of how many steps.
        sigma: noise level, Å.
        score_norm: RMS of the decoder's raw output per atom, in units of sigma.
        shortest: shortest distance between two atoms, Å.
    """

    crystal: Crystal
    drawn: dict[str, Any]
    index: int
    total: int
    level: int
    sigma: float
    score_norm: float
    shortest: float


@dataclass(frozen=True, eq=False)
class Reconstruction:
    """How a run ended.

    Attributes:
        result: the last crystal, laid over the original where the two match.
        rms: RMS displacement in Å after matching, None where they do not match.
        normalised: the same divided by (V / N)^(1/3), the paper's RMSE.
        complete: false if the run was stopped.
        z: `[latent]`, the mu that was decoded; None where two crystals were only compared.
    """

    original: Crystal
    result: Crystal
    rms: float | None
    normalised: float | None
    complete: bool
    z: np.ndarray | None = None


def start(model: CDVAE, split: CachedSplit, index: int, schedule: str, seed: int) -> Job:
    """Reconstruct crystal `index` of a split from its mu, in the background.

    The job's items are `Frame`s and its result is a `Reconstruction`.
    """

    def work(job: Job) -> Reconstruction:
        import torch

        from cdvae_core import langevin

        _check_size(model, split, index)
        batch = split.batch([index]).to(model.device)
        generator = torch.Generator(model.device).manual_seed(seed)
        last: Frame | None = None
        with torch.no_grad():
            mu, _ = model.encode(batch.crystals, batch.graph)
            for step in langevin.sample(model, mu, schedule=schedule, generator=generator):
                stop = job.stopping
                if stop or step.index % stride(step.total) == 0 or step.index == step.total - 1:
                    [last] = frames_of(step)
                    job.append(last)
                    done = step.index + 1
                    job.report(done / step.total, f"step {done:,} of {step.total:,}")
                if stop:
                    break
        if last is None:
            raise CdvaeError("the schedule has no steps")
        outcome = compare(split.crystal(index), last.crystal, last.index == last.total - 1)
        return replace(outcome, z=mu[0].cpu().numpy())

    return Job(work)


def stride(total: int) -> int:
    """Steps between kept frames, so that no more than `MAX_FRAMES` are kept."""
    return max(1, math.ceil((total - 1) / (MAX_FRAMES - 1)))


def kept(total: int) -> int:
    """Frames that a run of so many steps keeps."""
    return math.ceil((total - 1) / stride(total)) + 1


def _check_size(model: CDVAE, split: CachedSplit, index: int) -> None:
    atoms, most = int(split.num_atoms[index]), model.config.max_atoms
    if atoms > most:
        raise StructureError(
            f"this crystal has {atoms} atoms, but the checkpoint was made for up to {most}"
        )


def frames_of(step: LangevinStep) -> list[Frame]:
    """One frame for each crystal of a step."""
    import torch

    from cdvae_core.graph import shortest_distances

    shortest = shortest_distances(step.crystals.to(dtype=torch.float64)).tolist()
    return [
        Frame(
            crystal, scene(crystal).payload(), step.index, step.total, step.level,
            float(step.sigma), float(step.score_norm[i]), shortest[i],
        )
        for i, crystal in enumerate(step.crystals.to_crystals())
    ]  # fmt: skip


def compare(original: Crystal, result: Crystal, complete: bool) -> Reconstruction:
    """Match by pymatgen's StructureMatcher (stol 0.5, angle_tol 10, ltol 0.3)."""
    from pymatgen.analysis.structure_matcher import StructureMatcher

    from cdvae_core.metrics.reconstruction import ANGLE_TOL, LTOL, STOL
    from cdvae_core.structures import from_structure, to_structure

    first, second = to_structure(original), to_structure(result)
    found = StructureMatcher(stol=STOL, angle_tol=ANGLE_TOL, ltol=LTOL).get_rms_dist(first, second)
    if found is None:
        return Reconstruction(original, result, None, None, complete)
    same_cell = StructureMatcher(stol=STOL, angle_tol=ANGLE_TOL, ltol=LTOL, primitive_cell=False)
    laid_over = same_cell.get_s2_like_s1(first, second)
    if laid_over is not None:
        result = from_structure(laid_over)
    length = (original.volume / original.num_atoms) ** (1 / 3)
    return Reconstruction(original, result, float(found[0]) * length, float(found[0]), complete)
