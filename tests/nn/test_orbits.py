"""Which edges are found to be equal, and which triplets there are."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cdvae_core.crystal import Crystal, CrystalBatch
from cdvae_core.graph import MultiGraph
from cdvae_core.nn.orbits import Classes, symmetry_classes, triplets


def classes(crystal: Crystal, graph: MultiGraph, rounds: int = 3) -> tuple[Classes, Classes]:
    batch = CrystalBatch.from_crystals([crystal], torch.float64)
    vector = graph.vectors(batch)
    length = vector.norm(dim=1)
    unit = vector / length[:, None]
    ji, kj = triplets(graph, crystal.num_atoms, "image")
    cosine = (unit[ji] * unit[kj]).sum(1)
    return symmetry_classes(graph, batch.atomic_numbers, length, ji, kj, cosine, rounds)


def bonds(crystal: Crystal, radius: float) -> MultiGraph:
    cells = np.stack(np.meshgrid(*[np.arange(-2, 3)] * 3), -1).reshape(-1, 3)
    frac = crystal.frac_coords
    vector = (frac[:, None] - frac[None])[None] + cells[:, None, None]  # cell, source, target
    length = np.linalg.norm(vector @ crystal.lattice, axis=-1)
    cell, source, target = np.nonzero((length < radius) & (length > 1e-6))
    order = np.argsort(target, kind="stable")
    arrays = source[order], target[order], cells[cell[order]]
    return MultiGraph(*(torch.as_tensor(a) for a in arrays))


SITES = np.array([[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]])


def perovskite(shift: float = 0.0) -> Crystal:
    sites = SITES + np.array([0, 0, shift]) * (np.arange(5) == 1)[:, None]
    return Crystal(np.array([38, 22, 8, 8, 8]), sites, 4 * np.eye(3))


def test_an_ideal_perovskite_has_three_bonds() -> None:
    """Sr-O and Ti-O, each in two directions, O-O, and three kinds of atoms."""
    crystal = perovskite()
    graph = bonds(crystal, 2.9)
    assert len(graph.source) == 2 * (12 + 6) + 3 * 8
    edges, atoms = classes(crystal, graph)
    assert len(edges.first) == 5
    assert len(atoms.first) == 3
    assert atoms.of[2] == atoms.of[3] == atoms.of[4]
    assert torch.equal(edges.of[edges.first], torch.arange(5))


def test_a_displaced_atom_breaks_the_symmetry() -> None:
    """Ti moved along c: the axial oxygen differs from the others, and up differs from down.

    Orbits of bonds under 4mm: Ti-O up, down, in plane; Sr-O axial, up, down; O-O axial up, down,
    each in two directions; and O-O in plane, which is its own reverse.
    """
    crystal = perovskite(0.05)
    edges, atoms = classes(crystal, bonds(crystal, 2.9))
    assert len(atoms.first) == 4
    assert atoms.of[3] == atoms.of[4] != atoms.of[2]
    assert len(edges.first) == 2 * (3 + 3 + 2) + 1


def test_a_random_crystal_has_no_equal_edges() -> None:
    rng = np.random.default_rng(0)
    crystal = Crystal(np.full(6, 6), rng.random((6, 3)), 5 * np.eye(3) + 0.3 * rng.random((3, 3)))
    graph = bonds(crystal, 3.0)
    edges, atoms = classes(crystal, graph)
    assert len(edges.first) == len(graph.source)
    assert len(atoms.first) == 6


def test_rotation_does_not_split_classes() -> None:
    crystal = perovskite()
    rotation = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0]
    turned = Crystal(crystal.atomic_numbers, crystal.frac_coords, crystal.lattice @ rotation)
    assert len(classes(turned, bonds(turned, 2.9))[0].first) == 5


def test_a_message_never_returns_to_its_image() -> None:
    """A chain -A-A- of one atom per cell: onward is a triplet, back is not."""
    image = torch.tensor([[1, 0, 0], [-1, 0, 0]])
    zero = torch.zeros(2, dtype=torch.long)
    graph = MultiGraph(zero, zero, image)
    ji, kj = triplets(graph, 1, "image")
    assert list(zip(ji.tolist(), kj.tolist(), strict=True)) == [(0, 0), (1, 1)]
    assert len(triplets(graph, 1, "atom")[0]) == 0


@pytest.mark.parametrize("rule", ["image", "atom"])
def test_triplets_by_brute_force(rule: str) -> None:
    rng = np.random.default_rng(2)
    crystal = Crystal(np.full(4, 6), rng.random((4, 3)), 4.2 * np.eye(3))
    graph = bonds(crystal, 3.6)
    expected = set()
    for a, (s, t, n) in enumerate(zip(graph.source, graph.target, graph.image, strict=True)):
        for b, (r, q, m) in enumerate(zip(graph.source, graph.target, graph.image, strict=True)):
            back = r == t and (rule == "atom" or bool((n + m == 0).all()))
            if q == s and not back:
                expected.add((a, b))
    ji, kj = triplets(graph, 4, rule)
    assert (ji.diff() >= 0).all()
    assert len(ji) == len(expected)
    assert set(zip(ji.tolist(), kj.tolist(), strict=True)) == expected
