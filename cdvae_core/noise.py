"""How crystals are corrupted, and what the decoder is asked to undo (D.3, D.4).

    sigma_x     noise of the coordinates, Å: X~ = X + sigma_x eps
    sigma_a     noise of the types: A~ is drawn from (p_A + sigma_a p_c) / (1 + sigma_a)
    d_min       the shortest periodic displacement from X~ back to X

The two levels of a crystal are drawn independently, as in the published code and unlike Eq. 2,
which ties them: during sampling the types settle long before the coordinates do, and a decoder
that never saw right types on far-off coordinates would be lost there.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cdvae_core.config import NoiseConfig
from cdvae_core.crystal import CrystalBatch
from cdvae_core.lattice import ReducedCell, exact, minimum_image, minkowski_reduce, wrap


def geometric(first: float, last: float, levels: int) -> Float[Tensor, " levels"]:
    """A geometric sequence from `first` to `last`, both included."""
    exponent = torch.linspace(0, 1, levels, dtype=torch.float64)
    return (first * (last / first) ** exponent).float()


def coordinate_sigmas(config: NoiseConfig) -> Float[Tensor, " levels"]:
    """sigma_x of every level, Å, falling."""
    return geometric(config.sigma_first, config.sigma_last, config.levels)


def type_sigmas(config: NoiseConfig) -> Float[Tensor, " levels"]:
    """sigma_a of every level, falling."""
    return geometric(config.type_sigma_first, config.type_sigma_last, config.levels)


@exact
def perturb_coordinates(
    crystals: CrystalBatch,
    sigma: Float[Tensor, " crystals"],
    generator: torch.Generator,
) -> Float[Tensor, "atoms 3"]:
    """Fractional coordinates after Gaussian noise of sigma Å, wrapped into the cell."""
    of_atom = crystals.crystal_of_atom
    noise = torch.randn(
        crystals.frac_coords.shape,
        generator=generator,
        dtype=crystals.frac_coords.dtype,
        device=crystals.frac_coords.device,
    )
    cart = noise * sigma[of_atom, None]
    to_frac = torch.linalg.inv(crystals.lattice)
    return wrap(crystals.frac_coords + torch.einsum("ai,aij->aj", cart, to_frac[of_atom]))


def score_target(
    crystals: CrystalBatch,
    noisy_frac_coords: Float[Tensor, "atoms 3"],
    sigma: Float[Tensor, " crystals"],
    cell: ReducedCell | None = None,
) -> Float[Tensor, "atoms 3"]:
    """d_min(X, X~) / sigma_x of Eq. 2; `without_drift` of it is the decoder's target.

    Args:
        crystals: the clean crystals; their lattice measures the displacement.
        noisy_frac_coords: in that lattice.
        sigma: Å.
        cell: reduced basis of the lattices, if it is at hand.
    """
    cell = cell or minkowski_reduce(crystals.lattice)
    of_atom = crystals.crystal_of_atom
    shortest = minimum_image(crystals.frac_coords - noisy_frac_coords, cell, of_atom)
    return shortest / sigma[of_atom, None]


def without_drift(
    vectors: Float[Tensor, "atoms 3"], crystals: CrystalBatch
) -> Float[Tensor, "atoms 3"]:
    """Each vector less the mean over its crystal.

    Noise shifts a crystal as a whole, too, by sigma / sqrt N, and nothing that a decoder sees tells
    by how much: the score of a density that does not change under translation sums to zero over
    the atoms. As part of a target that shift is noise alone, a fifth of the target for N = 5.
    """
    total = vectors.new_zeros(crystals.num_crystals, 3)
    total = total.index_add(0, crystals.crystal_of_atom, vectors)
    mean = total / crystals.num_atoms[:, None]
    return vectors - mean[crystals.crystal_of_atom]


def perturb_types(
    crystals: CrystalBatch,
    composition: Float[Tensor, "crystals elements"],
    sigma: Float[Tensor, " crystals"],
    generator: torch.Generator,
) -> Int[Tensor, " atoms"]:
    """Atomic numbers, each kept with probability 1 / (1 + sigma), else drawn from a composition.

    Args:
        crystals: the clean crystals.
        composition: probabilities of the elements 1 ... 100, predicted from z.
        sigma: sigma_a of each crystal.
    """
    of_atom = crystals.crystal_of_atom
    device = of_atom.device
    keep, draw = torch.rand(2, len(of_atom), generator=generator, device=device)
    cumulative = composition.float().cumsum(-1)[of_atom]
    drawn = torch.searchsorted(cumulative, draw[:, None] * cumulative[:, -1:])[:, 0] + 1
    drawn = drawn.clamp_max(composition.shape[-1])
    kept = keep < 1 / (1 + sigma[of_atom])
    return torch.where(kept, crystals.atomic_numbers, drawn)


def shuffle_types(
    crystals: CrystalBatch, sigma: Float[Tensor, " crystals"], generator: torch.Generator
) -> Int[Tensor, " atoms"]:
    """Atomic numbers, each kept with probability 1 / (1 + sigma), the others of a crystal shuffled.

    What a sampler that keeps the counts meets: the right elements in the wrong places.

    Args:
        crystals: the clean crystals.
        sigma: sigma_a of each crystal.
    """
    of_atom = crystals.crystal_of_atom
    keep, key = torch.rand(2, len(of_atom), generator=generator, device=of_atom.device)
    moved = (keep >= 1 / (1 + sigma[of_atom])).nonzero()[:, 0]
    order = (of_atom[moved] + key[moved].double()).argsort()  # at random within each crystal
    numbers = crystals.atomic_numbers.clone()
    numbers[moved] = crystals.atomic_numbers[moved[order]]
    return numbers


def likeliest_counts(
    composition: Float[Tensor, "crystals elements"], num_atoms: Int[Tensor, " crystals"]
) -> Int[Tensor, " atoms"]:
    """N atoms per crystal in the whole numbers nearest to a composition, by largest remainder.

    Each element gets N c rounded down; the atoms that are left go to the largest remainders.
    """
    wanted = composition.float() * num_atoms[:, None]
    wanted = wanted / composition.float().sum(-1, keepdim=True)
    counts = (wanted + 1e-4).floor()  # 5 * 0.6 is 2.9999998
    left = num_atoms - counts.sum(-1)
    order = (wanted - counts).argsort(dim=-1, descending=True, stable=True)
    place = torch.arange(composition.shape[-1], device=composition.device)
    extra = (place < left[:, None]).to(counts.dtype)
    counts = counts.scatter_add(1, order, extra).long()
    elements = (place + 1).expand_as(counts)
    return torch.repeat_interleave(elements.flatten(), counts.flatten())
