"""Latents to crystals inside a job, each judged as it comes: what three pages have in common."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from app.services.chemistry import formula
from app.services.jobs import Job
from app.services.judging import Judge, Verdict
from cdvae_core.crystal import Crystal

if TYPE_CHECKING:
    from torch import Tensor

    from cdvae_core.consistency import Consistency
    from cdvae_core.model import CDVAE

BATCH = 16  # crystals at once: a step of them takes a small part of a second, so a stop is heard


@dataclass(frozen=True, eq=False)
class Candidate:
    """One decoded latent.

    Attributes:
        name: within its run.
        z: `[latent]`.
        crystal: None where the result is no crystal; `problem` then says why.
        guess: the model's own property of z, None if it predicts none.
        verdict: what others say of the crystal.
    """

    name: str
    z: np.ndarray
    crystal: Crystal | None
    problem: str = ""
    guess: float | None = None
    verdict: Verdict | None = None

    @property
    def formula(self) -> str:
        return "–" if self.crystal is None else formula(self.crystal.atomic_numbers)


def decode_all(
    job: Job,
    model: CDVAE,
    z: Tensor,
    names: Sequence[str],
    *,
    schedule: str,
    seed: int,
    consistency: Consistency,
    judge: Judge,
    num_atoms: int | None = None,
    begun: float = 0.0,
) -> Iterator[Candidate]:
    """Decode latents batch by batch, until done or the job is to stop.

    Args:
        consistency: whether each latent is decoded several times, and elements are exchanged.
        begun: the part of the job that was done before, 0 to 1.
    """
    import torch

    from cdvae_core.decode import Given, decode, latents_at_once
    from cdvae_core.langevin import Schedule

    plan = Schedule.named(schedule, model.config.noise)
    fixed = None if num_atoms is None else torch.full((len(z),), num_atoms)
    with torch.no_grad():
        guesses = model.predict_property(z).tolist() if model.fc_property else [None] * len(z)
    ready = 0
    total = plan.total * -(-len(z) // latents_at_once(BATCH, consistency.tries))
    steps = decode(
        model, z, names, plan, seed,
        given=Given(fixed), consistency=consistency, batch_size=BATCH,
    )  # fmt: skip
    for number, (step, done) in enumerate(steps, 1):
        if job.stopping and not done:  # what is finished is kept
            return
        share = begun + (1 - begun) * number / total
        job.report(share, f"{ready} of {len(z)} decoded, step {step.index + 1} of {step.total}")
        for item in done:
            verdict = None if item.crystal is None else judge(item.crystal)
            yield Candidate(
                item.name, z[ready].numpy(), item.crystal, item.problem, guesses[ready], verdict
            )
            ready += 1
            if job.stopping:
                return
