"""Several Langevin runs from one latent as a job, each frame with what it can be measured by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from app.services.jobs import Job
from app.services.judging import Judge
from app.services.reconstruct import Frame, frames_of, stride
from cdvae_core.crystal import Crystal
from cdvae_core.errors import CdvaeError

if TYPE_CHECKING:
    from torch import Tensor

    from cdvae_core.metrics.predictor import Predictor
    from cdvae_core.model import CDVAE

JUDGED = 12  # frames of each run that the independent network looks at, besides the last


@dataclass(frozen=True, eq=False)
class Moment:
    """All runs at one kept step.

    Attributes:
        frames: one for each run.
        props: by the independent network, None where it was not asked or has no answer.
    """

    frames: list[Frame]
    props: list[float | None]


@dataclass(frozen=True, eq=False)
class Ending:
    """How the runs ended.

    Attributes:
        original: what the latent is of, None for a draw from the prior.
        rmse: of each run against it, None where it does not match or there is none.
    """

    original: Crystal | None
    rmse: list[float | None]


def start(
    model: CDVAE,
    z: Tensor,
    original: Crystal | None,
    network: Predictor | None,
    *,
    schedule: str,
    seed: int,
    count: int,
) -> Job:
    """Run in the background; the items of the job are `Moment`s.

    Its result is an `Ending`, None where it was stopped on its way.
    """

    def work(job: Job) -> Ending | None:
        import torch

        from cdvae_core import langevin
        from cdvae_core.metrics.reconstruction import match

        judge = Judge(network, None)
        generator = torch.Generator(model.device).manual_seed(seed)
        latents = z.expand(count, -1).to(model.device)
        last: Moment | None = None
        kept = 0
        for step in langevin.sample(model, latents, schedule=schedule, generator=generator):
            final = step.index == step.total - 1
            if final or job.stopping or step.index % stride(step.total) == 0:
                asked = final or kept % max(1, step.total // stride(step.total) // JUDGED) == 0
                frames = frames_of(step)
                last = Moment(frames, [judge.prop(f.crystal) if asked else None for f in frames])
                job.append(last)
                kept += 1
                done = (step.index + 1) / step.total
                job.report(done, f"step {step.index + 1:,} of {step.total:,}")
            if job.stopping and not final:
                return None
        if last is None:
            raise CdvaeError("the schedule has no steps")
        ends = [frame.crystal for frame in last.frames]
        rmse = [match(end, original) if original else np.nan for end in ends]
        return Ending(original, [float(r) if np.isfinite(r) else None for r in rmse])

    return Job(work)
