"""Other ways to draw noise and to aim at what it hid, for `recipes.py`.

Two of them need an explanation. `target=averaged`: in a noisy crystal nothing tells which atom was
which. What a decoder can learn is the mean over all assignments of noisy to clean atoms, and over
their periodic images, weighted by how likely each would have made what is seen; the true one is
only a sample of them. Averaged targets (Tong et al. 2025, arXiv:2502.09890) have less variance and
the same mean. The assignments are walked through by exchanges of two atoms, from the true one,
which is as good a sample as any later one. `target=alike` exchanges atoms of one element only.
Types are taken as drawn from the true composition; shuffled ones (`recipe.shuffled_types`), or
those of a predicted composition, make `target=averaged` an approximation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from unittest import mock

import torch
from torch import Tensor
from torch.nn import functional

from cdvae_core import losses
from cdvae_core.crystal import MAX_ATOMIC_NUMBER, CrystalBatch
from cdvae_core.lattice import minkowski_reduce

_EXCHANGES = 64  # of each half of the atoms of a crystal

Levels = Callable[[int, int, torch.Generator], Tensor]


def levels_by(draw: Callable[[Tensor, Tensor], Tensor]) -> Levels:
    """Coordinates get the share of the levels that `draw` makes of two even numbers, from the
    strongest noise to the weakest; types get any level."""

    def drawn(levels: int, count: int, generator: torch.Generator) -> Tensor:
        one, other, types = torch.rand(3, count, generator=generator)
        return (torch.stack([draw(one, other), types]) * levels).long()

    return drawn


def tied(levels: int, count: int, generator: torch.Generator) -> Tensor:
    """One level for both, as Eq. 2 has it."""
    return torch.randint(levels, (1, count), generator=generator).expand(2, -1)


def assignments(
    crystals: CrystalBatch, noisy: CrystalBatch, sigma_x: Tensor, sigma_a: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Of each pair of a noisy and a clean atom of one crystal.

    Returns:
        `[crystals, N, N]`: the logarithm of how likely the clean one would have made the noisy one.
        `[crystals, N, N, 3]`: the mean displacement back, Å.
        `[atoms]`: the place of each atom in its crystal; N is the largest number of atoms.
    """
    of_atom, sizes = crystals.crystal_of_atom, crystals.num_atoms
    place = torch.arange(len(of_atom)) - (sizes.cumsum(0) - sizes)[of_atom]
    most = int(sizes.max())

    def padded(values: Tensor) -> Tensor:
        room = values.new_zeros(len(sizes), most, *values.shape[1:])
        return room.index_put((of_atom, place), values)

    cell = minkowski_reduce(crystals.lattice)
    back = padded(crystals.frac_coords)[:, None] - padded(noisy.frac_coords)[:, :, None]
    back = torch.einsum("cijk,ckl->cijl", back, cell.from_frac)
    steps = torch.tensor([-1.0, 0.0, 1.0])
    images = torch.cartesian_prod(steps, steps, steps)
    back = (back - back.round())[..., None, :] + images
    cart = torch.einsum("cijnk,ckl->cijnl", back, cell.matrix)
    log = -cart.square().sum(-1) / (2 * sigma_x.square())[:, None, None, None]
    mean = torch.einsum("cijn,cijnk->cijk", log.softmax(-1), cart)
    kinds, seen = padded(crystals.atomic_numbers), padded(noisy.atomic_numbers)
    shares = crystals.element_counts / sizes[:, None]
    chance = shares.gather(1, (seen - 1).clamp_min(0)).clamp_min(1e-6)[:, :, None]
    kept = (seen[:, :, None] == kinds[:, None, :]).float()
    drawn = sigma_a[:, None, None]
    return log.logsumexp(-1) + ((kept + drawn * chance) / (1 + drawn)).log(), mean, place


def mean_assignment(log: Tensor, sizes: Tensor) -> Tensor:
    """`[crystals, N, N]`: how often noisy atom i is clean atom j along a chain of exchanges.

    Args:
        log: of `assignments`.
        sizes: `[crystals]`, numbers of atoms.
    """
    count, most, _ = log.shape
    state = torch.arange(most).expand(count, most).clone()
    total = functional.one_hot(state, most).float()
    row = torch.arange(count)[:, None]
    absent = torch.arange(most) >= sizes[:, None]
    for _ in range(_EXCHANGES):
        order = torch.rand(count, most).masked_fill(absent, 2.0).argsort(-1)
        a, b = order[:, : most // 2 * 2].view(count, -1, 2).unbind(-1)
        at_a, at_b = state[row, a], state[row, b]
        gain = log[row, a, at_b] + log[row, b, at_a] - log[row, a, at_a] - log[row, b, at_b]
        exchanged = (torch.rand_like(gain) < gain.sigmoid()) & ~absent[row, b]
        state[row, a] = torch.where(exchanged, at_b, at_a)
        state[row, b] = torch.where(exchanged, at_a, at_b)
        total += functional.one_hot(state, most)
    return total / (_EXCHANGES + 1)


def averaged(
    crystals: CrystalBatch, noisy: CrystalBatch, sigma_x: Tensor, sigma_a: Tensor, alike: bool
) -> tuple[Tensor, Tensor]:
    """`losses._targets`, averaged over which atom was which."""
    log, back, place = assignments(crystals, noisy, sigma_x, sigma_a)
    of_atom = crystals.crystal_of_atom
    kinds = torch.zeros(log.shape[:2], dtype=torch.long)
    kinds[of_atom, place] = crystals.atomic_numbers - 1
    if alike:
        log = log.masked_fill(kinds[:, :, None] != kinds[:, None, :], -1e9)
    mean = mean_assignment(log, crystals.num_atoms)
    vectors = torch.einsum("cij,cijk->cik", mean, back)[of_atom, place]
    types = mean @ functional.one_hot(kinds, MAX_ATOMIC_NUMBER).float()
    return vectors / sigma_x[of_atom, None], types[of_atom, place]


# which function of `losses` each stands for
VARIANTS: dict[str, tuple[str, Callable[..., object]]] = {
    "levels=tied": ("_levels", tied),
    "levels=strong": ("_levels", levels_by(torch.minimum)),
    "levels=weak": ("_levels", levels_by(torch.maximum)),
    "levels=middle": ("_levels", levels_by(lambda one, other: (one + other) / 2)),
    "types=published": ("_type_weight", torch.reciprocal),
    "target=averaged": ("_targets", partial(averaged, alike=False)),
    "target=alike": ("_targets", partial(averaged, alike=True)),
}


@contextmanager
def variant(words: Sequence[str], seed: int = 0) -> Iterator[None]:
    """Train so for a while; exchanges of atoms follow from the seed.

    Raises:
        SystemExit: two words for one thing.
    """
    named = [VARIANTS[word] for word in words if word in VARIANTS]
    chosen = dict(named)
    if len(chosen) < len(named):
        raise SystemExit(f"two ways for one thing: {' '.join(words)}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        with mock.patch.multiple(losses, **chosen) if chosen else nullcontext():
            yield
