"""Cond-DFC-VAE: crystals to voxels and back, the networks, and all of it on eight crystals."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[1] / "core"))
from examples import crystal, made_split, prototypes

from cdvae_core.baseline_configs import DFCVAEConfig
from cdvae_core.baselines import checkpoint
from cdvae_core.baselines.dfc_vae import DFCVAE
from cdvae_core.baselines.protocol import Made
from cdvae_core.baselines.voxels import (
    Box,
    CubicBatch,
    cell_length,
    channels,
    cube_rotations,
    decode,
    species_map,
)
from cdvae_core.crystal import Crystal
from cdvae_core.data.cache import CachedSplit, open_split
from cdvae_core.errors import ConfigError, DatasetError, StructureError
from cdvae_core.experiment import read
from cdvae_core.metrics.reconstruction import reconstruction
from cdvae_core.optimise import Goal

SMALL = Box(16, 0.25)
PHASES = ((0.0, 120, 1e-2), (0.5, 230, 5e-3))  # progress, steps, learning rate
CONFIG = DFCVAEConfig(
    prop="energy", max_atoms=5, voxels=16, latent_dim=32, width=8, unet_width=4, unet_share=0.4
)


def cubic_batch(crystals: list[Crystal]) -> CubicBatch:
    most = max(c.num_atoms for c in crystals)
    numbers = torch.zeros(len(crystals), most, dtype=torch.long)
    coords = torch.zeros(len(crystals), most, 3)
    for i, c in enumerate(crystals):
        numbers[i, : c.num_atoms] = torch.as_tensor(c.atomic_numbers)
        coords[i, : c.num_atoms] = torch.as_tensor(c.frac_coords)
    return CubicBatch(numbers, coords, torch.tensor([float(c.lengths[0]) for c in crystals]))


@st.composite
def cubics(draw: st.DrawFn) -> CubicBatch:
    """Up to six atoms of any element anywhere in cells of 3 to 7 Å."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    count = draw(st.integers(1, 6))
    made = Crystal(
        rng.integers(1, 101, count), rng.uniform(0, 1, (count, 3)), np.eye(3) * rng.uniform(3, 7)
    )
    return cubic_batch([made])


# Voxels ---


@pytest.mark.parametrize("voxels", [16, 32])
def test_real_crystals_come_back_from_their_voxels(voxels: int) -> None:
    box, split = Box(voxels, 0.25), open_split("perov_like", "test")
    crystals = [split.crystal(i) for i in range(0, len(split), 20)]
    batch = cubic_batch(crystals)
    lengths = cell_length(channels(batch, box)[:, 1:], box).tolist()
    for true, species, length in zip(
        crystals, species_map(batch, box).numpy(), lengths, strict=True
    ):
        made = decode(species, length, box)
        assert made.formula == true.formula
        apart = made.frac_coords[:, None] - true.frac_coords
        distance = np.linalg.norm(apart - apart.round(), axis=-1)
        assert (made.atomic_numbers == true.atomic_numbers[distance.argmin(1)]).all()
        assert distance.min(0).max() < 0.6 * box.voxel
        np.testing.assert_allclose(made.lengths, true.lengths, rtol=1e-5)


@settings(max_examples=30)
@given(cubics(), st.integers(0, 23))
def test_voxels_turn_with_the_crystal(batch: CubicBatch, which: int) -> None:
    rotation = cube_rotations()[which]
    turned = batch.rotated(rotation[None])
    grid = np.stack(np.indices([16] * 3), -1) - 7.5
    there = (grid @ rotation.numpy() + 7.5).round().astype(int)  # R^-1 of each place
    density = channels(batch, SMALL)[0, 0].numpy()[tuple(np.moveaxis(there, -1, 0))]
    np.testing.assert_allclose(channels(turned, SMALL)[0, 0].numpy(), density, rtol=2e-3, atol=1e-4)
    species = species_map(batch, SMALL)[0].numpy()[tuple(np.moveaxis(there, -1, 0))]
    assert (species_map(turned, SMALL)[0].numpy() == species).mean() > 0.995  # but for exact ties


