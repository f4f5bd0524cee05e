"""Lattice maths, batched in torch, exact for any cell.

Lattice vectors are rows, so cartesian = fractional @ lattice. Lengths are in Å, angles in degrees.

A Minkowski-reduced basis is what makes the rest short: in it the nearest image of a displacement
that was rounded into [-1/2, 1/2) is at most one cell away along each axis (Nguyen and Stehlé, "Low
dimensional lattice basis reduction revisited", 2009), whatever the cell looked like before.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from cdvae_core.errors import StructureError

P = ParamSpec("P")
T = TypeVar("T")


def exact(function: Callable[P, T]) -> Callable[P, T]:
    """Geometry in the precision of its inputs, also under autocast: bfloat16 has two digits."""

    @functools.wraps(function)
    def without_autocast(*args: P.args, **kwargs: P.kwargs) -> T:
        with torch.autocast("cpu", enabled=False), torch.autocast("cuda", enabled=False):
            return function(*args, **kwargs)

    return without_autocast


def parameters_to_matrix(
    lengths: Float[Tensor, "*crystals 3"],
    angles: Float[Tensor, "*crystals 3"],
    least_sine: float = 0.0,
) -> Float[Tensor, "*crystals 3 3"]:
    """The cell with a in the x-z plane and c along z, as pymatgen orients it.

    Args:
        lengths: Å.
        angles: degrees.
        least_sine: of the reciprocal angle gamma*; flatter cells, and angles that no cell can
            have, are opened to it, so that a prediction always gives a cell. With 0 such angles
            give a cell without volume.
    """
    alpha, beta, gamma = torch.deg2rad(angles).unbind(-1)
    a, b, c = lengths.unbind(-1)
    cos_star = (alpha.cos() * beta.cos() - gamma.cos()) / (alpha.sin() * beta.sin())
    limit = (1 - least_sine**2) ** 0.5
    cos_star = cos_star.clamp(-limit, limit)
    sin_star = (1 - cos_star**2).sqrt()
    zero = torch.zeros_like(a)
    rows = [
        torch.stack([a * beta.sin(), zero, a * beta.cos()], -1),
        torch.stack([-b * alpha.sin() * cos_star, b * alpha.sin() * sin_star, b * alpha.cos()], -1),
        torch.stack([zero, zero, c], -1),
    ]
    return torch.stack(rows, -2)


def matrix_to_parameters(
    lattice: Float[Tensor, "*crystals 3 3"],
) -> tuple[Float[Tensor, "*crystals 3"], Float[Tensor, "*crystals 3"]]:
    """Lengths in Å and angles (alpha, beta, gamma) in degrees."""
    lengths = lattice.norm(dim=-1)
    unit = lattice / lengths[..., None]
    cosines = torch.stack(
        [(unit[..., i, :] * unit[..., j, :]).sum(-1) for i, j in ((1, 2), (0, 2), (0, 1))], -1
    )
    return lengths, torch.rad2deg(cosines.clamp(-1, 1).acos())


def volume(lattice: Float[Tensor, "*crystals 3 3"]) -> Float[Tensor, " *crystals"]:
    """Å3, never negative."""
    return torch.linalg.det(lattice).abs()


def heights(lattice: Float[Tensor, "*crystals 3 3"]) -> Float[Tensor, "*crystals 3"]:
    """The distance in Å between the two faces of the cell along each lattice vector."""
    a, b, c = lattice.unbind(-2)
    faces = torch.stack(
        [torch.linalg.cross(b, c), torch.linalg.cross(c, a), torch.linalg.cross(a, b)], -2
    )
    return volume(lattice)[..., None] / faces.norm(dim=-1)


def wrap(frac_coords: Float[Tensor, "atoms 3"]) -> Float[Tensor, "atoms 3"]:
    """Into [0, 1), also where rounding would give 1."""
    wrapped = frac_coords - frac_coords.floor()
    return torch.where(wrapped >= 1, torch.zeros_like(wrapped), wrapped)


@dataclass(frozen=True, eq=False)
class ReducedCell:
    """A Minkowski-reduced basis of each lattice.

    Attributes:
        matrix: `[crystals, 3, 3]`, Å, rows sorted by length.
        from_frac: `[crystals, 3, 3]`, integers of determinant 1 or -1: fractional coordinates in
            the given basis times this are those in the reduced one.
    """

    matrix: Float[Tensor, "crystals 3 3"]
    from_frac: Float[Tensor, "crystals 3 3"]


def minkowski_reduce(lattice: Float[Tensor, "crystals 3 3"]) -> ReducedCell:
    """Semaev's greedy reduction in three dimensions, for a whole batch at once.

    Every pass sorts the vectors, shortens the second by the first, and the third by its nearest
    vector in the plane of the other two; it ends when no vector of any crystal gets shorter.

    Raises:
        StructureError: a lattice is not finite.
    """
    if not bool(lattice.isfinite().all()):
        raise StructureError("a lattice holds a number that is not finite")
    given = lattice.double()
    basis = given.clone()
    while True:
        before = basis.norm(dim=-1).sum(-1)
        order = basis.norm(dim=-1).argsort(dim=-1, stable=True)
        basis = basis.gather(1, order[..., None].expand(-1, -1, 3))
        b1, b2, b3 = basis.unbind(1)
        b2 = b2 - (_dot(b1, b2) / _dot(b1, b1)).round() * b1
        b3 = _shorten_third(b1, b2, b3)
        shorter = torch.stack([b1, b2, b3], 1)
        done = shorter.norm(dim=-1).sum(-1) >= before * (1 - 1e-10)
        basis = torch.where(done[:, None, None], basis, shorter)
        if bool(done.all()):
            break
    # reduced = transform @ given, so frac_given = frac_reduced @ transform
    transform = torch.linalg.solve(given, basis, left=False).round()
    return ReducedCell(
        (transform @ given).to(lattice.dtype), torch.linalg.inv(transform).round().to(lattice.dtype)
    )


def _dot(u: Tensor, v: Tensor) -> Tensor:
    return (u * v).sum(-1, keepdim=True)


def _shorten_third(b1: Tensor, b2: Tensor, b3: Tensor) -> Tensor:
    """b3 minus its nearest vector in the lattice of b1 and b2 (which is reduced)."""
    g11, g12, g22 = _dot(b1, b1), _dot(b1, b2), _dot(b2, b2)
    t1, t2 = _dot(b1, b3), _dot(b2, b3)
    det = (g11 * g22 - g12 * g12).clamp_min(torch.finfo(b1.dtype).tiny)
    x1, x2 = (t1 * g22 - t2 * g12) / det, (t2 * g11 - t1 * g12) / det
    steps = torch.tensor([-1.0, 0.0, 1.0], dtype=b1.dtype, device=b1.device)
    near = torch.cartesian_prod(steps, steps)  # the nearest is the rounded one or beside it
    n1, n2 = x1.round() + near[:, 0], x2.round() + near[:, 1]
    candidates = b3[:, None] - n1[..., None] * b1[:, None] - n2[..., None] * b2[:, None]
    best = candidates.norm(dim=-1).argmin(-1)
    return candidates[torch.arange(len(b3), device=b3.device), best]


@exact
def minimum_image(
    frac_displacement: Float[Tensor, "atoms 3"],
    cell: ReducedCell,
    crystal_of_atom: Tensor,
) -> Float[Tensor, "atoms 3"]:
    """The shortest periodic equivalent of each displacement: d_min of Appendix D.4.

    Args:
        frac_displacement: in the basis that `cell` was reduced from.
        cell: from `minkowski_reduce`.
        crystal_of_atom: `[atoms]`, which crystal each displacement belongs to.

    Returns:
        cartesian displacements in Å, exact for skewed cells.
    """
    matrix = cell.matrix[crystal_of_atom]
    frac = torch.einsum("ai,aij->aj", frac_displacement, cell.from_frac[crystal_of_atom])
    frac = frac - frac.round()
    steps = torch.tensor([-1.0, 0.0, 1.0], dtype=frac.dtype, device=frac.device)
    images = torch.cartesian_prod(steps, steps, steps)
    candidates = torch.einsum("ani,aij->anj", frac[:, None] + images, matrix)
    nearest = candidates.square().sum(-1).argmin(-1)
    return candidates[torch.arange(len(frac), device=frac.device), nearest]
