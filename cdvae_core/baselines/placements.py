"""The orders in which a structure is built, and what comes next at each step.

A structure is its sites: the atoms and, for a finite cluster, first the origin. It grows around a
focus: some atom comes next near it, or it is finished and another becomes the focus.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cdvae_core.baselines.schnet import ABSENT, FOCUS, ORIGIN
from cdvae_core.crystal import CrystalBatch
from cdvae_core.data.cache import CachedSplit
from cdvae_core.lattice import ReducedCell, minimum_image

STATES = 5  # of each order that a training step sees, as in schnetpack-gschnet
_CHUNK = 512  # crystals prepared at once: 20 atoms have 27 images of 400 pairs


@dataclass(frozen=True, eq=False)
class States:
    """Partial structures, and what comes next in each.

    Attributes:
        structure: `[states]`, which of the batch it is a part of.
        placed: `[states, sites]`.
        focus: `[states]`, a site.
        following: `[states]`, the next site; that of the focus where `stops`.
        stops: `[states]`, the focus is finished.
    """

    structure: Int[Tensor, " states"]
    placed: Bool[Tensor, "states sites"]
    focus: Int[Tensor, " states"]
    following: Int[Tensor, " states"]
    stops: Bool[Tensor, " states"]


def is_atom(numbers: Int[Tensor, "*shape"]) -> Bool[Tensor, "*shape"]:
    """Which sites are atoms."""
    return (numbers != ABSENT) & (numbers != ORIGIN)


def choose(mask: Bool[Tensor, "rows choices"], generator: torch.Generator) -> Int[Tensor, " rows"]:
    """One of the choices of each row, all equally likely; 0 where there is none."""
    draw = torch.rand(mask.shape, generator=generator, device=mask.device)
    return draw.masked_fill(~mask, -1.0).argmax(1)


def draw_states(
    numbers: Int[Tensor, "structures sites"],
    distance: Float[Tensor, "structures sites sites"],
    reach: Float[Tensor, " structures"],
    periodic: bool,
    generator: torch.Generator,
) -> States:
    """A random order of construction of each structure, and some of its states.

    The next atom is any within reach of the focus that is not placed yet; where there is none, the
    focus is finished. A cluster begins with the atom that is nearest to its origin and ends when
    all atoms are finished; a periodic structure begins with any atom, and ends when all are placed.

    Args:
        numbers: atomic numbers, `ORIGIN` or `ABSENT`.
        distance: Å.
        reach: Å; every atom can be reached from every other in steps of at most this.
    """
    atom = is_atom(numbers)
    rows = torch.arange(len(numbers), device=numbers.device)
    near = distance <= reach[:, None, None]
    placed, finished = numbers == ORIGIN, torch.zeros_like(atom)
    if periodic:
        following = focus = choose(atom, generator)
    else:
        focus = torch.zeros_like(rows)
        following = distance[:, 0].masked_fill(~atom, torch.inf).argmin(1)
    stops, going = torch.zeros_like(atom[:, 0]), torch.ones_like(atom[:, 0])
    steps = []
    for _ in range(2 * atom.shape[1]):  # no order is longer: each atom is placed and finished once
        steps.append((placed, focus, following, stops, going))
        placed, finished = placed.clone(), finished.clone()
        placed[rows, following] = True
        finished[rows, focus] |= stops
        unfinished = placed & atom & ~finished
        focus = choose(unfinished, generator)
        near_focus = near[rows, focus] & atom & ~placed
        stops = ~near_focus.any(1)
        following = torch.where(stops, focus, choose(near_focus, generator))
        going = ((atom & ~placed) if periodic else unfinished).any(1)
    placed, focus, following, stops, going = (
        torch.stack(parts, 1) for parts in zip(*steps, strict=True)
    )
    draw = torch.rand(going.shape, generator=generator, device=going.device)
    order = draw.masked_fill(~going, -1.0).argsort(1, descending=True)[:, :STATES]
    structure, slot = going.gather(1, order).nonzero(as_tuple=True)
    step = order[structure, slot]
    return States(
        structure,
        *(part[structure, step] for part in (placed, focus, following, stops)),
    )


def with_focus(
    numbers: Int[Tensor, "structures sites"],
    distance: Float[Tensor, "structures sites sites"],
    own_image: Float[Tensor, " structures"],
    focus: Int[Tensor, " structures"],
) -> tuple[Int[Tensor, "structures nodes"], Float[Tensor, "structures nodes nodes"]]:
    """The nodes that the network sees: a token at the focus, then the sites that are placed.

    Args:
        numbers: `ABSENT` where nothing is placed yet.
        distance: Å.
        own_image: Å from a site to its own nearest image, infinite without periodicity.

    Returns:
        their types, and distances that are infinite where there is no edge.
    """
    rows = torch.arange(len(numbers), device=numbers.device)
    types = torch.cat([torch.full_like(numbers[:, :1], FOCUS), numbers], 1)
    to_focus = distance[rows, focus]
    token = torch.cat([torch.zeros_like(to_focus[:, :1]), to_focus], 1)
    nodes = torch.cat([token[:, None], torch.cat([to_focus[:, :, None], distance], 2)], 1)
    itself = torch.eye(types.shape[1], dtype=torch.bool, device=types.device)
    nodes = torch.where(itself, own_image[:, None, None], nodes)
    there = types != ABSENT
    return types, nodes.masked_fill(~(there[:, :, None] & there[:, None]), torch.inf)


def needed_reach(
    numbers: Int[Tensor, "structures sites"],
    distance: Float[Tensor, "structures sites sites"],
) -> Float[Tensor, " structures"]:
    """Å: the least length of steps by which every atom can be reached from every other.

    The longest step of the best way from i to j is found as Floyd and Warshall find the shortest.
    """
    atom = is_atom(numbers)
    pairs = atom[:, :, None] & atom[:, None]
    longest = distance.masked_fill(~pairs, torch.inf)
    for k in range(atom.shape[1]):
        through = torch.maximum(longest[:, :, k, None], longest[:, k, None])
        longest = torch.minimum(longest, through)
    return longest.masked_fill(~pairs, 0.0).amax((1, 2))


def nearest(
    numbers: Int[Tensor, "structures sites"],
    distance: Float[Tensor, "structures sites sites"],
    own_image: Float[Tensor, " structures"],
) -> Float[Tensor, " atoms"]:
    """Å from every atom to its nearest, those that have none left out."""
    atom = is_atom(numbers)
    itself = torch.eye(atom.shape[1], dtype=torch.bool, device=atom.device)
    others = distance.masked_fill(itself | ~atom[:, None], torch.inf).amin(2)
    found = torch.minimum(others, own_image[:, None])[atom]
    return found[found.isfinite()]


def padded(
    split: CachedSplit,
) -> Iterator[
    tuple[CrystalBatch, Int[Tensor, "crystals atoms"], Float[Tensor, "crystals atoms 3"]]
]:
    """A split in parts: crystals, their atomic numbers and fractional coordinates, padded."""
    most = int(split.num_atoms.max())
    for first in range(0, len(split), _CHUNK):
        crystals = split.batch(range(first, min(first + _CHUNK, len(split)))).crystals
        there = torch.arange(most) < crystals.num_atoms[:, None]
        numbers = torch.full(there.shape, ABSENT)
        numbers[there] = crystals.atomic_numbers
        frac = torch.zeros(*there.shape, 3)
        frac[there] = crystals.frac_coords
        yield crystals, numbers, frac


def nearest_images(
    frac_displacement: Float[Tensor, "crystals *pairs 3"], cell: ReducedCell
) -> Float[Tensor, "crystals *pairs 3"]:
    """`lattice.minimum_image` of as many displacements in each crystal, in Å."""
    shape = frac_displacement.shape
    flat = frac_displacement.reshape(-1, 3)
    of = torch.arange(shape[0], device=flat.device).repeat_interleave(len(flat) // shape[0])
    return minimum_image(flat, cell, of).view(shape)
