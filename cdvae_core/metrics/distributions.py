"""Distances between distributions (G.2), and the sample of valid crystals they are taken over."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.stats import wasserstein_distance

from cdvae_core.metrics.measure import Measurement

SAMPLE = 1000  # valid crystals, as published


def draw_valid(measured: Sequence[Measurement], seed: int) -> list[int]:
    """The places of 1,000 valid crystals drawn at random; of all valid ones where they are fewer.

    The published code draws without a seed, and stops where there are fewer.
    """
    valid = np.flatnonzero([one.valid for one in measured])
    if len(valid) > SAMPLE:
        valid = np.sort(np.random.default_rng(seed).choice(valid, SAMPLE, replace=False))
    return valid.tolist()


def earth_movers(
    generated: Sequence[Measurement], reference: Sequence[Measurement]
) -> dict[str, float]:
    """Under the published names: of density (g/cm3) and of the number of elements."""
    return {
        "wdist_density": distance([m.density for m in generated], [m.density for m in reference]),
        "wdist_num_elems": distance(
            [m.num_elements for m in generated], [m.num_elements for m in reference]
        ),
    }


def distance(one: Sequence[float] | np.ndarray, other: Sequence[float] | np.ndarray) -> float:
    """The earth mover's distance in the values' unit; NaN where a side is empty."""
    return float(wasserstein_distance(one, other)) if len(one) and len(other) else float("nan")


def symmetry(
    generated: Sequence[Measurement], reference: Sequence[Measurement]
) -> dict[str, float]:
    """Share of space group P1, and the total variation distance between space groups (0 to 1)."""
    counts = [
        np.bincount([m.spacegroup for m in side], minlength=231) for side in (generated, reference)
    ]
    shares = [c / max(1, c.sum()) for c in counts]
    return {
        "p1_share": float(shares[0][1]),
        "p1_share_reference": float(shares[1][1]),
        "spacegroup_distance": float(np.abs(shares[0] - shares[1]).sum() / 2),
    }
