"""Success rates of property optimisation (G.3): how many starts reach the best few percent.

The published order of crystals is kept: all starts of the first saved step, then all of the next.
Lower is better. A crystal that is not valid does not count.
"""

from __future__ import annotations

import numpy as np

from cdvae_core.errors import ConfigError

PERCENTILES = (5, 10, 15)
# of the published training splits, eV/atom (Percentiles in compute_metrics.py)
THRESHOLDS = {
    "perov_5": (0.43924842, 0.61202443, 0.7364607),
    "carbon_24": (-154.527093, -154.45865733, -154.44206825),
    "mp_20": (-3.17562208, -2.82196882, -2.52814761),
}


def thresholds_of(training_property: np.ndarray) -> tuple[float, ...]:
    """The same percentiles of any training split; unknown values (NaN) are left out."""
    return tuple(np.nanpercentile(training_property, PERCENTILES).tolist())


def success_rates(
    prop: np.ndarray, valid: np.ndarray, starts: int, thresholds: tuple[float, ...]
) -> dict[str, float]:
    """SR5, SR10 and SR15: the share of starts whose best valid crystal is within each threshold.

    Args:
        prop: `[steps * starts]`, the property of each saved crystal, step by step.
        valid: `[steps * starts]`.
        starts: number of starts.
        thresholds: of the property.

    Raises:
        ConfigError: the crystals are not a whole number of steps.
    """
    if starts < 1 or len(prop) % starts:
        raise ConfigError(f"{len(prop)} crystals are no whole number of steps of {starts} starts")
    usable = np.where(valid & np.isfinite(prop), prop, np.inf).reshape(-1, starts)
    best = usable.min(0)
    return {
        f"SR{percent}": float((best <= threshold).mean())
        for percent, threshold in zip(PERCENTILES, thresholds, strict=True)
    }
