"""What is done to one crystal, or to a few, by itself. Each task gives plain values, for JSON."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import lru_cache
from typing import Any

import numpy as np

from cdvae_core.crystal import Crystal
from cdvae_core.metrics import diversity, reconstruction, stability
from cdvae_core.metrics.measure import Measurement, measure, published_structure
from cdvae_core.metrics.predictor import Predictor
from cdvae_core.structures import niggli

_FINGERPRINTS = ("structure_fingerprint", "composition_fingerprint")


def measurement(crystal: Crystal) -> dict[str, Any]:
    """See `Measurement`; `to_measurement` is the way back."""
    found = asdict(measure(crystal))
    lists = {key: None if found[key] is None else found[key].tolist() for key in _FINGERPRINTS}
    return found | lists


def to_measurement(values: dict[str, Any]) -> Measurement:
    arrays = {key: None if values[key] is None else np.array(values[key]) for key in _FINGERPRINTS}
    return Measurement(**values | arrays)


def energy(network: str, crystal: Crystal) -> float:
    """The independent network's property of the Niggli cell, in its unit."""
    return float(_network(network).predict([niggli(published_structure(crystal))])[0])


def rmse(predicted: Crystal, true: Crystal) -> float:
    return reconstruction.match(predicted, true)


def equals_any(crystal: Crystal, candidates: Sequence[Crystal]) -> bool:
    return diversity.equals_any(crystal, candidates)


def first_of_each(crystals: Sequence[Crystal]) -> list[int]:
    return diversity.first_of_each(crystals, diversity.average_minimum_distances(crystals))


def relaxed(potential: str, crystal: Crystal) -> dict[str, Any]:
    """See `stability.Relaxed`."""
    found = stability.relax(crystal, potential)
    return {"energy": found.energy, "rmsd": found.rmsd, "formula": found.crystal.formula}


def potential_energy(potential: str, crystal: Crystal) -> float:
    return stability.energy(crystal, potential)


def element_energy(potential: str, symbol: str) -> float:
    return stability.element_energy(symbol, potential)


@lru_cache(maxsize=1)
def _network(name: str) -> Predictor:
    return Predictor.load(name)


TASKS: dict[str, Callable[..., Any]] = {
    task.__name__: task
    for task in (
        measurement,
        energy,
        rmse,
        equals_any,
        first_of_each,
        relaxed,
        potential_energy,
        element_energy,
    )
}
