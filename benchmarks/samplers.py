"""Fewer evaluations against quality: schedules of the sampler on the same crystals and latents.

    python benchmarks/samplers.py                # perov_5, or perov_like where that is not built
    python benchmarks/samplers.py --dataset mp_like -n 100 --reference 1000

Every schedule decodes the same test crystals from their mu. Printed beside the evaluations per
crystal: the match rate and RMSE without the validity gate, the share that is valid by the published
rules, and the paired difference to the reference, the paper's schedule, with the 95 % interval of
a bootstrap over crystals (of the RMSE: relative, over crystals that both matched). `--reference
1000` shortens the reference to 20 steps per level. Writes `results/samplers.json` and `.svg`.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from joblib import Parallel, delayed
from machine import RESULTS, keep, report
from matplotlib.figure import Figure

from cdvae_core.crystal import Crystal
from cdvae_core.data.cache import CachedSplit, find_split, open_split
from cdvae_core.langevin import Schedule, final, sample
from cdvae_core.metrics.composition_rule import published_rule
from cdvae_core.metrics.reconstruction import match
from cdvae_core.metrics.structure_rule import shortest_pair, structure_valid
from cdvae_core.model import CDVAE
from cdvae_core.noise import coordinate_sigmas, geometric
from cdvae_core.structures import to_structure

ROOT = Path(__file__).parents[1]
BATCH = 128
DRAWS = 2000  # of the bootstrap


@dataclass(frozen=True, eq=False)
class Outcome:
    """One schedule on all crystals: `[crystals]` RMSE (NaN: no match) and validity."""

    evaluations: int
    seconds: float
    rmse: np.ndarray
    valid: np.ndarray

    @property
    def matched(self) -> np.ndarray:
        return np.isfinite(self.rmse)


def schedules(model: CDVAE, reference: int) -> dict[str, Schedule]:
    """The first is the reference."""
    noise = model.config.noise
    last, levels = noise.sigma_last, tuple(coordinate_sigmas(noise).tolist())
    per_level = reference // len(levels)
    epsilon = 1e-4

    def short(count: int, steps: int, more: int, temperature: float = 1.0) -> Schedule:
        sigmas = geometric(min(2.0, noise.sigma_first), last, count)
        return Schedule(tuple(sigmas.tolist()), steps, last**2, more, True, temperature)

    return {
        f"paper, {len(levels)} x {per_level}": Schedule(levels, per_level, epsilon),
        "50 x 20": Schedule(levels, 20, epsilon),
        "50 x 20, types by counts": Schedule(levels, 20, epsilon, 0, True),
        "10 x 1 + 3": short(10, 1, 3),
        "25 x 1 + 3": short(25, 1, 3),
        "60 x 1 + 5": short(60, 1, 5),
        "60 x 2 + 5": short(60, 2, 5),
        "120 x 2 + 5": short(120, 2, 5),
        "60 x 4 + 5": short(60, 4, 5),
        "fast (60 x 2 + 5, half the noise)": Schedule.named("fast", noise),
        "60 x 2 + 5, no noise": short(60, 2, 5, 0.0),
    }


def decode(model: CDVAE, split: CachedSplit, count: int, schedule: Schedule) -> list[Crystal]:
    found: list[Crystal] = []
    for first in range(0, count, BATCH):
        batch = split.batch(range(first, min(first + BATCH, count)))
        with torch.no_grad():
            mu, _ = model.encode(batch.crystals, batch.graph)
        generator = torch.Generator().manual_seed(first)
        steps = sample(model, mu, schedule=schedule, generator=generator)
        found += final(steps).to_crystals()
    return found


def judge(predicted: Crystal, true: Crystal) -> tuple[float, bool]:
    pair = shortest_pair(to_structure(predicted))
    sound = structure_valid(pair, float(abs(np.linalg.det(predicted.lattice))))
    return match(predicted, true), sound and published_rule(predicted.atomic_numbers)


def interval(values: np.ndarray) -> tuple[float, float, float]:
    """A mean and the 95 % interval of its bootstrap."""
    generator = np.random.default_rng(0)
    means = values[generator.integers(len(values), size=(DRAWS, len(values)))].mean(1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(values.mean()), float(low), float(high)


def compare(name: str, one: Outcome, reference: Outcome) -> dict[str, Any]:
    both = one.matched & reference.matched
    points = interval(100 * (one.matched * 1.0 - reference.matched))
    validity = interval(100 * (one.valid * 1.0 - reference.valid))
    shared, base = one.rmse[both], reference.rmse[both].mean()
    relative = interval(100 * (shared - reference.rmse[both]) / base)
    return {
        "schedule": name,
        "evaluations": one.evaluations,
        "crystals/s": len(one.rmse) / one.seconds,
        "match %": 100 * float(one.matched.mean()),
        "RMSE": float(np.nanmean(one.rmse)),
        "valid %": 100 * float(one.valid.mean()),
        "match, points": _signed(points),
        "RMSE, %": _signed(relative),
        "valid, points": _signed(validity),
    }


def _signed(values: tuple[float, float, float]) -> str:
    mean, low, high = values
    return f"{mean:+.2f} ({low:+.2f} to {high:+.2f})"


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """The trade-off: one dot per schedule in each of three panels."""
    figure = Figure(figsize=(11, 3.6), layout="constrained")
    axes = figure.subplots(1, 3)
    for axis, column in zip(axes, ("match %", "RMSE", "valid %"), strict=True):
        for i, row in enumerate(rows):
            label = row["schedule"] if column == "RMSE" else None
            axis.plot(row["evaluations"], row[column], "osv^D"[i % 5], color=f"C{i}", label=label)
        axis.set(xscale="log", xlabel="evaluations per crystal", ylabel=column)
        axis.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dataset", help="the shipped checkpoint has its name")
    parser.add_argument("-n", type=int, default=500)
    parser.add_argument("--reference", type=int, default=5000)
    arguments = parser.parse_args()
    name = arguments.dataset or ("perov_5" if find_split("perov_5", "test") else "perov_like")
    model, split = CDVAE.load(ROOT / "checkpoints" / name), open_split(name, "test")
    count = min(arguments.n, len(split))
    true = [split.crystal(i) for i in range(count)]
    outcomes: dict[str, Outcome] = {}
    rows: list[dict[str, Any]] = []
    for title, schedule in schedules(model, arguments.reference).items():
        begun = time.perf_counter()
        predicted = decode(model, split, count, schedule)
        spent = time.perf_counter() - begun
        judged = Parallel(n_jobs=-1)(map(delayed(judge), predicted, true))
        rmse, valid = (np.array(column) for column in zip(*judged, strict=True))
        outcomes[title] = Outcome(schedule.total, spent, rmse, valid)
        rows.append(compare(title, outcomes[title], next(iter(outcomes.values()))))
        print(rows[-1], flush=True)
        keep(f"samplers-{name}", rows, checkpoint=name, crystals=count)  # a stop loses nothing
    report(f"samplers-{name}", rows, checkpoint=name, crystals=count)
    plot(rows, RESULTS / f"samplers-{name}.svg")


if __name__ == "__main__":
    main()
