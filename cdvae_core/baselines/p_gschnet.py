"""P-G-SchNet, the paper's periodic G-SchNet: every distance is that to the nearest image.

Its code was never published; this follows the paper's paragraph and, where that is silent, the
P-cG-SchNet of DiffCSP (Jiao et al. 2023):

* the number of atoms and the lattice of a new crystal are those of a random training crystal;
* the first atom is at the origin of the cell (any atom is as good, so there is no origin token),
  and a node also hears itself, from its own nearest image, or one atom alone would know nothing of
  the lattice;
* the places for an atom are a grid of about 0.25 Å over the cell, within the shell of the focus. So
  new coordinates are fractions of small numbers, and 1/2 is among them where a grid has an even
  number of points.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from cdvae_core.baseline_configs import PGSchNetConfig
from cdvae_core.baselines.atom_by_atom import AtomByAtom, Space
from cdvae_core.baselines.placements import nearest_images, padded
from cdvae_core.baselines.protocol import Batch
from cdvae_core.crystal import Crystal
from cdvae_core.data.cache import CachedSplit
from cdvae_core.errors import StructureError
from cdvae_core.lattice import ReducedCell, minkowski_reduce

SPACING = 0.25  # Å


class PGSchNet(AtomByAtom):
    """See the module.

    Buffers: `lattices`, `[training crystals, 3, 3]`, reduced, Å; `sizes`, `[training crystals]`,
    their numbers of atoms.
    """

    periodic: ClassVar[bool] = True
    varying: ClassVar[tuple[str, ...]] = (*AtomByAtom.varying, "lattices", "sizes")
    config: PGSchNetConfig
    lattices: Tensor
    sizes: Tensor

    def __init__(self, config: PGSchNetConfig) -> None:
        super().__init__(config)
        self.register_buffer("lattices", torch.zeros(0, 3, 3))
        self.register_buffer("sizes", torch.zeros(0, dtype=torch.long))

    @classmethod
    def build(  # type: ignore[override]  # of its own configuration
        cls, config: PGSchNetConfig, train: CachedSplit
    ) -> PGSchNet:
        model = super().build(config, train)
        assert isinstance(model, PGSchNet)
        parts = [crystals for crystals, _, _ in padded(train)]
        model.lattices = torch.cat([minkowski_reduce(part.lattice).matrix for part in parts])
        model.sizes = torch.cat([part.num_atoms for part in parts])
        return model

    def sites(self, split: CachedSplit) -> Batch:
        """The atoms."""
        all_numbers, distances, own_images = [], [], []
        for crystals, numbers, frac in padded(split):
            cell = minkowski_reduce(crystals.lattice)
            all_numbers.append(numbers)
            distances.append(pairwise_distances(frac, cell))
            own_images.append(shortest_vector(cell))
        return {
            "numbers": torch.cat(all_numbers),
            "distance": torch.cat(distances),
            "own_image": torch.cat(own_images),
        }

    def spaces(self, count: int, generator: torch.Generator) -> list[Space]:
        shape = (count,)
        drawn = torch.randint(len(self.sizes), shape, generator=generator, device=self.device)
        return [Cell(self.lattices[i], int(self.sizes[i]), self.shell) for i in drawn.tolist()]


class Cell(Space):
    """Atoms on the grid of a cell.

    Distances depend on the difference of two grid points alone, which is a grid point again. So
    those from the origin, found once, are rolled to where an atom is.

    Args:
        lattice: `[3, 3]`, a reduced basis, Å.
        most: atoms.
        shell: `[2]`, the least and the greatest distance from a focus, Å.
    """

    def __init__(self, lattice: Tensor, most: int, shell: Tensor) -> None:
        self.lattice, self.most, self.shell = lattice, most, shell
        self.points = [-int(-length // SPACING) for length in lattice.norm(dim=1).tolist()]
        axes = [torch.arange(n, device=lattice.device) / n for n in self.points]
        cell = minkowski_reduce(lattice[None])
        vectors = nearest_images(torch.cartesian_prod(*axes)[None], cell)
        self.from_origin = vectors.norm(dim=-1).view(self.points)
        self.own_image = float(shortest_vector(cell))
        self.placed: list[tuple[int, ...]] = []
        self.distances: list[Tensor] = []  # of every grid point from each atom, flat
        self.places = torch.zeros(1, dtype=torch.long, device=lattice.device)

    def candidates(self, focus: int) -> Float[Tensor, "nodes candidates"]:
        if not self.placed:
            return self.from_origin.new_zeros(1, 1)
        from_focus = self.distances[focus]
        inside = (from_focus >= self.shell[0]) & (from_focus <= self.shell[1])
        self.places = inside.nonzero()[:, 0]
        if not len(self.places):
            raise StructureError("no place of the cell is within the shell of the focus")
        return torch.stack([from_focus, *self.distances])[:, self.places]

    def place(self, candidate: int) -> None:
        at = np.unravel_index(int(self.places[candidate]), self.points)
        self.placed.append(tuple(int(index) for index in at))
        self.distances.append(self.from_origin.roll(self.placed[-1], (0, 1, 2)).flatten())

    def crystal(self, numbers: Sequence[int]) -> Crystal:
        frac = np.array(self.placed) / np.array(self.points)
        return Crystal(np.array(numbers), frac, self.lattice.double().cpu().numpy())


def pairwise_distances(
    frac: Float[Tensor, "crystals atoms 3"], cell: ReducedCell
) -> Float[Tensor, "crystals atoms atoms"]:
    """Å between the nearest images of all pairs, zero on the diagonal."""
    return nearest_images(frac[:, None] - frac[:, :, None], cell).norm(dim=-1)


def shortest_vector(cell: ReducedCell) -> Float[Tensor, " crystals"]:
    """Å from an atom to its own nearest image."""
    return cell.matrix[:, 0].norm(dim=-1)
