"""Periodic multigraphs (Appendix B): an edge list for the encoder, a dense KNN for the decoder.

An edge points from a source atom, in some image of the cell, to a target atom in the home cell.

The decoder's graph is directed: each atom hears its K nearest neighbours (F.2). With a fixed K it
is dense, `[atoms, K]`, and needs no scatter. Cutting at the K-th neighbour alone would break ties
by index and make the score jump when a neighbour enters or leaves. Here every edge carries an
envelope that reaches zero, with two derivatives, at the distance of the (K+1)-th neighbour: tied
neighbours at that distance weigh nothing, so the graph, and all that is computed from it, is
continuous and independent of the order of atoms.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cdvae_core.crystal import CrystalBatch
from cdvae_core.lattice import ReducedCell, exact, heights, minkowski_reduce

_CODE_BASE = 2048  # periodic images along an axis stay far below half of this
_ENVELOPE_EXPONENT = 8


@dataclass(frozen=True, eq=False)
class MultiGraph:
    """Edges between atoms and periodic images of atoms, sorted by target.

    Attributes:
        source: `[edges]`, the neighbour; it sits at `frac_coords[source] + image`.
        target: `[edges]`, the atom in the home cell, non-decreasing.
        image: `[edges, 3]`, whole cells.
    """

    source: Int[Tensor, " edges"]
    target: Int[Tensor, " edges"]
    image: Int[Tensor, "edges 3"]

    @exact
    def vectors(self, crystals: CrystalBatch) -> Float[Tensor, "edges 3"]:
        """From the target to the source, Å."""
        frac = crystals.frac_coords[self.source] - crystals.frac_coords[self.target]
        lattice = crystals.lattice[crystals.crystal_of_atom[self.target]]
        return torch.einsum("ei,eij->ej", frac + self.image.to(frac.dtype), lattice)

    def to(self, device: torch.device | str) -> MultiGraph:
        return MultiGraph(self.source.to(device), self.target.to(device), self.image.to(device))


@dataclass(frozen=True, eq=False)
class PeriodicImages:
    """The images of each cell that can hold a neighbour. They depend on the lattice alone, so a
    trajectory at a fixed lattice finds them once.

    Attributes:
        cell: the reduced basis that images are counted in.
        shift: `[crystals, images, 3]`, whole cells; padded by images out of reach.
        reachable: `[crystals, images]`, false for the padding.
        most_atoms: of the largest crystal; known here so that no step has to ask a GPU for it.
    """

    cell: ReducedCell
    shift: Float[Tensor, "crystals images 3"]
    reachable: Bool[Tensor, "crystals images"]
    most_atoms: int


@exact
def periodic_images(
    lattice: Float[Tensor, "crystals 3 3"],
    num_atoms: Int[Tensor, " crystals"],
    k: int,
    cutoff: float,
) -> PeriodicImages:
    """Images within reach of the (k+1)-th neighbour or of the cutoff, whichever is nearer.

    No point is further than rho = |b1 + b2 + b3| / 2 (vectors at right angles) from an atom of
    each kind, so a ball of radius R around an atom holds at least N (R - rho)^3 4 pi / 3 V atoms:
    that bounds the distance of the (k+1)-th neighbour for any arrangement of atoms.
    """
    cell = minkowski_reduce(lattice)
    matrix = cell.matrix
    lengths = matrix.norm(dim=-1)
    rho = lengths.square().sum(-1).sqrt() / 2
    density = num_atoms / torch.linalg.det(matrix).abs()
    reach = rho + (3 * (k + 2) / (4 * math.pi * density)) ** (1 / 3)
    reach = reach.clamp_max(cutoff)
    # a displacement wrapped into [-1/2, 1/2) is found again within reach / height + 1/2 cells
    per_axis = (reach[:, None] / heights(matrix) + 0.5).floor()
    most = [int(n) for n in per_axis.amax(0).tolist()]
    axes = [torch.arange(-n, n + 1, device=lattice.device, dtype=lattice.dtype) for n in most]
    grid = torch.cartesian_prod(*axes)
    near = (grid.abs() <= per_axis[:, None]).all(-1)
    near &= (grid @ matrix).norm(dim=-1) <= (reach + lengths.sum(-1) / 2)[:, None]
    count = int(near.sum(-1).max())
    order = near.to(torch.int8).argsort(dim=-1, descending=True, stable=True)[:, :count]
    return PeriodicImages(cell, grid[order], near.gather(1, order), int(num_atoms.max()))


@dataclass(frozen=True, eq=False)
class KnnGraph:
    """K incoming edges for each atom, in a dense layout.

    Attributes:
        neighbour: `[atoms, K]`, the source atom of each edge.
        distance: `[atoms, K]`, Å.
        direction: `[atoms, K, 3]`, unit vectors from the target to the source.
        envelope: `[atoms, K]`, 1 nearby, 0 at the (K+1)-th neighbour or the cutoff.
        reverse: `[atoms, K]`, flat index `atom * K + slot` of the same edge seen from the other
            end, 0 where the other end does not hear this atom.
        reverse_envelope: `[atoms, K]`, that edge's envelope, 0 where there is none.
    """

    neighbour: Int[Tensor, "atoms K"]
    distance: Float[Tensor, "atoms K"]
    direction: Float[Tensor, "atoms K 3"]
    envelope: Float[Tensor, "atoms K"]
    reverse: Int[Tensor, "atoms K"]
    reverse_envelope: Float[Tensor, "atoms K"]


def envelope(x: Tensor) -> Tensor:
    """The polynomial of DimeNet (Eq. 8 there): 1 at x = 0, and 0 with two derivatives at x = 1."""
    p = _ENVELOPE_EXPONENT
    a, b, c = -(p + 1) * (p + 2) / 2, p * (p + 2), -p * (p + 1) / 2
    x = x.clamp(max=1.0)
    return (1 + x**p * (a + x * (b + x * c))).clamp_min(0.0)


@exact
@torch.no_grad()
def knn_graph(
    crystals: CrystalBatch, k: int, cutoff: float, images: PeriodicImages | None = None
) -> KnnGraph:
    """The k nearest periodic neighbours of every atom within the cutoff, exact for any cell.

    Args:
        crystals: with any fractional coordinates, wrapped or not.
        k: neighbours per atom.
        cutoff: Å.
        images: from `periodic_images` with the same lattices, to save finding them again.
    """
    if images is None:
        images = periodic_images(crystals.lattice, crystals.num_atoms, k, cutoff)
    candidate, present = _same_crystal(crystals, images.most_atoms)
    of_atom = crystals.crystal_of_atom
    matrix = images.cell.matrix
    frac = torch.einsum("ai,aij->aj", crystals.frac_coords, images.cell.from_frac[of_atom])
    difference = frac[candidate] - frac[:, None]
    rounded = difference.round()
    near = torch.einsum("apj,ajk->apk", difference - rounded, matrix[of_atom])
    square = _square_distances(near, images.shift @ matrix, of_atom)
    square.masked_fill_(~present[..., None], math.inf)
    square.masked_fill_(~images.reachable[of_atom][:, None], math.inf)
    _forbid_self(square, candidate, rounded, images, of_atom)
    flat = square.flatten(1)
    if flat.shape[1] <= k:
        flat = torch.nn.functional.pad(flat, (0, k + 1 - flat.shape[1]), value=math.inf)
    found, slot = flat.topk(k + 1, dim=1, largest=False, sorted=True)
    slot = torch.where(found.isinf(), 0, slot)
    atom_slot, image_slot = slot // square.shape[2], slot % square.shape[2]
    cells = images.shift[of_atom[:, None], image_slot]
    shift = cells - torch.take_along_dim(rounded, atom_slot[..., None], 1)
    source = candidate.gather(1, atom_slot)
    vector = _vectors(crystals, images.cell, source, shift)
    distance = torch.where(found.isinf(), math.inf, vector.norm(dim=-1))
    return _dense_graph(source, shift, vector, distance, k, cutoff, matrix.dtype)


def _vectors(crystals: CrystalBatch, cell: ReducedCell, source: Tensor, shift: Tensor) -> Tensor:
    """`[atoms, k + 1, 3]`, Å, from each atom to its neighbours, in double precision.

    So the one rounding that the decoder can notice is that of the coordinates it was given.
    """
    of_atom = crystals.crystal_of_atom
    from_frac, matrix = cell.from_frac.double()[of_atom], cell.matrix.double()[of_atom]
    frac = torch.einsum("ai,aij->aj", crystals.frac_coords.double(), from_frac)
    return torch.einsum("aki,aij->akj", frac[source] - frac[:, None] + shift.double(), matrix)


def _same_crystal(crystals: CrystalBatch, most_atoms: int) -> tuple[Tensor, Tensor]:
    """All atoms of an atom's crystal: `[atoms, most atoms]` indices, and which of them exist."""
    first = crystals.num_atoms.cumsum(0) - crystals.num_atoms
    size = crystals.num_atoms[crystals.crystal_of_atom][:, None]
    place = torch.arange(most_atoms, device=size.device)[None]
    present = place < size
    start = first[crystals.crystal_of_atom][:, None]
    return torch.where(present, start + place, start), present


