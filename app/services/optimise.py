"""Property optimisation as a job: ascend in z, decode on the way, let others judge (G.3)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from app.services.decoding import Candidate, decode_all
from app.services.jobs import Job
from app.services.judging import Judge
from cdvae_core.crystal import Crystal
from cdvae_core.errors import ConfigError
from cdvae_core.metrics import optimisation

if TYPE_CHECKING:
    from torch import Tensor

    from cdvae_core.consistency import Consistency
    from cdvae_core.model import CDVAE
    from cdvae_core.optimise import Goal
    from cdvae_core.prior import FlowPrior

ASCENT = 0.15  # the part of the job's bar that the ascent takes
POINTS = 200  # of the curve


@dataclass(frozen=True, eq=False)
class Starts:
    """Where an optimisation begins.

    Attributes:
        labels: one for each start.
        z: `[starts, latent]`, None for guided draws, which begin nowhere.
        crystals: what the latents are of, None where that is no crystal.
        where: in words that find a chosen source again, empty where none was chosen.
    """

    labels: list[str]
    z: Tensor | None
    crystals: list[Crystal | None]
    where: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class Progress:
    """The ascent so far.

    Attributes:
        step: of gradient ascent.
        predicted: `[starts]`, the model's own guess.
        z: `[starts, latent]`.
    """

    step: int
    predicted: np.ndarray
    z: np.ndarray


@dataclass(frozen=True, eq=False)
class Waypoint:
    """A decoded latent of one start: of a step on its way, or of one of its draws."""

    start: int
    step: int
    candidate: Candidate


@dataclass(frozen=True)
class Best:
    """The waypoint of one start that the judge likes best.

    Attributes:
        before, after: the property, by the independent network where there is one.
    """

    waypoint: Waypoint
    before: float | None
    after: float | None
    improved: bool | None


def start(
    model: CDVAE,
    z: Tensor,
    goal: Goal,
    *,
    flow: Path | None = None,
    steps: int,
    step_size: float,
    kept: int,
    schedule: str,
    seed: int,
    consistency: Consistency,
    judge: Judge,
    earlier: Sequence[Progress] = (),
) -> Job:
    """Optimise in the background; the items are `Progress`, then `Waypoint`s as they come.

    Args:
        z: where to begin, or where `earlier` ended.
        flow: of the checkpoint whose flow the ascent is not to leave, if any.
        earlier: of an ascent that was stopped; this one goes on from there.
    """

    def work(job: Job) -> None:
        import torch

        from cdvae_core.optimise import ascend

        prior = None if flow is None else _flow_of(flow)
        for one in earlier:
            job.append(one)
        done = earlier[-1].step if earlier else 0
        left = steps - done
        wanted = min(left, max(1, round(kept * left / steps)))
        every, waypoints, labels = max(1, steps // POINTS), [], []
        way = ascend(model, z, goal, flow=prior, steps=left, step_size=step_size, kept=wanted)
        for here in way:
            if job.stopping:
                return
            step = done + here.step
            if step % every == 0 or step == 1 or here.kept:
                job.report(ASCENT * step / steps, f"step {step:,} of {steps:,}")
                job.append(Progress(step, here.predicted.numpy(), here.z.numpy()))
            if here.kept:
                waypoints.append(here.z)
                labels += [(i, step) for i in range(len(z))]
        names = [f"start {i + 1}, step {step}" for i, step in labels]
        found = decode_all(
            job, model, torch.cat(waypoints), names, schedule=schedule, seed=seed,
            consistency=consistency, judge=judge, begun=ASCENT,
        )  # fmt: skip
        _append(job, labels, found)

    return Job(work)


def unfinished(items: Sequence[Any], steps: int) -> list[Progress]:
    """The course of an ascent that did not come to its end, empty if it did."""
    progress = [one for one in items if isinstance(one, Progress)]
    return progress if progress and progress[-1].step < steps else []


def start_guided(
    model: CDVAE,
    folder: Path,
    goal: Goal,
    *,
    starts: int,
    draws: int,
    schedule: str,
    seed: int,
    consistency: Consistency,
    judge: Judge,
) -> Job:
    """Draw from the flow on condition of the goal, in the background; the items are `Waypoint`s."""

    def work(job: Job) -> None:
        import torch

        from cdvae_core.optimise import guided

        prior = _flow_of(folder)
        z = guided(model, prior, goal, starts * draws, torch.Generator().manual_seed(seed))
        labels = [(i, draw + 1) for draw in range(draws) for i in range(starts)]
        names = [f"series {i + 1}, draw {draw}" for i, draw in labels]
        found = decode_all(
            job, model, z, names, schedule=schedule, seed=seed, consistency=consistency, judge=judge
        )
        _append(job, labels, found)

    return Job(work)


def _flow_of(folder: Path) -> FlowPrior:
    from cdvae_core.prior import load_prior

    prior = load_prior(folder)
    if prior is None:
        raise ConfigError("this checkpoint has no flow prior: run `cdvae prior`")
    return prior


def _append(job: Job, labels: Sequence[tuple[int, int]], found: Iterable[Candidate]) -> None:
    for (i, step), candidate in zip(labels, found, strict=False):  # shorter when it was stopped
        job.append(Waypoint(i, step, candidate))


def before(model: CDVAE, starts: Starts, judge: Judge) -> list[float | None]:
    """The property of each start: by the judge where there is a crystal, else the model's guess.

    None where a start is no latent at all, as for guided draws.
    """
    import torch

    if starts.z is None:
        return [None] * len(starts.labels)
    with torch.no_grad():
        guesses = model.predict_property(starts.z).tolist()
    judged = [None if crystal is None else judge.prop(crystal) for crystal in starts.crystals]
    return [g if j is None else j for g, j in zip(guesses, judged, strict=True)]


def best_of(
    waypoints: list[Waypoint], before: list[float | None], direction: int, target: float
) -> list[Best]:
    """For each start the valid crystal that is best, by the independent network where there is one.

    Args:
        before: of the crystal that each start began from, by the same judge.
        direction, target: of the `Goal`.
    """

    def value(one: Waypoint) -> float | None:
        verdict = one.candidate.verdict
        if verdict is None or not verdict.valid:
            return None
        return one.candidate.guess if verdict.prop is None else verdict.prop

    def cost(x: float) -> float:
        return -direction * x if direction else abs(x - target)

    found = []
    for i in sorted({one.start for one in waypoints}):
        own = [(value(one), one) for one in waypoints if one.start == i]
        rated = [(cost(x), x, one) for x, one in own if x is not None]
        if not rated:
            continue
        price, after, one = min(rated, key=lambda item: item[0])
        first = before[i]
        improved = None if first is None else price < cost(first)
        found.append(Best(one, first, after, improved))
    return found


def success_rates(best: list[Best], starts: int, thresholds: tuple[float, ...]) -> dict[str, float]:
    """SR5, SR10, SR15 of minimising: the share of starts whose best is below each threshold."""
    after = np.full(starts, np.nan)
    for one in best:
        after[one.waypoint.start] = np.nan if one.after is None else one.after
    return optimisation.success_rates(after, np.isfinite(after), starts, thresholds)
