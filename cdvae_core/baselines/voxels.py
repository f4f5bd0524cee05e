"""Cubic crystals as voxels, and voxels as crystals (Court et al. 2020, and its code, ICSG3D).

A crystal fills a box of n x n x n voxels: its cell and, on each side, some of the next cells. The
density is a sum of Gaussians of the sites' ionic radii; the species map says which element a voxel
belongs to; three coordinate channels hold the voxels' positions in Å, and so the cell's length.

Back again, the length is read from the coordinate channels, and the occupied voxels of the species
map are cut into sites: what is connected and convex is one site, what is not is cut by a watershed.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy import ndimage
from skimage.feature import peak_local_max
from skimage.measure import label
from skimage.morphology import convex_hull_image
from skimage.segmentation import watershed
from torch import Tensor

from cdvae_core.crystal import Crystal
from cdvae_core.lattice import exact

# Mean over an element's oxidation states of its ionic radius (Shannon, as pymatgen lists them) in
# Å, for hydrogen to fermium; 1.2 Å where none is known.
IONIC_RADII = (
    1.2, 1.2, 0.9, 0.59, 0.41, 0.3, 0.63, 1.26, 0.7, 1.2, 1.16, 0.86, 0.68, 0.54, 0.55, 0.88, 0.78,
    1.2, 1.52, 1.14, 0.89, 0.85, 0.78, 0.94, 0.88, 0.85, 0.77, 0.74, 0.82, 0.88, 0.76, 0.77, 0.66,
    1.01, 0.88, 1.2, 1.66, 1.32, 1.04, 0.86, 0.82, 0.78, 0.74, 0.66, 0.74, 0.85, 1.09, 1.09, 0.94,
    0.83, 0.83, 1.29, 1.27, 0.62, 1.81, 1.49, 1.17, 1.08, 1.06, 1.28, 1.11, 1.23, 1.2, 1.07, 0.98,
    1.13, 1.04, 1.03, 1.09, 1.08, 1.0, 0.85, 0.82, 0.77, 0.71, 0.67, 0.77, 0.81, 1.07, 1.25, 1.33,
    1.12, 1.03, 0.95, 0.76, 1.2, 1.94, 1.62, 1.26, 1.08, 1.04, 0.99, 1.0, 0.97, 1.17, 1.05, 1.04,
    1.03, 1.2, 1.2,
)  # fmt: skip
_LEAST_RADIUS = (8 / (4 / 3 * np.pi)) ** (1 / 3)  # voxels; so that a site fills eight of them
_LEAST_VOXELS = 4  # of a site, as published
_CONVEX = 0.8  # of its convex hull must be filled by what is one site, as published
_ONE_ATOM = 0.7  # Å; no two atoms are nearer than that, hydrogen's bond is 0.74
_IMAGES = 2  # cells on each side whose atoms reach into the box


@dataclass(frozen=True)
class Box:
    """The grid.

    Attributes:
        voxels: along each edge.
        padding: of the cell on each side of it, as a fraction of its length.
    """

    voxels: int
    padding: float

    @property
    def voxel(self) -> float:
        """A voxel's edge as a fraction of the cell's."""
        return (1 + 2 * self.padding) / self.voxels

    def centres(self, like: Tensor) -> Float[Tensor, " voxels"]:
        """The fractional coordinates of voxel centres along an edge."""
        steps = torch.arange(self.voxels, dtype=like.dtype, device=like.device)
        return (steps + 0.5) * self.voxel - self.padding

    def ramps(self, like: Tensor) -> Float[Tensor, "3 voxels voxels voxels"]:
        """The coordinate channels of a cell of 1 Å: positions from the box's corner."""
        along = self.centres(like) + self.padding
        return torch.stack(torch.meshgrid(along, along, along, indexing="ij"))


@dataclass(frozen=True, eq=False)
class CubicBatch:
    """Cubic crystals, each padded to the same number of atoms.

    Attributes:
        atomic_numbers: 0 where there is no atom.
        frac_coords: the cell's axes are the box's.
        length: of the cells, Å.
    """

    atomic_numbers: Int[Tensor, "crystals atoms"]
    frac_coords: Float[Tensor, "crystals atoms 3"]
    length: Float[Tensor, " crystals"]

    def rotated(self, rotations: Float[Tensor, "crystals 3 3"]) -> CubicBatch:
        """Each turned about the middle of its cell, and so of its box."""
        coords = torch.einsum("cij,caj->cai", rotations, self.frac_coords - 0.5) + 0.5
        return CubicBatch(self.atomic_numbers, coords, self.length)


def cube_rotations() -> Float[Tensor, "24 3 3"]:
    """The rotations by multiples of 90 degrees."""
    eye = torch.eye(3)
    turned = [
        eye[list(order)] * torch.tensor(signs)[:, None]
        for order in itertools.permutations(range(3))
        for signs in itertools.product((1.0, -1.0), repeat=3)
    ]
    return torch.stack([matrix for matrix in turned if torch.linalg.det(matrix) > 0])


def radii(given: CubicBatch, box: Box, most: float = torch.inf) -> Float[Tensor, "crystals atoms"]:
    """The sites' radii in Å: ionic, but no less than what fills a few voxels of the box.

    Args:
        most: as a fraction of the cell's length.
    """
    length = given.length[:, None]
    sigma = length.new_tensor((0.0, *IONIC_RADII))[given.atomic_numbers]
    return sigma.minimum(most * length).maximum(_LEAST_RADIUS * box.voxel * length)