def _square_distances(near: Tensor, shift: Tensor, of_atom: Tensor) -> Tensor:
    """|near + shift|^2 `[atoms, most atoms, images]`, by one product; good enough to choose by."""
    product = torch.bmm(near, shift.transpose(1, 2)[of_atom])
    square = near.square().sum(-1)[..., None] + shift.square().sum(-1)[of_atom][:, None]
    return square.add_(product, alpha=2)


def _forbid_self(
    square: Tensor, candidate: Tensor, rounded: Tensor, images: PeriodicImages, of_atom: Tensor
) -> None:
    """An atom is no neighbour of itself, only of its images."""
    atoms = torch.arange(len(candidate), device=candidate.device)
    home = images.shift.abs().sum(-1) == 0
    itself = (candidate == atoms[:, None])[..., None] & home[of_atom][:, None]
    square.masked_fill_(itself, math.inf)


def _dense_graph(
    source: Tensor,
    shift: Tensor,
    vector: Tensor,
    distance: Tensor,
    k: int,
    cutoff: float,
    dtype: torch.dtype,
) -> KnnGraph:
    """From the k + 1 nearest, sorted, to K edges with envelopes and reverses, in `dtype`."""
    horizon = distance[:, k:].clamp(min=1e-6, max=cutoff)
    source, shift, distance = source[:, :k], shift[:, :k], distance[:, :k]
    weight = envelope(distance / horizon)
    distance = distance.clamp(max=cutoff)
    direction = vector[:, :k] / distance.clamp_min(1e-6)[..., None]
    direction = torch.where(weight[..., None] > 0, direction, 0.0)
    reverse, there = _reverse_edges(source, shift)
    reverse_weight = torch.where(there, weight.flatten()[reverse], 0.0)
    distance, direction, weight, reverse_weight = (
        values.to(dtype) for values in (distance, direction, weight, reverse_weight)
    )
    return KnnGraph(source, distance, direction, weight, reverse, reverse_weight)


def _reverse_edges(source: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
    """The edge that joins the same two atoms the other way, and whether it exists."""
    atoms, k = source.shape
    base = torch.tensor([_CODE_BASE**2, _CODE_BASE, 1], device=source.device)
    code = (shift.long() * base).sum(-1)  # code(-image) = -code(image)
    scale = _CODE_BASE**3 * 4
    key = source * scale + code
    own = torch.arange(atoms, device=source.device)[:, None]
    wanted = own * scale - code
    match = key[source] == wanted[..., None]
    slot = match.to(torch.int8).argmax(-1)
    there = match.any(-1)
    return torch.where(there, source * k + slot, 0), there


@torch.no_grad()
def shortest_distances(crystals: CrystalBatch) -> Float[Tensor, " crystals"]:
    """The shortest distance in Å between any two atoms, periodic images of one atom included."""
    graph = knn_graph(crystals, k=1, cutoff=math.inf)
    shortest = torch.full_like(crystals.lattice[:, 0, 0], math.inf)
    return shortest.scatter_reduce(0, crystals.crystal_of_atom, graph.distance[:, 0], "amin")
