"""Generation as a job: latents from a prior, decoded, judged, and sifted as they come."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from app.services.decoding import Candidate, decode_all
from app.services.jobs import Job
from app.services.judging import Judge

if TYPE_CHECKING:
    from cdvae_core.consistency import Consistency
    from cdvae_core.model import CDVAE
    from cdvae_core.prior import Condition


@dataclass(frozen=True)
class Tally:
    """How a set of crystals stands, as shares of all that were decoded.

    Attributes:
        count: of decoded latents, those that gave no crystal included.
        novel: of the unique ones; None where nothing is known to compare with.
    """

    count: int
    valid: float
    unique: float
    novel: float | None


def start(
    model: CDVAE,
    folder: Path,
    count: int,
    *,
    prior: str,
    condition: Condition,
    guidance: float,
    schedule: str,
    seed: int,
    consistency: Consistency,
    judge: Judge,
) -> Job:
    """Generate in the background; the items of the job are `Candidate`s as they come."""

    def work(job: Job) -> None:
        from cdvae_core.prior import draw

        z, _ = draw(model, folder, count, seed, prior, condition, guidance)
        names = [f"sample {i + 1}" for i in range(count)]
        for one in decode_all(
            job, model, z, names, schedule=schedule, seed=seed, consistency=consistency,
            judge=judge, num_atoms=condition.num_atoms,
        ):  # fmt: skip
            job.append(one)

    return Job(work)


def firsts(candidates: list[Candidate], known: dict[str, int] | None = None) -> list[int]:
    """The places of the crystals that equal no earlier one, by StructureMatcher.

    Args:
        known: a memory of earlier calls on the same growing list: name to the place of its first.
    """
    import numpy as np

    from cdvae_core.metrics.reconstruction import match

    memory = {} if known is None else known
    by_formula: dict[str, list[int]] = {}
    kept = []
    for place, one in enumerate(candidates):
        if one.crystal is None:
            continue
        earlier = by_formula.setdefault(one.formula, [])
        if one.name not in memory:
            alike = ((i, candidates[i].crystal) for i in earlier)
            same = (i for i, other in alike if other and np.isfinite(match(one.crystal, other)))
            memory[one.name] = next(same, place)
        if memory[one.name] == place:
            earlier.append(place)
            kept.append(place)
    return kept


def tally(candidates: list[Candidate], unique: list[int]) -> Tally:
    """Shares of a set, whose unique members are known."""
    count = max(1, len(candidates))
    valid = sum(one.verdict is not None and one.verdict.valid for one in candidates)
    verdicts = [candidates[i].verdict for i in unique]
    words = [verdict.novel for verdict in verdicts if verdict]
    known = [word for word in words if word is not None]
    return Tally(
        len(candidates),
        valid / count,
        len(unique) / count,
        sum(known) / len(known) if known else None,
    )
