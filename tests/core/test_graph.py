"""The periodic K nearest neighbours against brute force, and what makes them continuous."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from examples import batch, brute_images, crystals, permuted, prototypes, shaken
from examples import crystal as make
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pymatgen.core import Structure

from cdvae_core.crystal import Crystal
from cdvae_core.graph import (
    KnnGraph,
    MultiGraph,
    envelope,
    knn_graph,
    periodic_images,
    shortest_distances,
)


def brute_distances(crystal: Crystal, reach: int) -> np.ndarray:
    """`[atoms, atoms * images]` distances to every other atom, ascending."""
    frac = crystal.frac_coords[None] - crystal.frac_coords[:, None]
    cart = (frac[:, :, None] + brute_images(reach)) @ crystal.lattice
    distance = np.linalg.norm(cart, axis=-1)
    home = distance.shape[-1] // 2
    distance[np.arange(len(frac)), np.arange(len(frac)), home] = np.inf
    return np.sort(distance.reshape(len(frac), -1), axis=1)


def enough(crystal: Crystal, distances: np.ndarray, k: int, reach: int) -> bool:
    """Whether images within `reach` cells hold the k + 1 nearest for certain."""
    spacing = 1 / np.linalg.norm(np.linalg.inv(crystal.lattice), axis=0)
    return bool(distances[:, k].max() < reach * spacing.min())


@settings(max_examples=120)
@given(crystals(most=20, shears=1), st.integers(1, 20), st.sampled_from([math.inf, 7.0, 3.0]))
def test_neighbours_against_brute_force(crystal: Crystal, k: int, cutoff: float) -> None:
    reach = next(r for r in (3, 6, 12, 20) if r == 20 or crystal.num_atoms * r**3 > 25000
                 or enough(crystal, brute_distances(crystal, r), k, r))  # fmt: skip
    expected = brute_distances(crystal, reach)
    assume(enough(crystal, expected, k, reach))
    graph = knn_graph(batch([crystal]), k, cutoff)
    assert np.abs(graph.distance - np.minimum(expected[:, :k], cutoff)).max() < 1e-9
    horizon = torch.as_tensor(np.minimum(expected[:, k : k + 1], cutoff))
    weight = envelope(torch.as_tensor(expected[:, :k]) / horizon)
    assert np.abs(graph.envelope - weight).max() < 1e-7


@settings(max_examples=40)
@given(crystals(most=6, shears=2))
def test_neighbours_against_pymatgen(crystal: Crystal) -> None:
    k = 12
    graph = knn_graph(batch([crystal]), k, math.inf)
    structure = Structure(crystal.lattice, crystal.atomic_numbers, crystal.frac_coords)
    radius = float(graph.distance.max()) + 1e-6
    assume(radius < 12)
    centre, _, _, distance = structure.get_neighbor_list(radius)
    for atom in range(crystal.num_atoms):
        expected = np.sort(distance[centre == atom])[:k]
        assert np.abs(graph.distance[atom].numpy() - expected).max() < 1e-8


@settings(max_examples=60)
@given(st.lists(crystals(most=8, shears=2), min_size=2, max_size=4))
def test_a_batch_holds_the_graphs_of_its_crystals(given_crystals: list[Crystal]) -> None:
    together = knn_graph(batch(given_crystals), 8, 7.0)
    alone = torch.cat([knn_graph(batch([c]), 8, 7.0).distance for c in given_crystals])
    assert (together.distance - alone).abs().max() < 1e-9


@settings(max_examples=60)
@given(crystals(most=12, shears=2), st.integers(2, 20))
def test_directions_lead_to_the_neighbours(crystal: Crystal, k: int) -> None:
    given_batch = batch([crystal])
    graph = knn_graph(given_batch, k, 7.0)
    heard = graph.envelope > 0
    away = graph.distance[..., None] * graph.direction
    frac = given_batch.frac_coords
    source = (
        torch.einsum("aki,ij->akj", away, torch.linalg.inv(given_batch.lattice[0])) + frac[:, None]
    )
    off = source - frac[graph.neighbour]
    if heard.any():
        cart = (off - off.round()) @ given_batch.lattice[0]
        assert cart[heard].abs().max() < 1e-8
        assert (graph.direction[heard].norm(dim=-1) - 1).abs().max() < 1e-9
    assert (graph.direction[~heard] == 0).all()


def check_reverses(graph: KnnGraph) -> None:
    """Edges a <- c that c hears back are joined with that edge, all others with none."""
    k = graph.neighbour.shape[1]
    heard = graph.envelope > 0
    there = graph.reverse_envelope > 0
    other_atom, slot = graph.reverse // k, graph.reverse % k
    atom = torch.arange(len(graph.neighbour))[:, None].expand_as(graph.neighbour)
    both = heard & there
    assert torch.equal(other_atom[both], graph.neighbour[both])
    assert torch.equal(graph.neighbour[other_atom, slot][both], atom[both])
    there_and_back = graph.direction + graph.direction[other_atom, slot]
    assert there_and_back[both].abs().max() < 1e-6 if both.any() else True
    assert torch.equal(graph.reverse_envelope[both], graph.envelope[other_atom, slot][both])
    # and no reverse is missed: c hears a wherever c's horizon lies beyond their distance
    vectors = graph.direction * graph.distance[..., None]
    for a, e in heard.logical_and(~there).nonzero().tolist():
        c = graph.neighbour[a, e]
        back = (vectors[c] + vectors[a, e]).norm(dim=-1) < 1e-5
        assert not (back & heard[c] & (graph.neighbour[c] == a)).any()


@settings(max_examples=60)
@given(crystals(most=12, shears=2), st.integers(2, 20))
def test_reverse_edges_truly_reverse(crystal: Crystal, k: int) -> None:
    check_reverses(knn_graph(batch([crystal]), k, 7.0))


def test_reverse_edges_of_symmetric_crystals() -> None:
    graph = knn_graph(batch(prototypes().values()), 20, 7.0)
    check_reverses(graph)
    single = knn_graph(batch([prototypes()["simple cubic"]]), 20, 7.0)
    assert torch.equal(single.reverse_envelope, single.envelope)  # each atom sees itself in all


def test_atoms_far_outside_the_cell_have_the_same_neighbours() -> None:
    inside = shaken(batch(prototypes().values()), 0.2)
    cells_away = torch.randint(-40, 41, inside.frac_coords.shape).double()
    outside = inside.replace(frac_coords=inside.frac_coords + cells_away)
    one, other = knn_graph(inside, 12, 7.0), knn_graph(outside, 12, 7.0)
    assert (one.distance - other.distance).abs().max() < 1e-9
    check_reverses(other)


def test_known_shells() -> None:
    known = prototypes()
    fcc = knn_graph(batch([known["fcc"]]), 20, 7.0)
    near = 3.6 / 2**0.5
    assert torch.allclose(fcc.distance[0, :12], torch.tensor(near).double())
    assert torch.allclose(fcc.distance[0, 12:18], torch.tensor(3.6).double())
    octahedron = knn_graph(batch([known["perovskite"]]), 6, 7.0)
    assert (octahedron.neighbour[1] >= 2).all()  # Ti sees six O
    assert torch.allclose(octahedron.distance[1], torch.tensor(1.95).double())


def test_few_neighbours_in_a_big_empty_cell() -> None:
    lonely = make([18, 18], [[0, 0, 0], [0.2, 0, 0]], 20 * np.eye(3))
    graph = knn_graph(batch([lonely]), 20, 7.0)
    assert torch.allclose(graph.distance[:, 0], torch.tensor(4.0).double())
    assert (graph.distance[:, 1:] == 7).all() and (graph.envelope[:, 1:] == 0).all()
    assert torch.allclose(graph.envelope[:, 0], envelope(torch.tensor(4 / 7).double()))
    assert torch.equal(graph.reverse_envelope[:, 0], graph.envelope[:, 0])
    alone = knn_graph(batch([make([18], [[0, 0, 0]], 20 * np.eye(3))]), 20, 7.0)
    assert (alone.envelope == 0).all() and (alone.direction == 0).all()
    assert alone.direction.isfinite().all() and alone.distance.isfinite().all()


def test_two_atoms_in_one_place() -> None:
    graph = knn_graph(batch([make([6, 6], [[0, 0, 0]] * 2, 4 * np.eye(3))]), 8, 7.0)
    assert graph.distance[0, 0] == 0 and graph.neighbour[0, 0] == 1
    assert graph.direction.isfinite().all() and graph.envelope.isfinite().all()


@settings(max_examples=40)
@given(crystals(most=8, shears=2))
def test_order_of_atoms_changes_nothing_that_is_heard(crystal: Crystal) -> None:
    given_batch = batch([crystal])
    turned, order = permuted(given_batch)
    one, other = knn_graph(given_batch, 12, 7.0), knn_graph(turned, 12, 7.0)
    assert (one.distance[order] - other.distance).abs().max() < 1e-9
    pull = (one.envelope[..., None] * one.direction).sum(1)
    assert ((other.envelope[..., None] * other.direction).sum(1) - pull[order]).abs().max() < 1e-7


def test_envelope_leaves_smoothly() -> None:
    x = torch.tensor([0.0, 0.5, 1.0, 2.0], dtype=torch.float64, requires_grad=True)
    value = envelope(x)
    (slope,) = torch.autograd.grad(value.sum(), x, create_graph=True)
    (bend,) = torch.autograd.grad(slope.sum(), x)
    assert value[0] == 1 and 0 < value[1] < 1
    assert value[2:].abs().max() < 1e-12
    assert slope[2:].abs().max() < 1e-11 and bend[2:].abs().max() < 1e-9
    fine = envelope(torch.linspace(0, 1.2, 2001, dtype=torch.float64))
    assert (fine.diff() <= 1e-12).all() and (fine >= 0).all() and (fine <= 1).all()


@settings(max_examples=60)
@given(crystals(most=3, shears=4), st.sampled_from([1, 6, 20]))
def test_images_reach_the_neighbour_after_the_last(crystal: Crystal, k: int) -> None:
    """Twice the images find no other neighbours."""
    given_batch = batch([crystal])
    images = periodic_images(given_batch.lattice, given_batch.num_atoms, k, math.inf)
    wide = periodic_images(given_batch.lattice, given_batch.num_atoms, 8 * k + 8, math.inf)
    assert images.shift.shape[1] <= wide.shift.shape[1]
    one = knn_graph(given_batch, k, math.inf, images)
    other = knn_graph(given_batch, k, math.inf, wide)
    assert (one.distance - other.distance).abs().max() < 1e-9
    assert (one.envelope - other.envelope).abs().max() < 1e-7


@settings(max_examples=40)
@given(crystals(most=8, shears=2))
def test_shortest_distance_against_brute_force(crystal: Crystal) -> None:
    expected = brute_distances(crystal, 8)[:, 0].min()
    assert shortest_distances(batch([crystal]))[0] == pytest.approx(expected, abs=1e-9)


def test_shortest_distance_counts_own_images() -> None:
    thin = make([6], [[0, 0, 0]], np.diag([1.3, 5, 5]))
    known = prototypes()
    found = shortest_distances(batch([thin, known["perovskite"], known["sparse"]]))
    assert torch.allclose(found, torch.tensor([1.3, 1.95, 9.0]).double())


def test_multigraph_vectors() -> None:
    crystal = prototypes()["perovskite"]
    both = batch([crystal, crystal])
    graph = MultiGraph(
        torch.tensor([2, 7]), torch.tensor([1, 6]), torch.tensor([[0, 0, 0], [0, 0, 1]])
    )
    expected = torch.tensor([[0, 0, -1.95], [0, 0, 1.95]], dtype=torch.float64)
    assert torch.allclose(graph.vectors(both), expected)


def test_autocast_leaves_the_geometry_as_it_is() -> None:
    """In bfloat16 a coordinate has two digits, and 0.01 Å is nothing."""
    given_batch = shaken(batch(prototypes().values(), torch.float32), 0.1)
    graph = knn_graph(given_batch, 12, 7.0)
    with torch.autocast("cpu", torch.bfloat16):
        cast = knn_graph(given_batch, 12, 7.0)
        cart = given_batch.cart_coords
    for name, value in vars(graph).items():
        assert getattr(cast, name).dtype == value.dtype
        assert torch.equal(getattr(cast, name), value)
    assert torch.equal(cart, given_batch.cart_coords)
