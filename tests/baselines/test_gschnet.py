"""G-SchNet and P-G-SchNet: their geometry, their distributions, and that they learn."""

from __future__ import annotations

import sys
from functools import cache, partial
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[1] / "core"))
from examples import crystals, made_split, perovskites, prototypes, rebased, rotation

from cdvae_core.baseline_configs import GSchNetConfig, PGSchNetConfig
from cdvae_core.baselines import checkpoint
from cdvae_core.baselines.atom_by_atom import AtomByAtom
from cdvae_core.baselines.gschnet import GSchNet, boxes, clusters, fitted_padding
from cdvae_core.baselines.p_gschnet import Cell, PGSchNet, pairwise_distances, shortest_vector
from cdvae_core.baselines.placements import (
    draw_states,
    is_atom,
    needed_reach,
    padded,
    with_focus,
)
from cdvae_core.baselines.schnet import ABSENT, ORIGIN, STOP, NextAtom
from cdvae_core.crystal import Crystal, CrystalBatch
from cdvae_core.errors import StructureError
from cdvae_core.lattice import minkowski_reduce

SIZES = {"features": 32, "interactions": 2, "bins": 80, "farthest": 8.0, "max_atoms": 8}
BOTH = pytest.mark.parametrize("cls", [GSchNet, PGSchNet])


def config(cls: type[AtomByAtom]) -> GSchNetConfig:
    return (PGSchNetConfig if cls is PGSchNet else GSchNetConfig)(**SIZES)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def untrained(cls: type[AtomByAtom], given: list[Crystal]) -> AtomByAtom:
    torch.manual_seed(0)
    return cls.build(config(cls), made_split(given)).eval()


def whole(model: AtomByAtom, given: list[Crystal]) -> dict[str, torch.Tensor]:
    return model.examples(made_split(given)).__getitems__(list(range(len(given))))


