"""G-SchNet (Gebauer et al. 2019), made for molecules: a unit cell as a finite cluster.

The lattice is not learnt. As in the paper, the box around the finished cluster, along the principal
axes of its atoms, becomes the cell.

The cluster of a crystal. Its unit cell can be unwrapped in many ways. Here it begins with the atom
that the others, at their nearest images, lie most closely around, and takes in, one after the
other, the image that is nearest to the centre of those it has. So equal crystals give congruent
clusters, compact ones: a perovskite gives B with three O at right angles, and A between them.

The padding of the box. The box of the atoms' centres is too small, of no volume if they lie in a
plane, and atoms on opposite sides would coincide. It is widened by one length, the same along all
axes, chosen so that the boxes around the clusters of the training data have, in the geometric mean,
the volumes of the true cells; and by at least 1 Å, so that atoms in neighbouring boxes are never
nearer than that: "the introduced periodicity does not cause structural invalidity".
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

from cdvae_core.baseline_configs import GSchNetConfig
from cdvae_core.baselines.atom_by_atom import AtomByAtom, Space
from cdvae_core.baselines.placements import nearest_images, padded
from cdvae_core.baselines.protocol import Batch
from cdvae_core.baselines.schnet import ABSENT, ORIGIN
from cdvae_core.crystal import Crystal, CrystalBatch
from cdvae_core.data.cache import CachedSplit
from cdvae_core.lattice import minkowski_reduce, volume

SPACING = 0.15  # Å, of the candidates
LEAST_PADDING = 1.0  # Å
_MOST_PADDING = 20.0  # Å


class GSchNet(AtomByAtom):
    """See the module. Buffer: `padding`, Å."""

    periodic: ClassVar[bool] = False
    padding: Tensor

    def __init__(self, config: GSchNetConfig) -> None:
        super().__init__(config)
        self.register_buffer("padding", torch.zeros(()))

    @classmethod
    def build(cls, config: GSchNetConfig, train: CachedSplit) -> GSchNet:
        model = super().build(config, train)
        assert isinstance(model, GSchNet)
        parts = []
        for crystals, numbers, positions in _unwrapped(train):
            parts.append((boxes(positions, numbers != ABSENT)[1], volume(crystals.lattice)))
        extents, volumes = (torch.cat(part) for part in zip(*parts, strict=True))
        model.padding = fitted_padding(extents, volumes)
        return model

    def sites(self, split: CachedSplit) -> Batch:
        """The origin at the centre of the atoms, then the atoms."""
        all_numbers, distances = [], []
        for _, numbers, positions in _unwrapped(split):
            all_numbers.append(functional.pad(numbers, (1, 0), value=ORIGIN))
            sites = functional.pad(positions, (0, 0, 1, 0))
            distances.append(_distances(sites, sites))
        return {
            "numbers": torch.cat(all_numbers),
            "distance": torch.cat(distances),
            "own_image": torch.full((len(split),), torch.inf),
        }

    def spaces(self, count: int, generator: torch.Generator) -> list[Space]:
        low, high = self.shell.tolist()
        axis = torch.arange(-high, high + SPACING, SPACING, device=self.device)
        points = torch.cartesian_prod(axis, axis, axis)
        distance = points.norm(dim=-1)
        shell = points[(distance >= low) & (distance <= high)]
        line = torch.arange(self.config.bins, device=self.device) * self.bin_width
        line = functional.pad(line[:, None], (0, 2))
        return [
            Cluster(shell, line, float(self.padding), self.config.max_atoms) for _ in range(count)
        ]


class Cluster(Space):
    """Atoms around the origin; nothing repeats.

    Args:
        shell: `[candidates, 3]` in Å from the focus.
        line: `[candidates, 3]` of the first atom, of which only its distance from the origin
            matters.
        padding: of the box, Å.
        most: atoms.
    """

    own_image = torch.inf

    def __init__(self, shell: Tensor, line: Tensor, padding: float, most: int) -> None:
        self.shell, self.line, self.padding, self.most = shell, line, padding, most
        self.positions = shell.new_zeros(1, 3)
        self.points = line

    def candidates(self, focus: int) -> Float[Tensor, "nodes candidates"]:
        first = len(self.positions) == 1
        self.points = self.line if first else self.positions[focus] + self.shell
        nodes = torch.cat([self.positions[focus, None], self.positions])
        return _distances(nodes, self.points)

    def place(self, candidate: int) -> None:
        self.positions = torch.cat([self.positions, self.points[candidate, None]])

    def crystal(self, numbers: Sequence[int]) -> Crystal:
        positions = self.positions[1:].double().cpu()[None]
        inside, extents = boxes(positions, torch.ones(positions.shape[:2], dtype=torch.bool))
        lengths = extents[0] + self.padding
        frac = (inside[0] + self.padding / 2) / lengths
        return Crystal(np.array(numbers), frac.numpy(), torch.diag(lengths).numpy())


def _distances(
    one: Float[Tensor, "*structures n 3"], other: Float[Tensor, "*structures m 3"]
) -> Float[Tensor, "*structures n m"]:
    """Å, exact where two points coincide, which the fast way of `cdist` is not."""
    return torch.cdist(one, other, compute_mode="donot_use_mm_for_euclid_dist")


def _unwrapped(
    split: CachedSplit,
) -> Iterator[
    tuple[CrystalBatch, Int[Tensor, "crystals atoms"], Float[Tensor, "crystals atoms 3"]]
]:
    """A split in parts: crystals, their atomic numbers, padded, and their clusters."""
    for crystals, numbers, frac in padded(split):
        yield crystals, numbers, clusters(frac, numbers != ABSENT, crystals.lattice)


def clusters(
    frac: Float[Tensor, "crystals atoms 3"],
    there: Bool[Tensor, "crystals atoms"],
    lattice: Float[Tensor, "crystals 3 3"],
) -> Float[Tensor, "crystals atoms 3"]:
    """Compact clusters of unit cells, in Å about the centre of their atoms; zero for padding."""
    cell, inverse = minkowski_reduce(lattice), torch.linalg.inv(lattice)
    rows = torch.arange(len(frac))
    pairs = nearest_images(frac[:, None] - frac[:, :, None], cell).square().sum(-1)
    spread = pairs.masked_fill(~there[:, None], 0.0).sum(-1).masked_fill(~there, torch.inf)
    centre = torch.einsum("ci,cij->cj", frac[rows, spread.argmin(1)], lattice)
    positions, left = torch.zeros_like(frac), there.clone()
    for taken in range(1, frac.shape[1] + 1):
        centre_frac = torch.einsum("ci,cij->cj", centre, inverse)
        images = nearest_images(frac - centre_frac[:, None], cell)
        nearest = images.square().sum(-1).masked_fill(~left, torch.inf).argmin(1)
        new = left.any(1)
        position = (centre + images[rows, nearest])[new]
        positions[rows[new], nearest[new]] = position
        left[rows[new], nearest[new]] = False
        centre[new] += (position - centre[new]) / taken
    return (positions - centre[:, None]) * there[..., None]


def boxes(
    positions: Float[Tensor, "crystals atoms 3"], there: Bool[Tensor, "crystals atoms"]
) -> tuple[Float[Tensor, "crystals atoms 3"], Float[Tensor, "crystals 3"]]:
    """The boxes around clusters along the principal axes of their atoms.

    Returns:
        positions in Å from a corner of the box, along its edges; the lengths of the edges in Å.
    """
    weight = there[..., None].to(positions.dtype)
    mean = (positions * weight).sum(1, keepdim=True) / weight.sum(1, keepdim=True)
    about = (positions - mean) * weight  # the centre of the atoms lies within the box
    axes = torch.linalg.eigh(about.mT @ about).eigenvectors
    along = about @ axes
    low, high = along.amin(1), along.amax(1)
    return along - low[:, None], high - low


def fitted_padding(
    extents: Float[Tensor, "crystals 3"], volumes: Float[Tensor, " crystals"]
) -> Float[Tensor, ""]:
    """Å, by bisection: see the module."""
    low, high = LEAST_PADDING, _MOST_PADDING
    for _ in range(40):
        middle = (low + high) / 2
        if (extents + middle).log().sum(1).mean() < volumes.log().mean():
            low = middle
        else:
            high = middle
    return torch.tensor(high)
