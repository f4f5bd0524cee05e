"""The order of training: every crystal, once, from few shards at a time, for any process count."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdvae_core.data import loader
from cdvae_core.data.loader import ShardedOrder

SHARD, MIXED = 16, 64


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loader, "SHARD", SHARD)
    monkeypatch.setattr(loader, "MIXED", MIXED)


sizes = st.integers(1, 500)


@given(sizes, st.integers(1, 20), st.integers(1, 4), st.integers(0, 3))
def test_processes_share_an_epoch_in_whole_steps(
    crystals: int, step: int, processes: int, epoch: int
) -> None:
    orders = [ShardedOrder(crystals, step, 7, processes, rank) for rank in range(processes)]
    for order in orders:
        order.set_epoch(epoch)
    read = [list(order) for order in orders]
    assert {len(part) for part in read} == {len(orders[0])}
    assert len(orders[0]) % step == 0
    assert crystals - processes * step < processes * len(orders[0]) <= crystals
    seen = [i for part in read for i in part]
    assert len(set(seen)) == len(seen)
    assert all(0 <= i < crystals for i in seen)


@given(sizes)
def test_each_crystal_comes_once_and_from_few_shards(crystals: int) -> None:
    order = ShardedOrder(crystals, 1, 0).order()
    assert sorted(order.tolist()) == list(range(crystals))
    for first in range(0, crystals, MIXED):  # the last, shorter shard may come anywhere
        assert len(np.unique(order[first : first + MIXED] // SHARD)) <= MIXED // SHARD + 1


def test_epochs_and_seeds_have_other_orders() -> None:
    one, other = ShardedOrder(300, 1, 0), ShardedOrder(300, 1, 1)
    first = list(one)
    assert first == list(one)
    assert first != list(other)
    one.set_epoch(1)
    assert first != list(one)


@given(st.integers(0, 280))
def test_an_interrupted_epoch_goes_on_where_it_was(skip: int) -> None:
    order = ShardedOrder(300, 10, 0)
    whole = list(order)
    order.skip = skip
    assert list(order) == whole[skip:]
    assert list(order) == whole  # the next epoch is whole again


def test_what_fits_into_the_mixture_is_shuffled_evenly() -> None:
    """Where a crystal comes says nothing of its place: the mean place is the middle."""
    places = []
    for epoch in range(2000):
        order = ShardedOrder(MIXED, 1, 0)
        order.set_epoch(epoch)
        places.append(order.order())
    mean = np.mean(places, 0)
    deviation = np.sqrt((MIXED**2 - 1) / 12 / 2000)
    assert abs(mean - (MIXED - 1) / 2).max() < 5 * deviation