def train(model: AtomByAtom, given: list[Crystal], steps: int) -> None:
    batch, generator = whole(model, given), seeded(1)
    optimiser = torch.optim.AdamW(model.parameters(), 1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 1e-2, total_steps=steps)
    for step in range(steps):
        sum(model.losses(batch, generator, step / steps).values()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
        schedule.step()


@cache
def overfitted(cls: type[AtomByAtom]) -> AtomByAtom:
    model = untrained(cls, perovskites(8))
    train(model, perovskites(8), 200)
    return model


# Distances ---


def tensors(crystal: Crystal) -> tuple[torch.Tensor, torch.Tensor]:
    """`[1, atoms, 3]` and `[1, 3, 3]`, in double precision."""
    return torch.as_tensor(crystal.frac_coords)[None], torch.as_tensor(crystal.lattice)[None]


@given(crystals(most=8))
def test_periodic_distances_are_those_of_ase(crystal: Crystal) -> None:
    frac, lattice = tensors(crystal)
    atoms = Atoms(
        crystal.atomic_numbers, scaled_positions=crystal.frac_coords, cell=lattice[0], pbc=True
    )
    found = pairwise_distances(frac, minkowski_reduce(lattice))[0].numpy()
    np.testing.assert_allclose(found, atoms.get_all_distances(mic=True), atol=1e-8)


@given(crystals(most=1))
def test_an_atom_hears_itself_from_its_nearest_image(crystal: Crystal) -> None:
    images = np.array(list(np.ndindex(9, 9, 9))) - 4
    lattice = minkowski_reduce(torch.as_tensor(crystal.lattice)[None])
    lengths = np.linalg.norm(images @ lattice.matrix[0].numpy(), axis=1)
    assert float(shortest_vector(lattice)) == pytest.approx(lengths[lengths > 1e-9].min())


@given(crystals(most=8), st.integers(0, 2**16))
def test_a_cluster_holds_the_atoms_at_images_in_any_basis(crystal: Crystal, seed: int) -> None:
    frac, lattice = tensors(crystal)
    positions = clusters(frac, torch.ones(frac.shape[:2], dtype=torch.bool), lattice)
    shifts = positions @ torch.linalg.inv(lattice) - frac
    shifts = shifts - shifts[:, :1]
    np.testing.assert_allclose(shifts, shifts.round(), atol=1e-7)
    np.testing.assert_allclose(positions.mean(1), 0, atol=1e-8)


def test_equal_crystals_give_congruent_clusters() -> None:
    perovskite = prototypes()["perovskite"]
    shaken = perovskite.frac_coords + 1e-6 * np.random.default_rng(0).normal(size=(20, 5, 3))
    batch = CrystalBatch.from_crystals(
        [Crystal(perovskite.atomic_numbers, frac, perovskite.lattice) for frac in shaken],
        torch.float64,
    )
    batch = rebased(batch)
    frac = batch.frac_coords.view(20, 5, 3)
    found = clusters(frac, torch.ones(20, 5, dtype=torch.bool), batch.lattice)
    distance = torch.cdist(found, found).flatten(1).sort(1).values
    np.testing.assert_allclose(distance, distance[:1].expand_as(distance), atol=1e-4)
    to_boron_site = found[:, 1:2] - found[:, 2:]
    np.testing.assert_allclose(to_boron_site.norm(dim=-1), 1.95, atol=1e-4)


@given(st.integers(1, 8), st.integers(0, 2**16))
def test_the_box_holds_the_cluster_wherever_it_lies(atoms: int, seed: int) -> None:
    generator = seeded(seed)
    positions = torch.randn(1, atoms, 3, generator=generator, dtype=torch.float64) * 3
    there = torch.ones(1, atoms, dtype=torch.bool)
    inside, extents = boxes(positions, there)
    assert (inside > -1e-9).all() and (inside <= extents[:, None] + 1e-9).all()
    np.testing.assert_allclose(
        torch.cdist(inside, inside), torch.cdist(positions, positions), atol=1e-8
    )
    moved = positions @ rotation(seed) + torch.randn(3, generator=generator)
    beyond = torch.nn.functional.pad(moved, (0, 0, 0, 2))
    _, again = boxes(beyond, torch.nn.functional.pad(there, (0, 2)))
    np.testing.assert_allclose(again, extents, atol=1e-6)


def test_the_padding_gives_boxes_the_volume_of_cells() -> None:
    extents = torch.tensor([[0.0, 0.0, 0.0], [1.0, 2.0, 0.0]])
    padding = fitted_padding(extents, (extents + 2.5).prod(1))
    assert float(padding) == pytest.approx(2.5, abs=1e-4)
    assert float(fitted_padding(extents + 9, torch.ones(2))) == pytest.approx(1.0)


# States ---


@BOTH
def test_states_are_parts_of_orders_within_reach(cls: type[AtomByAtom]) -> None:
    given = [*prototypes().values(), *perovskites(4)]
    model = untrained(cls, given)
    batch = whole(model, given)
    numbers, distance, reach = batch["numbers"], batch["distance"], batch["reach"]
    draw = partial(draw_states, numbers, distance, reach, model.periodic)
    for seed in range(10):
        states = draw(seeded(seed))
        of = states.structure
        assert set(of.tolist()) == set(range(len(given)))
        assert (numbers[of][states.placed] != ABSENT).all()
        begins = ~(states.placed & is_atom(numbers[of])).any(1)
        next_placed = states.placed.gather(1, states.following[:, None])[:, 0]
        assert (next_placed == states.stops).all()
        step = distance[of, states.focus, states.following]
        assert (step[~begins] <= reach[of][~begins]).all()
        left = is_atom(numbers[of]) & ~states.placed
        near = (distance[of, states.focus] <= reach[of][:, None]) & left
        assert (states.stops == ~near.any(1))[~begins].all()
        if model.periodic:
            assert left.any(1).all()


def test_reach_is_the_longest_link_that_is_needed() -> None:
    line = torch.tensor([0.0, 1.0, 3.0, 3.5])
    distance = (line[:, None] - line).abs()[None]
    numbers = torch.tensor([[ORIGIN, 6, 6, 6]])
    assert float(needed_reach(numbers, distance)) == 2.0
    assert float(needed_reach(numbers.where(numbers == ORIGIN, 6), distance)) == 2.0
    assert float(needed_reach(torch.tensor([[6, ABSENT, ABSENT, 6]]), distance)) == 3.5


# Distributions ---


def expectations(
    model: AtomByAtom, batch: dict[str, torch.Tensor], sites: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Of the next type, and of the distance from each node to an oxygen, all but one site placed.

    Args:
        sites: `[sites]`, an order; its first site is the focus, its last one is left out.
    """
    numbers = batch["numbers"][:, sites].clone()
    numbers[:, -1] = ABSENT
    distance = batch["distance"][:, sites][:, :, sites]
    focus = torch.zeros(len(numbers), dtype=torch.long)
    types, nodes = with_focus(numbers, distance, batch["own_image"], focus)
    network: NextAtom = model.network
    features = network.schnet(types, nodes)
    log_types = network.log_types(features, types != ABSENT, model.choices)
    log_distances = network.log_distances(features, torch.full_like(focus, 8))
    return log_types.detach(), log_distances.detach()


@BOTH
def test_probabilities_sum_to_one(cls: type[AtomByAtom]) -> None:
    model = untrained(cls, perovskites(4))
    batch = whole(model, perovskites(4))
    for found in expectations(model, batch, torch.arange(batch["numbers"].shape[1])):
        np.testing.assert_allclose(found.exp().sum(-1), 1, atol=1e-5)


@BOTH
def test_a_distance_is_spread_over_the_bins_about_it(cls: type[AtomByAtom]) -> None:
    model = untrained(cls, perovskites(4))
    smeared = model.smeared(torch.tensor([0.0, 2.3, 7.0, 50.0]))
    np.testing.assert_allclose(smeared.sum(1), 1, atol=1e-6)
    centre = smeared.argmax(1) * model.bin_width
    np.testing.assert_allclose(centre, [0.0, 2.3, 7.0, 8.0], atol=model.bin_width / 2 + 1e-6)


@BOTH
def test_the_order_of_sites_does_not_matter(cls: type[AtomByAtom]) -> None:
    model = untrained(cls, perovskites(4))
    batch = whole(model, perovskites(4))
    count = batch["numbers"].shape[1]
    order = torch.arange(count)
    other = torch.tensor([0, *range(count - 2, 0, -1), count - 1])
    types, distances = expectations(model, batch, order)
    types_other, distances_other = expectations(model, batch, other)
    np.testing.assert_allclose(types, types_other, atol=1e-4)
    nodes = torch.cat([torch.zeros(1, dtype=torch.long), 1 + other[:-1]])
    np.testing.assert_allclose(distances[:, nodes], distances_other[:, :-1], atol=1e-4)


@BOTH
@settings(max_examples=10)
@given(seed=st.integers(0, 2**16))
def test_neither_place_nor_basis_matters(cls: type[AtomByAtom], seed: int) -> None:
    shaken = [Crystal(c.atomic_numbers, c.frac_coords + 0.02, c.lattice) for c in perovskites(3)]
    turned = [
        Crystal(c.atomic_numbers, c.frac_coords + 0.3, c.lattice @ rotation(seed).numpy())
        for c in shaken
    ]
    batch = CrystalBatch.from_crystals(turned, torch.float64)
    model = untrained(cls, shaken)
    here, there = whole(model, shaken), whole(model, rebased(batch, seed).to_crystals())
    order = torch.arange(here["numbers"].shape[1])
    for one, other in zip(
        expectations(model, here, order), expectations(model, there, order), strict=True
    ):
        np.testing.assert_allclose(one, other, atol=2e-3)


# Candidates ---


@BOTH
def test_candidates_stay_in_the_shell(cls: type[AtomByAtom]) -> None:
    model = untrained(cls, perovskites(8))
    low, high = model.shell.tolist()
    generator = seeded()
    for space in model.spaces(4, generator):
        sites = 0 if model.periodic else 1
        for _ in range(5):
            focus = sites - 1 if sites else 0
            found = space.candidates(focus)
            assert found.shape[0] == 1 + sites
            if sites > (0 if model.periodic else 1):
                assert found[0].min() >= low and found[0].max() <= high
                np.testing.assert_allclose(found[0], found[1 + focus], atol=1e-6)
            space.place(int(torch.randint(found.shape[1], (1,), generator=generator)))
            sites += 1


@given(crystals(most=1, shortest=2.5), st.integers(0, 2**16))
def test_the_grid_of_a_cell_knows_its_distances(crystal: Crystal, seed: int) -> None:
    lattice = minkowski_reduce(torch.as_tensor(crystal.lattice, dtype=torch.float32)[None]).matrix
    if torch.linalg.det(lattice).abs() > 500:
        return  # a grid of more points says no more
    cell, generator = Cell(lattice[0], 4, torch.tensor([0.0, 50.0])), seeded(seed)
    expected = [0.0]
    for site in range(4):
        found = cell.candidates(0)
        taken = int(torch.randint(found.shape[1], (1,), generator=generator))
        if site:
            expected.append(float(found[1, taken]))
        cell.place(taken)
    made = cell.crystal([6] * 4)
    frac = torch.as_tensor(made.frac_coords, dtype=torch.float32)[None]
    distance = pairwise_distances(frac, minkowski_reduce(lattice))
    np.testing.assert_allclose(distance[0, 0], expected, atol=1e-4)


def test_a_crystal_that_cannot_be_made_is_an_error_in_its_place() -> None:
    model = untrained(PGSchNet, perovskites(8))
    model.shell = torch.tensor([50.0, 60.0])  # no cell is so large
    made = list(model.sample(5, seeded()))
    assert len(made) == 5 and all(isinstance(one, StructureError) for one in made)


@BOTH
def test_nothing_ends_before_its_first_atom(cls: type[AtomByAtom]) -> None:
    model = untrained(cls, perovskites(8))
    with torch.no_grad():  # so that the end is always the likeliest
        model.network.schnet.embedding.weight[STOP] *= 100
    sizes = [one.num_atoms for one in model.sample(20, seeded())]
    assert min(sizes) == (5 if model.periodic else 1)


# Learning ---


@BOTH
def test_the_likelihood_of_held_out_placements_improves(cls: type[AtomByAtom]) -> None:
    model = untrained(cls, perovskites(24, 0))
    held_out = whole(model, perovskites(12, 1))

    def losses() -> dict[str, float]:
        with torch.no_grad():
            found = model.losses(held_out, seeded(5), 0.0)
        return {name: float(value) for name, value in found.items()}

    before = losses()
    train(model, perovskites(24, 0), 50)
    after = losses()
    assert after["type"] < 0.8 * before["type"]
    assert after["distance"] < 0.8 * before["distance"]


@BOTH
def test_eight_crystals_are_learnt_by_heart(cls: type[AtomByAtom]) -> None:
    """Independent draws of A and B would give one of the eight compositions in an eighth of all."""
    made = list(overfitted(cls).sample(24, seeded()))
    known = {one.formula: one for one in perovskites(8)}
    like = [one for one in made if isinstance(one, Crystal) and one.formula in known]
    assert len(like) >= 14
    off = [abs(bond(one, cls) - bond(known[one.formula], PGSchNet)) for one in like]
    assert np.median(off) < 0.2


def bond(crystal: Crystal, cls: type[AtomByAtom]) -> float:
    """Å from B to its nearest O, within the cell alone if the system knows no other."""
    frac, lattice = tensors(crystal)
    if cls is GSchNet:
        found = torch.cdist(frac @ lattice, frac @ lattice)[0]
    else:
        found = pairwise_distances(frac, minkowski_reduce(lattice))[0]
    oxygen = crystal.atomic_numbers == 8
    return float(found[~oxygen][:, oxygen].min())


def test_the_periodic_one_takes_size_and_lattice_from_its_data() -> None:
    given = [prototypes()["rocksalt"], *perovskites(4)]
    known = {(one.num_atoms, round(one.volume, 2)) for one in given}
    made = list(untrained(PGSchNet, given).sample(12, seeded()))
    assert {(one.num_atoms, round(one.volume, 2)) for one in made} <= known


def test_the_box_keeps_images_apart() -> None:
    model = overfitted(GSchNet)
    for one in model.sample(16, seeded()):
        if isinstance(one, Crystal):
            np.testing.assert_allclose(one.angles, 90, atol=1e-6)
            assert one.lengths.min() >= float(model.padding) - 1e-6


@BOTH
def test_a_saved_model_samples_the_same(cls: type[AtomByAtom], tmp_path: Path) -> None:
    model = overfitted(cls)
    model.save(tmp_path)
    again = checkpoint.load(tmp_path)
    assert type(again) is cls
    for one, other in zip(model.sample(6, seeded()), again.sample(6, seeded()), strict=True):
        assert type(one) is type(other)
        if isinstance(one, Crystal):
            np.testing.assert_array_equal(one.atomic_numbers, other.atomic_numbers)
            np.testing.assert_array_equal(one.frac_coords, other.frac_coords)
            np.testing.assert_array_equal(one.lattice, other.lattice)


def test_padding_is_no_atom() -> None:
    given = [prototypes()["fcc"], prototypes()["rocksalt"]]
    (_, numbers, _), *_ = padded(made_split(given))
    assert (numbers != ABSENT).sum(1).tolist() == [1, 8]
    assert STOP not in numbers