@exact
def channels(given: CubicBatch, box: Box) -> Float[Tensor, "crystals 4 voxels voxels voxels"]:
    """The density in atomic numbers per Å3, and the three coordinate channels in Å.

    The density at r is the sum over sites and their periodic images of
    Z / (sigma^3 (2 pi)^1.5) exp(-d^2 / 2 sigma^2), sigma being the site's radius.
    """
    sigma = radii(given, box)
    shifts = torch.arange(-_IMAGES, _IMAGES + 1, device=sigma.device)
    apart = box.centres(sigma) - given.frac_coords[..., None]  # [crystals, atoms, 3, voxels]
    apart = (apart[..., None] + shifts) * given.length[:, None, None, None, None]
    # a sum over images of a product over axes is the product of each axis's sum
    x, y, z = (apart / sigma[..., None, None, None]).square().div(-2).exp().sum(-1).unbind(2)
    weight = given.atomic_numbers / (sigma.square() * sigma * (2 * torch.pi) ** 1.5)
    density = torch.einsum("ca,cax,cay,caz->cxyz", weight, x, y, z)
    coordinates = box.ramps(sigma) * given.length[:, None, None, None, None]
    return torch.cat([density[:, None], coordinates], 1)


@exact
def species_map(given: CubicBatch, box: Box) -> Int[Tensor, "crystals voxels voxels voxels"]:
    """The atomic number of the nearest site whose radius reaches a voxel, 0 where none does.

    Departs from the publication twice, so that connected voxels are one site's and their centre is
    that site. Voxels as near to one site as to the next, within a voxel's edge, belong to neither.
    And a radius is no more than the padding, so that the box's border cuts no site of the cell.
    """
    sigma, length = radii(given, box, box.padding), given.length[:, None, None, None, None]
    edge = box.voxel * length
    apart = box.centres(sigma) - given.frac_coords[..., None]
    x, y, z = (apart - apart.round()).square().unbind(2)
    distance = (x[..., :, None, None] + y[..., None, :, None] + z[..., None, None, :]).sqrt()
    distance, sigma = distance * length, sigma[..., None, None, None]
    distance = distance.masked_fill((given.atomic_numbers == 0)[..., None, None, None], torch.inf)
    nearest, site = distance.masked_fill(distance >= sigma, torch.inf).min(1)
    others = distance.masked_fill(distance >= sigma + edge, torch.inf)
    others = others.scatter(1, site[:, None], torch.inf).amin(1)
    numbers = given.atomic_numbers.gather(1, site.flatten(1)).view_as(site)
    held = nearest.isfinite() & (others - nearest >= edge[:, 0])
    return numbers * held


@exact
def cell_length(
    coordinates: Float[Tensor, "crystals 3 voxels voxels voxels"], box: Box
) -> Float[Tensor, " crystals"]:
    """The cells' length in Å, by least squares over all voxels of the coordinate channels.

    The published code reads it from the range of each channel, which rests on two voxels and is
    too long wherever a channel is noisy.
    """
    ramps = box.ramps(coordinates)
    return (coordinates * ramps).sum((1, 2, 3, 4)) / ramps.square().sum()


def decode(species: np.ndarray, length: float, box: Box) -> Crystal:
    """The crystal that a species map shows.

    A site of the cell may be seen several times, as its images are in the box too. Those nearest
    to the middle of the box, which its border cuts least, are taken first.

    Args:
        species: `[voxels, voxels, voxels]`, atomic numbers, 0 where no atom is.
        length: of the cell, Å.

    Raises:
        StructureError: no site, or no cell.
    """
    found = [
        (np.bincount(species[voxels]).argmax(), (np.mean(voxels, 1) + 0.5) * box.voxel)
        for voxels in _segments(species > 0)
    ]
    found = [(number, coords - box.padding) for number, coords in found]
    found.sort(key=lambda site: np.abs(site[1] - 0.5).max())
    numbers: list[int] = []
    sites: list[np.ndarray] = []
    for number, coords in found:
        if np.abs(coords - 0.5).max() > 0.5 + box.voxel:
            break  # an image, and so are those that follow
        apart = np.array(sites).reshape(-1, 3) - coords
        apart = np.linalg.norm((apart - apart.round()) * length, axis=1)
        if not (apart < _ONE_ATOM).any():
            numbers.append(int(number))
            sites.append(coords)
    return Crystal(np.array(numbers), np.array(sites).reshape(-1, 3), np.eye(3) * length)


def _segments(occupied: np.ndarray) -> Iterator[tuple[np.ndarray, ...]]:
    """The voxels of each site, as indices along the three axes."""
    components = label(occupied, connectivity=1)
    for number, place in enumerate(ndimage.find_objects(components), 1):
        component = components[place] == number
        if component.sum() < _LEAST_VOXELS:
            continue
        parts = component.astype(int) if _is_convex(component) else _cut(component)
        for part in range(1, parts.max() + 1):
            voxels = np.nonzero(parts == part)
            if len(voxels[0]) >= _LEAST_VOXELS:
                yield tuple(v + axis.start for v, axis in zip(voxels, place, strict=True))


def _is_convex(component: np.ndarray) -> bool:
    if min(component.shape) == 1:
        return True  # flat: it has no hull
    return bool(component.sum() >= _CONVEX * convex_hull_image(component).sum())


def _cut(component: np.ndarray) -> np.ndarray:
    """Parts of what is not convex, numbered from 1: basins of the distance to its surface."""
    depth = ndimage.distance_transform_edt(np.pad(component, 1))[1:-1, 1:-1, 1:-1]
    peaks = peak_local_max(depth, min_distance=2, exclude_border=False)
    markers = np.zeros(component.shape, dtype=int)
    markers[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
    return watershed(-depth, markers, mask=component)