@settings(max_examples=30)
@given(cubics(), st.integers(-2, 2), st.integers(0, 4))
def test_voxels_know_the_lattice_and_move_with_the_atoms(
    batch: CubicBatch, cells: int, steps: int
) -> None:
    before = channels(batch, SMALL)[0, 0].numpy()
    moved = batch.frac_coords + torch.tensor([float(cells), 0.0, steps * SMALL.voxel])
    moved = CubicBatch(batch.atomic_numbers, moved - moved.floor(), batch.length)
    after = channels(moved, SMALL)[0, 0].numpy()
    np.testing.assert_allclose(after[..., steps:], before[..., : 16 - steps], rtol=2e-3, atol=1e-4)


@settings(max_examples=30)
@given(cubics())
def test_the_density_holds_the_electrons_of_the_box(batch: CubicBatch) -> None:
    fine = Box(48, 0.0)  # the cell itself
    volume = float(batch.length) ** 3
    electrons = float(channels(batch, fine)[0, 0].mean()) * volume
    assert electrons == pytest.approx(float(batch.atomic_numbers.sum()), rel=0.02)


def test_what_is_no_crystal_is_an_error() -> None:
    species = np.zeros([16] * 3, dtype=int)
    with pytest.raises(StructureError, match="no atoms"):
        decode(species, 4.0, SMALL)
    species[6:9, 6:9, 6:9] = 8
    for length, why in ((0.0, "volume"), (np.nan, "finite")):
        with pytest.raises(StructureError, match=why):
            decode(species, length, SMALL)


def test_sites_that_touch_are_cut_apart() -> None:
    grid = np.stack(np.indices([16] * 3), -1)
    species = np.zeros([16] * 3, dtype=int)
    for number, place in ((8, [6.0, 8, 6]), (22, [6.0, 8, 10])):
        species[np.linalg.norm(grid - place, axis=-1) < 2.3] = number
    made = decode(species, 6.0, SMALL)
    assert sorted(made.atomic_numbers) == [8, 22]
    assert abs(made.frac_coords[0] - made.frac_coords[1]) == pytest.approx(
        [0, 0, 4 * SMALL.voxel], abs=0.3 * SMALL.voxel
    )


# The model ---


def cubic_crystals() -> list[Crystal]:
    """Perovskites, pairs as in CsCl, and single atoms."""
    perovskite = prototypes()["perovskite"]
    pair = [[0, 0, 0], [0.5, 0.5, 0.5]]
    return [
        perovskite,
        crystal([56, 40, 8, 8, 8], perovskite.frac_coords, 4.2 * np.eye(3)),
        crystal([57, 13, 7, 7, 7], perovskite.frac_coords, 3.8 * np.eye(3)),
        crystal([55, 17], pair, 4.1 * np.eye(3)),
        crystal([19, 9], pair, 3.9 * np.eye(3)),
        crystal([47, 35], pair, 3.6 * np.eye(3)),
        crystal([84], [[0.5, 0.5, 0.5]], 3.35 * np.eye(3)),
        crystal([24], [[0, 0, 0]], 3.0 * np.eye(3)),
    ]


@pytest.fixture(scope="module")
def eight() -> CachedSplit:
    return made_split(cubic_crystals())


@pytest.fixture(scope="module")
def learnt(eight: CachedSplit) -> DFCVAE:
    """The model that has learnt the eight by heart."""
    torch.manual_seed(0)
    model = DFCVAE.build(CONFIG, eight)
    generator = torch.Generator().manual_seed(0)
    batch = model.examples(eight).__getitems__(list(range(8)))
    for progress, steps, rate in PHASES:
        adam = torch.optim.Adam(model.parameters(), rate)
        for step in range(steps):
            adam.param_groups[0]["lr"] = rate * (1 - step / steps)
            loss = sum(model.losses(batch, generator, progress).values())
            adam.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            adam.step()
    return model.eval()


def made(model: DFCVAE, split: CachedSplit, places: list[int]) -> list[Made]:
    return list(model.reconstruct(split, places, torch.Generator()))


def test_eight_crystals_are_learnt_by_heart(learnt: DFCVAE, eight: CachedSplit) -> None:
    found, true = made(learnt, eight, list(range(8))), cubic_crystals()
    assert [getattr(one, "formula", one) for one in found] == [one.formula for one in true]
    assert reconstruction([[one] for one in found], true).metrics()["match_rate"] == 1.0


