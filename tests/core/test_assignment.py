"""Types under given counts."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import torch
from examples import batch, prototypes

from cdvae_core.assignment import assign_types
from cdvae_core.crystal import Crystal, CrystalBatch


def mixed(seed: int, sizes: tuple[int, ...] = (1, 5, 3, 7)) -> tuple[CrystalBatch, torch.Tensor]:
    rng = np.random.default_rng(seed)
    crystals = [
        Crystal(rng.choice([8, 22, 38], n), rng.random((n, 3)), 5 * np.eye(3)) for n in sizes
    ]
    made = CrystalBatch.from_crystals(crystals)
    logits = torch.randn(sum(sizes), 100, generator=torch.Generator().manual_seed(seed))
    return made, 3 * logits


def assigned(logits: torch.Tensor, crystals: CrystalBatch) -> torch.Tensor:
    return assign_types(logits, crystals, int(crystals.num_atoms.max()))


def counts(numbers: torch.Tensor, crystals: CrystalBatch) -> list[list[int]]:
    return [sorted(part.tolist()) for part in numbers.split(crystals.num_atoms.tolist())]


def test_counts_stay_whatever_the_logits_say() -> None:
    for seed in range(20):
        crystals, logits = mixed(seed)
        given = assigned(logits, crystals)
        assert counts(given, crystals) == counts(crystals.atomic_numbers, crystals)


def test_sure_logits_are_followed() -> None:
    """Where every atom's likeliest type is to be had, each gets it, in whatever order."""
    crystals = batch(prototypes().values(), torch.float32)
    true = crystals.atomic_numbers
    logits = 5 * torch.nn.functional.one_hot(true - 1, 100).float() + torch.rand(len(true), 100)
    order = torch.cat(
        [torch.randperm(n) + f for n, f in zip(crystals.num_atoms.tolist(),
         (crystals.num_atoms.cumsum(0) - crystals.num_atoms).tolist(), strict=True)]
    )  # fmt: skip
    shuffled = crystals.replace(atomic_numbers=true[order])
    assert torch.equal(assigned(logits, shuffled), true)


def test_the_likeliest_pair_comes_first() -> None:
    """The atom that is surest of a rare type gets it, though all prefer another."""
    crystals = CrystalBatch.from_crystals(
        [Crystal(np.array([8, 8, 22]), np.zeros((3, 3)), 5 * np.eye(3))]
    )
    logits = torch.full((3, 100), -20.0)
    logits[:, 7] = 2.0  # all three want to be O
    logits[1, 21] = 1.0  # the second could be Ti
    assert assigned(logits, crystals).tolist() == [8, 22, 8]


def test_close_to_the_best_of_all_assignments() -> None:
    """Greedy is not optimal; over random logits it reaches nearly all of the gain that there is."""
    share = []
    for seed in range(30):
        crystals, logits = mixed(seed, (5,))
        log_p = logits.log_softmax(-1)
        atoms = torch.arange(5)
        gain = log_p[atoms, assigned(logits, crystals) - 1].sum()
        every = [
            log_p[atoms, torch.tensor(order) - 1].sum()
            for order in set(permutations(crystals.atomic_numbers.tolist()))
        ]
        worst, best = min(every), max(every)
        share.append(float((gain - worst) / (best - worst).clamp_min(1e-9)))
    assert np.mean(share) > 0.9


def test_order_of_atoms_does_not_matter() -> None:
    crystals, logits = mixed(3)
    sizes = crystals.num_atoms.tolist()
    first = (crystals.num_atoms.cumsum(0) - crystals.num_atoms).tolist()
    order = torch.cat([torch.randperm(n) + f for n, f in zip(sizes, first, strict=True)])
    moved = crystals.replace(atomic_numbers=crystals.atomic_numbers[order])
    assert torch.equal(assigned(logits[order], moved), assigned(logits, crystals)[order])
