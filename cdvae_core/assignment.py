"""Types for atoms under given counts: each element goes where it is likeliest.

Taking the likeliest type of every atom by itself may use an element twice and another never, while
z knows the composition well. Here the counts hold, and what is chosen is which atom gets which.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cdvae_core.crystal import CrystalBatch


@torch.no_grad()
def assign_types(
    logits: Float[Tensor, "atoms elements"], crystals: CrystalBatch, most_atoms: int
) -> Int[Tensor, " atoms"]:
    """Atomic numbers with the counts that each crystal has already, placed by the logits.

    Greedy: the likeliest pair of an atom and one of the types still to be given is fixed, and so
    on. As many steps as the largest crystal has atoms, each for the whole batch.

    Args:
        logits: of the elements 1 ... 100, for each atom.
        crystals: whose `atomic_numbers` are the types to be given, in any order.
        most_atoms: of the largest crystal.
    """
    sizes, numbers = crystals.num_atoms, crystals.atomic_numbers
    first = (sizes.cumsum(0) - sizes)[:, None]
    place = torch.arange(most_atoms, device=sizes.device)
    there = place < sizes[:, None]
    atom = torch.where(there, first + place, first)  # [crystals, most_atoms]
    log_p = logits.float().log_softmax(-1)
    column = (numbers[atom] - 1)[:, None].expand(-1, most_atoms, -1)
    gain = log_p[atom].gather(2, column)  # of giving the type of place j to the atom at place i
    gain = gain.masked_fill(~(there[:, :, None] & there[:, None]), -math.inf)
    crystal = torch.arange(len(sizes), device=sizes.device)
    given = numbers.clone()
    for step in range(most_atoms):
        best = gain.flatten(1).argmax(-1)
        i, j = best // most_atoms, best % most_atoms
        chosen, kind = atom[crystal, i], numbers[atom[crystal, j]]
        given[chosen] = torch.where(step < sizes, kind, given[chosen])  # a full crystal stays
        gain[crystal, i] = -math.inf
        gain[crystal, :, j] = -math.inf
    return given
