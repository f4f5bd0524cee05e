"""FTCP: its representation goes there and back, and the network learns it."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings

sys.path.insert(0, str(Path(__file__).parents[1] / "core"))
from examples import batch, crystals, made_split, perovskites, prototypes, rotation

from cdvae_core.baseline_configs import FTCPConfig
from cdvae_core.baselines import checkpoint
from cdvae_core.baselines.ftcp import FTCP
from cdvae_core.baselines.ftcp_representation import (
    columns,
    element_properties,
    invert,
    real_columns,
    represent,
    rows,
)
from cdvae_core.crystal import MAX_ATOMIC_NUMBER, Crystal
from cdvae_core.data.cache import open_split
from cdvae_core.errors import ConfigError, StructureError
from cdvae_core.metrics.reconstruction import match
from cdvae_core.optimise import Goal, ascend

WIDE = FTCPConfig(max_atoms=20, max_elements=20)
SMALL = FTCPConfig(
    max_atoms=5, max_elements=3, reciprocal_points=6, channels=16, dense_hidden=128, latent_dim=16,
    prop="energy",
)  # fmt: skip
PROPERTIES = element_properties()


def same(one: Crystal, other: Crystal, tolerance: float) -> bool:
    apart = one.frac_coords - other.frac_coords
    return (
        np.array_equal(one.atomic_numbers, other.atomic_numbers)
        and np.abs(apart - apart.round()).max() < tolerance
        and np.allclose(one.lengths, other.lengths, rtol=tolerance)
        and np.allclose(one.angles, other.angles, rtol=0, atol=100 * tolerance)
    )


def back(crystal: Crystal, config: FTCPConfig = WIDE) -> Crystal:
    found = invert(represent(batch([crystal]), PROPERTIES.double(), config)[0], config)
    assert isinstance(found, Crystal)
    return found


@given(crystals(most=20))
@settings(max_examples=40)
def test_any_crystal_comes_back(crystal: Crystal) -> None:
    assert same(back(crystal), crystal, 1e-9)


@pytest.mark.parametrize("dataset", ["perov_like", "mp_like"])
def test_real_crystals_come_back(dataset: str) -> None:
    split = open_split(dataset, "test")
    config = FTCPConfig(max_atoms=20, max_elements=7)
    places = range(0, len(split), len(split) // 40)
    found = represent(split.batch(places).crystals, PROPERTIES, config)
    for i, matrix in zip(places, found, strict=True):
        assert same(invert(matrix, config), split.crystal(i), 1e-5)


def test_reciprocal_space_of_a_cubic_cell() -> None:
    crystal = prototypes()["perovskite"]
    matrix = represent(batch([crystal]), PROPERTIES.double(), WIDE)[0]
    length = matrix[MAX_ATOMIC_NUMBER + 2 + 2 * WIDE.max_atoms]
    wide = real_columns(WIDE)
    assert not length[:wide].any()
    # by |h| + |k| + |l|: the six (100), then six (200) and twelve (110) among each other
    a = crystal.lengths[0]
    assert torch.allclose(length[wide : wide + 6], torch.full((6,), 1 / a).double())
    second = (length[wide + 6 : wide + 24] * a).sort().values
    wanted = torch.tensor([2**0.5] * 12 + [2.0] * 6).double()
    assert torch.allclose(second, wanted)
    # by hand: (100) is the first, so a feature's column is pi times the sum of it over x
    first = np.pi * (PROPERTIES.numpy()[crystal.atomic_numbers] * crystal.frac_coords[:, :1]).sum(0)
    found = matrix[-(rows(WIDE) - MAX_ATOMIC_NUMBER - 2 - 2 * WIDE.max_atoms - 1) :, wide]
    assert np.allclose(found[: len(first)], first)


@given(crystals(most=8))
@settings(max_examples=20)
def test_a_rotation_changes_nothing(crystal: Crystal) -> None:
    turned = Crystal(
        crystal.atomic_numbers, crystal.frac_coords, crystal.lattice @ rotation().numpy()
    )
    one, other = (represent(batch([c]), PROPERTIES.double(), WIDE) for c in (crystal, turned))
    lengths = MAX_ATOMIC_NUMBER + 2 + 2 * WIDE.max_atoms  # a tie of |g| may reorder nothing here
    assert torch.allclose(one[:, :lengths], other[:, :lengths], atol=1e-6)


def test_a_matrix_that_is_no_crystal_is_a_reason() -> None:
    found = invert(torch.zeros(rows(WIDE), columns(WIDE)), WIDE)
    assert isinstance(found, StructureError)


def test_too_many_elements_are_refused() -> None:
    split = made_split(perovskites(4))
    with pytest.raises(ConfigError, match="max_elements is 2"):
        FTCP.build(FTCPConfig(max_atoms=5, max_elements=2), split)


@pytest.fixture(scope="module")
def fitted() -> FTCP:
    """A network that has seen eight crystals until it knows them."""
    split = made_split(perovskites(8))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = FTCP.build(SMALL, split)
        adam = torch.optim.Adam(model.parameters(), 5e-3)
    examples = model.examples(split).__getitems__(list(range(8)))
    generator = torch.Generator().manual_seed(0)
    for _ in range(800):
        loss = torch.stack(list(model.losses(examples, generator, 0.0).values())).sum()
        adam.zero_grad()
        loss.backward()
        adam.step()
    return model.eval()


def test_eight_crystals_are_learnt(fitted: FTCP) -> None:
    split = made_split(perovskites(8))
    found = list(fitted.reconstruct(split, range(8), torch.Generator()))
    assert np.isfinite([match(one, split.crystal(i)) for i, one in enumerate(found)]).all()
    with torch.no_grad():
        predicted = fitted.predict_property(fitted._latents(split, range(8)))
    assert np.abs(predicted.numpy() - split.properties["energy"]).max() < 0.2


def test_a_saved_network_makes_the_same(fitted: FTCP, tmp_path: Path) -> None:
    fitted.save(tmp_path)
    again = checkpoint.load(tmp_path)
    assert again.config == fitted.config
    one, other = (
        [str(x) if isinstance(x, StructureError) else x.frac_coords.tolist() for x in made]
        for made in (m.sample(5, torch.Generator().manual_seed(1)) for m in (fitted, again))
    )
    assert one == other


def test_ascent_raises_what_it_predicts(fitted: FTCP) -> None:
    split = made_split(perovskites(8))
    made = list(fitted.optimise(split, range(3), Goal(1), 2, torch.Generator()))
    assert [len(step) for step in made] == [3, 3]
    way = list(ascend(fitted, fitted._latents(split, range(3)), Goal(1), steps=200, kept=1))
    assert (way[-1].predicted > way[0].predicted).all()
