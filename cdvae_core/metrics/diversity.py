"""Unique, novel, and every reference matched: who equals whom in large sets of crystals.

Equal means that StructureMatcher, with the tolerances of `reconstruction`, fits one crystal to the
other. It is asked only about crystals of one reduced formula and, where these are many, about the
few that are nearest by average minimum distances (Widdowson et al. 2022), scaled by (V/N)^(1/3) as
the matcher scales them. So where more than `NEAREST` crystals share a formula (carbon), a match may
be missed: uniqueness and novelty are then upper bounds, METRe is a lower one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import torch

from cdvae_core.crystal import Crystal, CrystalBatch
from cdvae_core.graph import knn_graph
from cdvae_core.metrics.reconstruction import matcher
from cdvae_core.structures import to_structure

NEAREST = 20
_NEIGHBOURS = 12
_AT_ONCE = 256


def average_minimum_distances(crystals: Sequence[Crystal]) -> np.ndarray:
    """`[crystals, 12]`: the mean distance to the k-th neighbour over the atoms, by (V/N)^(1/3)."""
    rows = [np.empty((0, _NEIGHBOURS))]
    for first in range(0, len(crystals), _AT_ONCE):
        batch = CrystalBatch.from_crystals(crystals[first : first + _AT_ONCE])
        distance = knn_graph(batch, _NEIGHBOURS, float("inf")).distance
        total = distance.new_zeros(batch.num_crystals, _NEIGHBOURS)
        total.index_add_(0, batch.crystal_of_atom, distance)
        size = (torch.linalg.det(batch.lattice).abs() / batch.num_atoms) ** (1 / 3)
        rows.append((total / (batch.num_atoms * size)[:, None]).double().numpy())
    return np.concatenate(rows)


def by_formula(formulas: Sequence[str]) -> dict[str, list[int]]:
    """The places of each formula."""
    places = defaultdict(list)
    for place, formula in enumerate(formulas):
        places[formula].append(place)
    return dict(places)


def nearest(own: np.ndarray, others: np.ndarray) -> np.ndarray:
    """The places of the few `others` `[n, 12]` that are nearest to `own` `[12]`, nearest first."""
    return np.linalg.norm(others - own, axis=-1).argsort(kind="stable")[:NEAREST]


def candidates(crystals: Sequence[Crystal], others: Sequence[Crystal]) -> list[list[Crystal]]:
    """For each crystal those of the others that it is compared with; all are of one formula."""
    if len(others) <= NEAREST:
        return [list(others) for _ in crystals]
    theirs = average_minimum_distances(others)
    return [
        [others[i] for i in nearest(own, theirs)] for own in average_minimum_distances(crystals)
    ]


def equals_any(crystal: Crystal, candidates: Sequence[Crystal]) -> bool:
    """Whether one of the candidates is the same crystal; they are tried in their order."""
    compare, own = matcher(), to_structure(crystal)
    return any(compare.fit(own, to_structure(other)) for other in candidates)


def first_of_each(crystals: Sequence[Crystal], distances: np.ndarray) -> list[int]:
    """Of crystals of one formula, the place of the first of each distinct one.

    Args:
        distances: `average_minimum_distances` of them.
    """
    kept: list[int] = []
    for place, crystal in enumerate(crystals):
        near = nearest(distances[place], distances[kept])
        if not equals_any(crystal, [crystals[kept[i]] for i in near]):
            kept.append(place)
    return kept
