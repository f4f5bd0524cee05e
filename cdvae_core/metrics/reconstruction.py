"""Match rate and RMSE of reconstructions (G.1), without the published validity gate.

StructureMatcher with stol 0.5, angle_tol 10, ltol 0.3; its RMSE is in units of (V/N)^(1/3). The
RMSE is averaged over matches only, so it can fall when the match rate does: read both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pymatgen.analysis.structure_matcher import StructureMatcher

from cdvae_core.crystal import Crystal
from cdvae_core.structures import to_structure

STOL, ANGLE_TOL, LTOL = 0.5, 10, 0.3


@dataclass(frozen=True)
class Reconstruction:
    """How a set of crystals was reconstructed.

    Attributes:
        rmse: `[crystals]`, of the best decoding in units of (V/N)^(1/3), NaN where none matched.
    """

    rmse: np.ndarray

    @property
    def match_rate(self) -> float:
        return float(np.isfinite(self.rmse).mean())

    @property
    def mean_rmse(self) -> float:
        """Over matched crystals; NaN where there are none."""
        matched = self.rmse[np.isfinite(self.rmse)]
        return float(matched.mean()) if len(matched) else float("nan")

    def __str__(self) -> str:
        count, total = int(np.isfinite(self.rmse).sum()), len(self.rmse)
        return (
            f"match {100 * self.match_rate:.1f} % ({count} of {total}), RMSE {self.mean_rmse:.4f}"
        )


def match(predicted: Crystal, true: Crystal) -> float:
    """RMSE in units of (V/N)^(1/3), or NaN where the two do not match."""
    matcher = StructureMatcher(stol=STOL, angle_tol=ANGLE_TOL, ltol=LTOL)
    found = matcher.get_rms_dist(to_structure(predicted), to_structure(true))
    return float("nan") if found is None else float(found[0])


def reconstruction(
    decodings: Sequence[Sequence[Crystal | None]], true: Sequence[Crystal]
) -> Reconstruction:
    """The best of one or more decodings of each crystal.

    Args:
        decodings: for each crystal its decodings, None where one was no crystal.
    """
    best = []
    for tries, crystal in zip(decodings, true, strict=True):
        found = [match(one, crystal) for one in tries if one is not None]
        matched = [value for value in found if np.isfinite(value)]
        best.append(min(matched) if matched else np.nan)
    return Reconstruction(np.array(best))