def test_the_networks_are_trained_one_after_the_other(eight: CachedSplit) -> None:
    model = DFCVAE.build(CONFIG, eight)
    batch = model.examples(eight).__getitems__([0, 3, 6])
    sum(model.losses(batch, torch.Generator(), 0.0).values()).backward()
    assert all(p.grad is None for p in (*model.encoder.parameters(), *model.decoder.parameters()))
    assert all(p.grad is not None for p in model.unet.parameters())
    model.zero_grad()
    before = [b.clone() for b in model.unet.buffers()]
    terms = model.losses(batch, torch.Generator(), 0.5)
    sum(terms.values()).backward()
    assert set(terms) == {"voxels", "perceptual", "kl"}
    assert all(p.grad is None for p in model.unet.parameters())
    assert all(
        p.grad is not None for p in (*model.encoder.parameters(), *model.decoder.parameters())
    )
    assert all(torch.equal(a, b) for a, b in zip(before, model.unet.buffers(), strict=True))


def test_a_saved_model_makes_the_same_crystals(learnt: DFCVAE, tmp_path: Path) -> None:
    learnt.save(tmp_path / "model")
    again = checkpoint.load(tmp_path / "model")
    first, second = (list(m.sample(20, torch.Generator().manual_seed(1))) for m in (learnt, again))
    assert len(first) == 20
    for a, b in zip(first, second, strict=True):
        if isinstance(a, StructureError):
            assert str(a) == str(b)
        else:
            np.testing.assert_array_equal(a.atomic_numbers, b.atomic_numbers)
            np.testing.assert_array_equal(a.frac_coords, b.frac_coords)
            np.testing.assert_array_equal(a.lattice, b.lattice)


def test_a_goal_is_the_condition_of_its_decile(learnt: DFCVAE, eight: CachedSplit) -> None:
    asked: list[int] = []

    def note(decoder: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        asked.extend(inputs[1].argmax(1).tolist())

    hook = learnt.decoder.register_forward_pre_hook(note)
    middle = float(learnt.deciles[4:6].mean())
    for goal in (Goal(-1), Goal(1), Goal(0, middle)):
        found = list(learnt.optimise(eight, [0, 3, 4], goal, 2, torch.Generator()))
        assert [len(one) for one in found] == [3, 3]
    hook.remove()
    assert asked == [0] * 6 + [9] * 6 + [5] * 6


def test_what_is_not_cubic_is_refused(learnt: DFCVAE) -> None:
    tall = crystal([29], [[0, 0, 0]], np.diag([3.6, 3.6, 3.7]))
    mixed = made_split([cubic_crystals()[0], tall])
    with pytest.raises(ConfigError, match="1 of the 2 crystals of made train"):
        DFCVAE.build(CONFIG, mixed)
    with pytest.raises(ConfigError, match="of the 1200 crystals of mp_like train"):
        config = replace(CONFIG, prop="formation_energy_per_atom", max_atoms=20)
        DFCVAE.build(config, open_split("mp_like", "train"))
    first, second = made(learnt, mixed, [1, 0])
    assert "not cubic" in str(first) and isinstance(first, StructureError)
    assert isinstance(second, Crystal)


def test_a_condition_needs_a_property(eight: CachedSplit) -> None:
    with pytest.raises(ConfigError, match=r"model\.prop is null"):
        DFCVAE.build(replace(CONFIG, prop=None), eight)
    with pytest.raises(DatasetError, match="no property 'gap'"):
        DFCVAE.build(replace(CONFIG, prop="gap"), eight)


@pytest.mark.parametrize("wrong", [{"voxels": 24}, {"voxels": 8}, {"padding": 0.0}])
def test_a_grid_that_cannot_be(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=f"model.{next(iter(wrong))}"):
        replace(CONFIG, **wrong)


@pytest.mark.parametrize("name", ["perov_5", "perov_5_small", "perov_like", "perov_like_small"])
def test_experiments_are_read(name: str) -> None:
    experiment = read(f"dfc_vae_{name}")
    assert isinstance(experiment.model, DFCVAEConfig)
    assert experiment.dataset == name.removesuffix("_small")
