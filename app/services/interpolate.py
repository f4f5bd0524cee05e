"""A way through the latent space as a job: every point decoded and judged."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from app.services.decoding import decode_all
from app.services.jobs import Job
from app.services.judging import Judge

if TYPE_CHECKING:
    from torch import Tensor

    from cdvae_core.consistency import Consistency
    from cdvae_core.model import CDVAE

LINE, CIRCLE, RANDOM = "Straight line", "Great circle", "Random walk"


def points(
    stops: Sequence[Tensor],
    kind: str,
    between: int,
    *,
    steps: int = 8,
    length: float = 1.0,
    seed: int = 0,
) -> Tensor:
    """The latents of a way, `[points, latent]`.

    Args:
        stops: latents to pass through; a random walk begins at the first.
        kind: one of the three.
        between: points between two stops.
        steps, length, seed: of a random walk.
    """
    import torch

    from cdvae_core.walks import random_walk, through

    if kind == RANDOM:
        generator = torch.Generator().manual_seed(seed)
        return random_walk(stops[0], steps + 1, length, generator)
    return through(torch.stack(list(stops)), between, spherical=kind == CIRCLE)


def start(
    model: CDVAE, way: Tensor, *, schedule: str, seed: int, consistency: Consistency, judge: Judge
) -> Job:
    """Decode a way in the background; the items of the job are `Candidate`s, in order."""

    def work(job: Job) -> None:
        names = [f"stop {i}" for i in range(len(way))]
        for one in decode_all(
            job,
            model,
            way,
            names,
            schedule=schedule,
            seed=seed,
            consistency=consistency,
            judge=judge,
        ):
            job.append(one)

    return Job(work)


def distance_from_data(way: np.ndarray, latents: np.ndarray) -> np.ndarray:
    """`[points]`, the distance in z from each point to the nearest known latent."""
    from cdvae_core.latent import nearest

    _, distance = nearest(way, latents, 1)
    return distance[:, 0]
