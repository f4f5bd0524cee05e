"""The encoder: the sum over triplets as the papers write it, and what it must not depend on."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch
from scipy.special import eval_legendre
from torch import Tensor
from torch.nn.functional import silu

from cdvae_core.crystal import Crystal, CrystalBatch
from cdvae_core.errors import StructureError
from cdvae_core.graph import MultiGraph
from cdvae_core.nn.bessel import envelope_over_x, radial_bessel
from cdvae_core.nn.dimenet import DimeNetPlusPlus, Output

SMALL = dict(
    hidden=16,
    blocks=2,
    int_emb=8,
    basis_emb=4,
    out_emb=16,
    num_spherical=4,
    num_radial=3,
    out_dim=5,
)


def small_encoder(**changes: object) -> DimeNetPlusPlus:
    """A small encoder in float64, with a last layer that is not zero."""
    torch.manual_seed(7)
    encoder = DimeNetPlusPlus(**{**SMALL, **changes}).double()
    torch.nn.init.normal_(encoder.output.last)
    return encoder


def random_crystal(rng: np.random.Generator, num_atoms: int) -> Crystal:
    lengths, angles = rng.uniform(3.5, 6.0, 3), rng.uniform(70, 110, 3)
    return Crystal.from_parameters(
        lengths, angles, rng.random((num_atoms, 3)), rng.integers(1, 95, num_atoms)
    )


def perovskite(rng: np.random.Generator) -> Crystal:
    """The ideal structure: most of its triplets are collinear or at right angles."""
    sites = [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]
    return Crystal(np.r_[rng.integers(20, 60, 2), 8, 8, 8], np.array(sites), 4 * np.eye(3))


def bonds(crystals: list[Crystal], radius: float = 3.1) -> MultiGraph:
    """Every pair of atoms within `radius` Å, by brute force."""
    parts, first = [], 0
    cells = np.stack(np.meshgrid(*[np.arange(-2, 3)] * 3), -1).reshape(-1, 3)
    for crystal in crystals:
        frac = crystal.frac_coords
        vector = (frac[:, None] - frac[None])[None] + cells[:, None, None]  # cell, source, target
        length = np.linalg.norm(vector @ crystal.lattice, axis=-1)
        cell, source, target = np.nonzero((length < radius) & (length > 1e-6))
        order = np.argsort(target, kind="stable")
        parts.append(
            (source[order] + first, target[order] + first, cells[cell[order]].reshape(-1, 3))
        )
        first += crystal.num_atoms
    return MultiGraph(*(torch.as_tensor(np.concatenate(p)) for p in zip(*parts, strict=True)))


def twice(crystal: Crystal) -> Crystal:
    """The same crystal in a cell of double length."""
    shift = np.array([[1.0, 0.0, 0.0]])
    frac = np.concatenate([crystal.frac_coords, crystal.frac_coords + shift]) / [2, 1, 1]
    return Crystal(np.tile(crystal.atomic_numbers, 2), frac, np.diag([2, 1, 1]) @ crystal.lattice)


def encode(encoder: DimeNetPlusPlus, crystals: list[Crystal], graph: MultiGraph) -> Tensor:
    dtype = encoder.output.last.dtype
    with torch.no_grad():
        return encoder(CrystalBatch.from_crystals(crystals, dtype), graph)


@pytest.fixture(scope="module")
def crystals() -> list[Crystal]:
    rng = np.random.default_rng(0)
    return [random_crystal(rng, n) for n in (1, 2, 5, 8)] + [perovskite(rng)]


def reference(encoder: DimeNetPlusPlus, crystals: CrystalBatch, graph: MultiGraph) -> Tensor:
    """The equations of the papers edge by edge and triplet by triplet, nothing shared."""
    numbers, vector = crystals.atomic_numbers, graph.vectors(crystals)
    length = vector.norm(dim=1)
    x, edges = length / encoder.cutoff, len(length)
    unit, radial = vector / length[:, None], encoder.basis(x)
    order, shape = np.arange(encoder.num_spherical), (encoder.num_spherical, encoder.num_radial)
    bessel = radial_bessel(x, *shape).unflatten(1, shape) * envelope_over_x(x, 5)[:, None, None]
    triplets = []
    for ji in range(edges):
        for kj in range(edges):
            back = graph.source[kj] == graph.target[ji]
            if encoder.no_return_to == "image":
                back = back and (graph.image[kj] + graph.image[ji] == 0).all()
            if graph.target[kj] == graph.source[ji] and not back:
                cosine = (unit[ji] @ unit[kj]).item()
                angular = np.sqrt((2 * order + 1) / (4 * np.pi)) * eval_legendre(order, cosine)
                triplets.append(
                    (ji, kj, (bessel[kj] * torch.as_tensor(angular)[:, None]).flatten())
                )
    element = encoder.element(numbers - 1)
    parts = [element[graph.target], element[graph.source], silu(encoder.embed_radial(radial))]
    message = silu(encoder.embed(torch.cat(parts, 1)))
    atoms = reference_output(encoder, 0, message, radial, graph, len(numbers))
    for block, layer in enumerate(encoder.interactions):
        own, other = silu(layer.enter(message)).chunk(2, 1)
        other = silu(layer.down(other * layer.radial_up(layer.radial_down(radial))))
        heard = torch.zeros_like(other)
        for ji, kj, basis in triplets:
            heard[ji] += other[kj] * layer.spherical_up(layer.spherical_down(basis))
        message = message + silu(layer.skip(layer.before(own + silu(layer.up(heard)))))
        message = layer.after(message)
        atoms = atoms + reference_output(encoder, block + 1, message, radial, graph, len(numbers))
    return torch.stack([part.mean(0) for part in atoms.split(crystals.num_atoms.tolist())])


def reference_output(
    encoder: DimeNetPlusPlus,
    block: int,
    message: Tensor,
    radial: Tensor,
    graph: MultiGraph,
    num_atoms: int,
) -> Tensor:
    output = encoder.output
    weighted = message * (radial @ output.radial[block])
    atoms = torch.stack([weighted[graph.target == i].sum(0) for i in range(num_atoms)])
    atoms = atoms @ output.up_weight[block] + output.up_bias[block]
    for weight, bias in zip(output.weight, output.bias, strict=True):
        atoms = silu(atoms @ weight[block] + bias[block])
    return atoms @ output.last[block]


@pytest.mark.parametrize("rule", ["image", "atom"])
def test_the_equations_as_written(crystals: list[Crystal], rule: str) -> None:
    chosen = [*crystals[:3], crystals[4], twice(crystals[1])]
    batch, graph = CrystalBatch.from_crystals(chosen, torch.float64), bonds(chosen, 2.9)
    encoder = small_encoder(no_return_to=rule)
    with torch.no_grad():
        expected = reference(encoder, batch, graph)
    shared = encode(encoder, chosen, graph)
    assert torch.allclose(shared, expected, rtol=1e-10, atol=1e-11)
    batch.frac_coords.requires_grad_()  # no sharing of edges then
    assert torch.allclose(encoder(batch, graph), expected, rtol=1e-10, atol=1e-11)


def test_published_size() -> None:
    started = time.perf_counter()
    encoder = DimeNetPlusPlus()
    assert time.perf_counter() - started < 2  # 0.1 s on a free core
    assert sum(p.numel() for p in encoder.parameters()) == 2_213_510


def test_every_parameter_learns(crystals: list[Crystal]) -> None:
    encoder = small_encoder()
    encoder(
        CrystalBatch.from_crystals(crystals, torch.float64), bonds(crystals)
    ).square().sum().backward()
    for name, parameter in encoder.named_parameters():
        assert parameter.grad is not None, name
        rows = parameter.grad.flatten(1) if parameter.dim() > 1 else parameter.grad[:, None]
        if name == "element.weight":  # only the elements that are there
            rows = rows[
                torch.unique(torch.cat([torch.as_tensor(c.atomic_numbers) for c in crystals])) - 1
            ]
        assert rows.abs().amax(1).min() > 0, name


def test_output_starts_at_zero(crystals: list[Crystal]) -> None:
    encoder = DimeNetPlusPlus(**SMALL)
    assert encode(encoder, crystals, bonds(crystals)).abs().max() == 0


def test_permutation_translation_rotation(crystals: list[Crystal]) -> None:
    rng = np.random.default_rng(1)
    encoder = small_encoder()
    expected = encode(encoder, crystals, bonds(crystals))
    rotation = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    moved = []
    for crystal in crystals:
        order = rng.permutation(crystal.num_atoms)
        frac = crystal.frac_coords[order] + rng.normal(size=3)
        moved.append(Crystal(crystal.atomic_numbers[order], frac, crystal.lattice @ rotation))
    changed = encode(encoder, moved, bonds(moved)) - expected
    assert changed.abs().max() < 1e-9 * expected.abs().max()
    single = encoder.float()
    changed = encode(single, moved, bonds(moved)).double() - expected
    assert changed.abs().max() < 1e-4 * expected.abs().max()


def test_supercell_and_choice_of_cell(crystals: list[Crystal]) -> None:
    encoder = small_encoder()
    expected = encode(encoder, crystals, bonds(crystals))
    doubled, sheared = [], []
    for crystal in crystals:
        doubled.append(twice(crystal))
        change = np.array([[1, 0, 0], [1, 1, 0], [0, 0, 1]])
        frac = crystal.frac_coords @ np.linalg.inv(change)
        sheared.append(Crystal(crystal.atomic_numbers, frac, change @ crystal.lattice))
    for other in (doubled, sheared):
        graph = bonds(other)
        changed = encode(encoder, other, graph) - expected
        assert changed.abs().max() < 1e-9 * expected.abs().max()


def test_the_published_triplet_rule_depends_on_the_cell(crystals: list[Crystal]) -> None:
    """Why the rule is not the default."""
    one, two = [crystals[4]], [twice(crystals[4])]
    encoder = small_encoder(no_return_to="atom")
    small, large = encode(encoder, one, bonds(one)), encode(encoder, two, bonds(two))
    assert (small - large).abs().max() > 1e-3 * small.abs().max()


def test_a_crystal_does_not_see_its_batch(crystals: list[Crystal]) -> None:
    encoder = small_encoder()
    together = encode(encoder, crystals, bonds(crystals))
    alone = torch.cat([encode(encoder, [c], bonds([c])) for c in crystals])
    assert torch.allclose(together, alone, rtol=1e-11)


def test_the_order_of_edges_of_one_atom_does_not_matter(crystals: list[Crystal]) -> None:
    graph = bonds(crystals)
    shuffled = torch.randperm(len(graph.target), generator=torch.manual_seed(0))
    order = shuffled[torch.argsort(graph.target[shuffled], stable=True)]
    other = MultiGraph(graph.source[order], graph.target[order], graph.image[order])
    encoder = small_encoder()
    assert torch.allclose(encode(encoder, crystals, graph), encode(encoder, crystals, other))


def test_gradients_are_those_of_the_function() -> None:
    rng = np.random.default_rng(2)
    few = [random_crystal(rng, 2), perovskite(rng)]
    graph = bonds(few, 2.9)
    batch = CrystalBatch.from_crystals(few, torch.float64)
    encoder = small_encoder(blocks=1)

    def function(frac_coords: Tensor, lattice: Tensor, *_: Tensor) -> Tensor:
        return encoder(batch.replace(frac_coords=frac_coords, lattice=lattice), graph)

    inputs = (batch.frac_coords.requires_grad_(), batch.lattice.requires_grad_())
    weights = (
        encoder.interactions[0].down.weight,
        encoder.interactions[0].spherical_down.weight,
        encoder.basis.frequency,
        encoder.output.radial,
    )
    assert torch.autograd.gradcheck(function, (*inputs, *weights), fast_mode=True)


def test_collinear_and_coincident_atoms_stay_finite() -> None:
    chain = Crystal(np.array([6, 8]), np.array([[0, 0, 0], [0.5, 0, 0]]), np.diag([3.0, 9, 9]))
    same = Crystal(np.array([6, 8]), np.zeros((2, 3)), 4 * np.eye(3))
    graph = bonds([chain, same], 4.1)
    touching = torch.tensor([[2, 3], [3, 2]])
    source = torch.cat([graph.source, touching[0]])
    target = torch.cat([graph.target, touching[1]])
    image = torch.cat([graph.image, torch.zeros(2, 3, dtype=torch.long)])
    order = torch.argsort(target, stable=True)
    batch = CrystalBatch.from_crystals([chain, same], torch.float64)
    batch.frac_coords.requires_grad_()
    encoder = small_encoder()
    result = encoder(batch, MultiGraph(source[order], target[order], image[order]))
    result.sum().backward()
    assert torch.isfinite(result).all()
    gradients = [batch.frac_coords.grad, *(p.grad for p in encoder.parameters())]
    assert all(torch.isfinite(g).all() for g in gradients)


def test_isolated_atoms_and_an_empty_graph(crystals: list[Crystal]) -> None:
    encoder = small_encoder()
    empty = torch.zeros(0, dtype=torch.long)
    graph = MultiGraph(empty, empty, torch.zeros(0, 3, dtype=torch.long))
    nothing = encode(encoder, crystals, graph)
    assert torch.isfinite(nothing).all()
    assert torch.allclose(nothing, nothing[:1].expand_as(nothing))
    lonely = Crystal(np.array([2]), np.zeros((1, 3)), 20 * np.eye(3))
    mixed = encode(encoder, [lonely, *crystals], bonds([lonely, *crystals]))
    assert torch.allclose(mixed[0], nothing[0])
    assert torch.allclose(mixed[1:], encode(encoder, crystals, bonds(crystals)))
    batch = CrystalBatch.from_crystals(crystals, torch.float64)
    encoder(batch, graph).sum().backward()


def test_edges_beyond_the_cutoff_carry_nothing(crystals: list[Crystal]) -> None:
    encoder = small_encoder(cutoff=3.0)
    rng = np.random.default_rng(3)
    crystal = [random_crystal(rng, 4)]
    near, far = bonds(crystal, 3.0), bonds(crystal, 3.6)
    assert len(far.source) > len(near.source)
    encoder.embed_radial.bias.data.normal_()
    encoder.interactions = torch.nn.ModuleList()  # a far edge is still there, but not heard
    encoder.output = Output(1, 16, 16, 3, 3, 5).double()
    torch.nn.init.normal_(encoder.output.last)
    assert torch.allclose(encode(encoder, crystal, near), encode(encoder, crystal, far))


def test_bfloat16_autocast_stays_close(crystals: list[Crystal]) -> None:
    encoder = small_encoder().float()
    batch, graph = CrystalBatch.from_crystals(crystals), bonds(crystals)
    exact = encoder(batch, graph)
    with torch.autocast("cpu", torch.bfloat16):
        rough = encoder(batch, graph)
        rough.float().sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in encoder.parameters())
    assert (rough - exact).abs().max() < 0.05 * exact.abs().max()


def test_unknown_element() -> None:
    crystal = Crystal(np.array([99]), np.zeros((1, 3)), 3 * np.eye(3))
    with pytest.raises(StructureError, match="99"):
        encode(small_encoder(), [crystal], bonds([crystal]))
