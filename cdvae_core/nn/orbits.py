"""Edges that must carry the same message, found before any message is computed.

Crystals are symmetric: of the bonds of a perovskite more than half repeat another one. Two directed
edges with the same elements, the same length and, at the same angles, incoming edges that are the
same in their turn, carry the same message through as many interaction blocks as this was followed
back. That is colour refinement (Weisfeiler and Leman 1968) on edges. Their common value needs to
be computed once. Nothing here knows of space groups or cells, so a supercell costs as much as its
primitive cell, and equal surroundings in two crystals of a batch are shared as well.

Colours are 64-bit hashes. Lengths and cosines enter in steps of `tolerance`; what differs by less
than a step may be taken as equal. Two values on both sides of a step are taken as different, which
costs time and changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cdvae_core.graph import MultiGraph

_IMAGE_BASE = 2048  # images along one axis stay far below half of this
_TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-5}  # Å, and of a cosine


@dataclass(frozen=True, eq=False)
class Classes:
    """A partition of things 0, 1, ... n - 1.

    Attributes:
        of: `[n]`, the class of each.
        first: `[classes]`, the first member of each class.
    """

    of: Int[Tensor, " n"]
    first: Int[Tensor, " classes"]

    @classmethod
    def of_equal(cls, colour: Int[Tensor, " n"]) -> Classes:
        """Things of the same colour are one class."""
        values, of = torch.unique(colour, return_inverse=True)
        place = torch.arange(len(colour), device=colour.device)
        first = torch.full_like(values, len(colour)).scatter_reduce_(0, of, place, "amin")
        return cls(of, first)

    @classmethod
    def singletons(cls, n: int, device: torch.device) -> Classes:
        """Every thing is a class of its own."""
        place = torch.arange(n, device=device)
        return cls(place, place)


def triplets(
    graph: MultiGraph, num_atoms: int, no_return_to: Literal["image", "atom"]
) -> tuple[Int[Tensor, " triplets"], Int[Tensor, " triplets"]]:
    """All pairs of an edge j -> i and an edge k -> j with k != i, sorted by the first.

    Args:
        graph: edges sorted by target.
        num_atoms: of the batch.
        no_return_to: whether k = i means the same periodic image of an atom, or the same atom in
            any image.

    Returns:
        The indices of the edges j -> i, and those of the edges k -> j.
    """
    degree = torch.bincount(graph.target, minlength=num_atoms)
    first = degree.cumsum(0) - degree
    count = degree[graph.source]
    place = torch.arange(len(count), device=count.device)
    ji = torch.repeat_interleave(place, count)
    start = first[graph.source] - (count.cumsum(0) - count)
    kj = torch.arange(len(ji), device=ji.device) + start[ji]
    origin, destination = graph.source, graph.target
    if no_return_to == "image":  # seen from j, k sits in image n_kj and i in -n_ji
        base = torch.tensor([_IMAGE_BASE**2, _IMAGE_BASE, 1], device=place.device)
        code = (graph.image.long() * base).sum(-1)
        origin = origin * _IMAGE_BASE**3 + code
        destination = destination * _IMAGE_BASE**3 - code
    onward = origin[kj] != destination[ji]
    return ji[onward], kj[onward]


def _mix(x: Int[Tensor, " n"]) -> Int[Tensor, " n"]:
    """A random-looking bijection of 64-bit integers (the finaliser of SplitMix64)."""
    x = (x ^ ((x >> 30) & 0x3FFFFFFFF)) * -4658895280553007687
    x = (x ^ ((x >> 27) & 0x1FFFFFFFFF)) * -7723592293110705685
    return x ^ ((x >> 31) & 0x1FFFFFFFF)


@torch.no_grad()
def symmetry_classes(
    graph: MultiGraph,
    atomic_numbers: Int[Tensor, " atoms"],
    length: Float[Tensor, " edges"],
    ji: Int[Tensor, " triplets"],
    kj: Int[Tensor, " triplets"],
    cosine: Float[Tensor, " triplets"],
    rounds: int,
) -> tuple[Classes, Classes]:
    """Edges with equal messages, and atoms with equal sums of incoming messages.

    Args:
        graph: the edges.
        atomic_numbers: of the atoms that they join.
        length: Å.
        ji, kj, cosine: the triplets and the cosine of each one's angle.
        rounds: interaction blocks that the messages will have passed.
    """
    tolerance = _TOLERANCE[length.dtype]
    step = (length / tolerance).round().long()
    turn = _mix((cosine / tolerance).round().long())
    colour = _mix(_mix(_mix(step) + atomic_numbers[graph.source]) + atomic_numbers[graph.target])
    for _ in range(rounds):
        heard = torch.zeros_like(colour).index_add_(0, ji, _mix(colour[kj] + turn))
        colour = _mix(_mix(colour) + heard)
    around = torch.zeros_like(atomic_numbers).index_add_(0, graph.target, _mix(colour))
    return Classes.of_equal(colour), Classes.of_equal(around)
