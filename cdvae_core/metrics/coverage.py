"""Coverage (G.2): how much of a reference is near a generated crystal, and the other way round.

As in the published code, the nearest structure and the nearest composition may belong to two
different crystals, and all generated crystals count, valid or not. Coverage grows with the number
of crystals compared, so a figure means nothing without both counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.spatial.distance import cdist

from cdvae_core.metrics.fingerprints import scaled
from cdvae_core.metrics.measure import Measurement

_ROWS = 1024  # of a distance matrix in memory


@dataclass(frozen=True)
class Cutoffs:
    """How near is near, in the units of the two fingerprints."""

    structure: float
    composition: float


CUTOFFS = {
    "perov_5": Cutoffs(0.2, 4.0),
    "carbon_24": Cutoffs(0.2, 4.0),
    "mp_20": Cutoffs(0.4, 10.0),
}  # compute_metrics.py of the published code


@dataclass(frozen=True)
class Coverage:
    """Distances to the nearest partner, and what share is within the cut-offs.

    Attributes:
        num_generated, num_reference: crystals compared, those without a fingerprint included.
        structure_recall, composition_recall: `[reference]`, to the nearest generated crystal.
        structure_precision, composition_precision: `[generated]`, to the nearest reference.
    """

    num_generated: int
    num_reference: int
    structure_recall: np.ndarray
    composition_recall: np.ndarray
    structure_precision: np.ndarray
    composition_precision: np.ndarray
    cutoffs: Cutoffs

    def metrics(self) -> dict[str, float]:
        """Under the published names; NaN where one side has no fingerprint at all."""
        recalled = self._near(self.structure_recall, self.composition_recall)
        precise = self._near(self.structure_precision, self.composition_precision)
        return {
            "cov_recall": recalled / self.num_reference,
            "cov_precision": precise / self.num_generated,
            "amsd_recall": _mean(self.structure_recall),
            "amsd_precision": _mean(self.structure_precision),
            "amcd_recall": _mean(self.composition_recall),
            "amcd_precision": _mean(self.composition_precision),
        }

    def _near(self, structure: np.ndarray, composition: np.ndarray) -> int:
        near = (structure <= self.cutoffs.structure) & (composition <= self.cutoffs.composition)
        return int(near.sum())


def coverage(
    generated: Sequence[Measurement], reference: Sequence[Measurement], cutoffs: Cutoffs
) -> Coverage:
    """Compare two sets, neither of them empty."""
    of_generated, of_reference = (_with_fingerprints(given) for given in (generated, reference))
    structure = _nearest(of_generated[0], of_reference[0])
    composition = _nearest(scaled(of_generated[1]), scaled(of_reference[1]))
    return Coverage(
        len(generated),
        len(reference),
        structure_recall=structure[1],
        composition_recall=composition[1],
        structure_precision=structure[0],
        composition_precision=composition[0],
        cutoffs=cutoffs,
    )


def _with_fingerprints(given: Sequence[Measurement]) -> tuple[np.ndarray, np.ndarray]:
    having = [one for one in given if one.structure_fingerprint is not None]
    if not having:
        return np.empty((0, 1)), np.empty((0, 132))
    return (
        np.array([one.structure_fingerprint for one in having]),
        np.array([one.composition_fingerprint for one in having]),
    )


def _nearest(rows: np.ndarray, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distance of each row to the nearest column, and of each column to the nearest row."""
    by_row, by_column = np.full(len(rows), np.inf), np.full(len(columns), np.inf)
    if len(rows) and len(columns):
        for first in range(0, len(rows), _ROWS):
            distance = cdist(rows[first : first + _ROWS], columns)
            by_row[first : first + _ROWS] = distance.min(1)
            np.minimum(by_column, distance.min(0), out=by_column)
    return by_row, by_column


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) and np.isfinite(values).all() else float("nan")
