"""The FTCP representation of a crystal and its inverse (Ren et al. 2022).

A matrix `[rows, columns]`. The first columns are real space, one for each distinct element or each
Cartesian direction; the other columns are reciprocal space, one for each (hkl). From the top:

    elements      one-hot element of each column
    lattice       a, b, c in Å, then alpha, beta, gamma in degrees
    coordinates   fractional x, y, z of each site
    occupancy     which of the distinct elements is on each site
    length        |g_hkl| in 1/Å, zero in real space
    properties    of the elements, and their sums over sites times pi (hkl . x) for each (hkl)

The reciprocal half is a linear sum, as in the published code, and not the structure factor of the
publication's text. Only real space is needed to go back.
"""

from __future__ import annotations

import json
from functools import lru_cache
from itertools import product
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cdvae_core.baseline_configs import FTCPConfig
from cdvae_core.baselines.protocol import Made
from cdvae_core.crystal import MAX_ATOMIC_NUMBER, Crystal, CrystalBatch
from cdvae_core.errors import StructureError
from cdvae_core.lattice import exact, matrix_to_parameters

PROPERTIES = 92  # of an element, the one-hot categories of CGCNN
OCCUPIED = 0.05  # below it a site is empty
_RADII = (1.297, 1.4)  # 1/Å, crystallographic; the second where the first holds too few points
_BOX = 8  # |h|, |k|, |l| at most


def columns(config: FTCPConfig) -> int:
    """Of the matrix: real space first, then one for each (hkl)."""
    return real_columns(config) + config.reciprocal_points


def real_columns(config: FTCPConfig) -> int:
    return max(config.max_elements, 3)


def rows(config: FTCPConfig) -> int:
    """Of the matrix, filled up to a multiple of four for the strides of the network."""
    used = MAX_ATOMIC_NUMBER + 2 + 2 * config.max_atoms + 1 + PROPERTIES
    return -(-used // 4) * 4


def element_properties() -> Float[Tensor, "elements properties"]:
    """CGCNN's features of each element (from matminer); row 0 is empty."""
    import matminer.utils

    file = Path(matminer.utils.__file__).parent / "data_files" / "cgcnn_atom_feature.json"
    known = json.loads(file.read_text())
    table = torch.zeros(MAX_ATOMIC_NUMBER + 1, PROPERTIES)
    for z in range(1, MAX_ATOMIC_NUMBER + 1):
        table[z] = torch.tensor(known[str(z)], dtype=torch.float32)
    return table


def represent(
    crystals: CrystalBatch, properties: Float[Tensor, "elements properties"], config: FTCPConfig
) -> Float[Tensor, "crystals rows columns"]:
    """The matrices of a batch, in their own units.

    Args:
        properties: see `element_properties`.
    """
    wide, sites = real_columns(config), config.max_atoms
    numbers, coords, slot = _on_sites(crystals, sites)
    count = crystals.num_crystals
    out = coords.new_zeros(count, rows(config), columns(config))
    here = torch.arange(count, device=coords.device)[:, None].expand_as(numbers)
    there = numbers > 0
    out[here[there], numbers[there] - 1, slot[there]] = 1
    row = MAX_ATOMIC_NUMBER
    lengths, angles = matrix_to_parameters(crystals.lattice)
    out[:, row, :3], out[:, row + 1, :3] = lengths, angles
    row += 2
    out[:, row : row + sites, :3] = coords
    row += sites
    place = torch.arange(sites, device=coords.device).expand_as(numbers)
    out[here[there], row + place[there], slot[there]] = 1
    row += sites
    hkl, length = _reciprocal_points(crystals.lattice, config.reciprocal_points)
    out[:, row, wide:] = length
    row += 1
    features = properties[numbers]
    below = out[:, row : row + PROPERTIES]  # a view
    below[here[there], :, slot[there]] = features[there]
    phase = torch.pi * torch.einsum("bpi,bsi->bps", hkl, coords)
    below[:, :, wide:] = torch.einsum("bps,bsf->bfp", phase, features)
    return out


def invert(matrix: Float[Tensor, "rows columns"], config: FTCPConfig) -> Made:
    """The crystal of one matrix, or why there is none."""
    sites = config.max_atoms
    elements, lattice, coords, occupancy, _ = (
        matrix.detach()
        .cpu()
        .split(
            [MAX_ATOMIC_NUMBER, 2, sites, sites, len(matrix) - MAX_ATOMIC_NUMBER - 2 - 2 * sites]
        )
    )
    wide = real_columns(config)
    strongest, slot = occupancy[:, :wide].max(1)
    occupied = strongest >= OCCUPIED
    numbers = elements[:, :wide].argmax(0) + 1
    try:
        return Crystal.from_parameters(
            lattice[0, :3].numpy(), lattice[1, :3].numpy(),
            coords[occupied, :3].numpy(), numbers[slot[occupied]].numpy(),
        )  # fmt: skip
    except StructureError as error:
        return error


def _on_sites(
    crystals: CrystalBatch, sites: int
) -> tuple[
    Int[Tensor, "crystals sites"],
    Float[Tensor, "crystals sites 3"],
    Int[Tensor, "crystals sites"],
]:
    """Atomic numbers (0: no atom), coordinates, and which of the distinct elements, in order."""
    of = crystals.crystal_of_atom
    first = crystals.num_atoms.cumsum(0) - crystals.num_atoms
    place = torch.arange(len(of), device=of.device) - first[of]
    numbers = of.new_zeros(crystals.num_crystals, sites)
    numbers[of, place] = crystals.atomic_numbers
    coords = crystals.frac_coords.new_zeros(crystals.num_crystals, sites, 3)
    coords[of, place] = crystals.frac_coords
    original = (numbers[:, :, None] == numbers[:, None, :]).int().argmax(2)  # the first of its kind
    itself = torch.arange(sites, device=of.device)
    rank = (original == itself).cumsum(1) - 1
    return numbers, coords, rank.gather(1, original)


@lru_cache(maxsize=1)
def _ordered_points() -> Float[Tensor, "points 3"]:
    """All (hkl) but the origin by |h| + |k| + |l|, then falling h, k, l."""
    box = range(-_BOX, _BOX + 1)
    points = [p for p in product(box, repeat=3) if any(p)]
    points.sort(key=lambda p: (sum(map(abs, p)), -p[0], -p[1], -p[2]))
    return torch.tensor(points, dtype=torch.float32)


@exact
def _reciprocal_points(
    lattice: Float[Tensor, "crystals 3 3"], count: int
) -> tuple[Float[Tensor, "crystals count 3"], Float[Tensor, "crystals count"]]:
    """The first (hkl) within the radius and their lengths, 1/Å; zeros where there are fewer."""
    points = _ordered_points().to(lattice)
    length = (points @ torch.linalg.inv(lattice).mT).norm(dim=-1)  # rows of inv^T are g vectors
    inside = length <= _RADII[0]
    inside |= (inside.sum(1, keepdim=True) <= count) & (length <= _RADII[1])
    rank = torch.where(inside, inside.cumsum(1) - 1, len(points))
    order = rank.topk(count, largest=False).indices
    found = inside.gather(1, order)
    return points[order] * found[..., None], length.gather(1, order) * found
