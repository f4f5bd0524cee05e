"""The order in which training reads a split, and the loader that hands out its batches.

A split that does not fit in memory cannot be read in any order: each crystal would come from
another page of the disk. So the split is cut into shards, runs of crystals that lie together in the
file. Shards come in random order, a few at a time, and the crystals of these are mixed. A split no
larger than what is mixed is in perfectly random order.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from torch.utils.data import DataLoader, Dataset, Sampler

from cdvae_core.data.cache import CachedSplit, LabelledBatch

SHARD = 2**14
MIXED = 4 * SHARD  # crystals, about 100 MB


class ShardedOrder(Sampler[int]):
    """A fresh order in each epoch, divided between processes, in whole optimiser steps.

    Args:
        crystals: how many the split has.
        step: crystals of one process in one optimiser step; the rest of an epoch is left out.
        seed: the same seed and epoch give the same order.
        processes, rank: how many share the split, and which one this is.
    """

    def __init__(
        self, crystals: int, step: int, seed: int, processes: int = 1, rank: int = 0
    ) -> None:
        self.crystals, self.seed, self.processes, self.rank = crystals, seed, processes, rank
        self.count = crystals // processes // step * step
        self.epoch = 0
        self.skip = 0  # crystals that an interrupted epoch has seen already

    def set_epoch(self, epoch: int) -> None:
        """Choose the order; Lightning calls it before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[int]:
        order = self.order()[self.rank :: self.processes][: self.count]
        skip, self.skip = self.skip, 0
        for first in range(skip, self.count, SHARD):  # Python numbers for a part at a time
            yield from order[first : first + SHARD].tolist()

    def order(self) -> np.ndarray:
        """Places in the split, `[crystals]`, of all processes together."""
        rng = np.random.default_rng([self.seed, self.epoch])
        shards = rng.permutation(-(-self.crystals // SHARD))
        starts = shards[:, None] * SHARD + np.arange(SHARD)
        order = starts[starts < self.crystals]
        for first in range(0, self.crystals, MIXED):
            rng.shuffle(order[first : first + MIXED])
        return order


class Batches(Dataset):
    """A split that hands out whole batches, assembled in one go."""

    def __init__(self, split: CachedSplit, prop: str | None) -> None:
        self.split, self.prop = split, prop
        self.read = 0

    def __len__(self) -> int:
        return len(self.split)

    def __getitems__(self, indices: list[int]) -> LabelledBatch:
        self.read += len(indices)
        if self.read > MIXED:  # by now most pages are of shards that are done
            self.split.release()
            self.read = 0
        return self.split.batch(indices, self.prop)


def loader(
    split: CachedSplit, prop: str | None, batch_size: int, order: ShardedOrder | None = None
) -> DataLoader:
    """A loader of `LabelledBatch`.

    Args:
        split: what to read.
        prop: which property the batches have.
        batch_size: crystals.
        order: without one, the order of the file.
    """
    return DataLoader(Batches(split, prop), batch_size, sampler=order, collate_fn=_same)


def _same(batch: Any) -> LabelledBatch:
    return batch
