"""DimeNet++ on periodic multigraphs: the encoder PGNN_ENC (Appendix F.3 of the paper).

DimeNet (Gasteiger, Groß and Günnemann 2020; [D]) passes messages m_ji along directed edges
j -> i; each interaction block updates m_ji from the messages m_kj into j, weighted by the distance
d_kj and by the angle between the two edges. DimeNet++ (Gasteiger et al. 2020; [D++]) makes the
interaction a product in a small space. On a crystal an edge comes from a periodic image of j, and
a message is not sent straight back where it came from: k is not i in the same image.

Rewritings that leave the result as it is:
- Edges that carry equal messages by symmetry are computed once (`orbits`), and so are atoms.
- Products with concatenations are sums of products, those with elements done once per element.
- The output blocks run side by side. Their first two linear maps, with nothing between them, are
  one, and their last comes after the mean over atoms.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from cdvae_core.crystal import CrystalBatch
from cdvae_core.errors import StructureError
from cdvae_core.graph import MultiGraph
from cdvae_core.nn.bessel import SHORTEST_EDGE, RadialBasis, envelope_over_x, radial_bessel
from cdvae_core.nn.layers import legendre
from cdvae_core.nn.orbits import Classes, symmetry_classes, triplets

ELEMENTS = 95  # rows of the published table of embeddings; here H is the first


@dataclass(frozen=True, eq=False)
class Geometry:
    """What the layers need to know of a graph. Edges and atoms stand for their classes: one each.

    Attributes:
        radial: `[edges, num_radial]`, the basis of distances.
        spherical: `[triplets, num_spherical * num_radial]`, the basis of distances and angles.
        ji, kj: `[triplets]`, each triplet's outgoing and incoming edge of atom j.
        edge, atom: `[incidences]`, which edges end at which atoms, as often as they do.
        num_atoms: classes of atoms.
        atom_class: `[atoms of the batch]`.
    """

    radial: Float[Tensor, "edges num_radial"]
    spherical: Float[Tensor, "triplets num_functions"]
    ji: Int[Tensor, " triplets"]
    kj: Int[Tensor, " triplets"]
    edge: Int[Tensor, " incidences"]
    atom: Int[Tensor, " incidences"]
    num_atoms: int
    atom_class: Int[Tensor, " all_atoms"]


def _sum_by(rows: Tensor, index: Tensor, size: int) -> Tensor:
    """`[rows, ...]` summed into `[size, ...]`."""
    return rows.new_zeros(size, *rows.shape[1:]).index_add(0, index, rows)


def glorot_orthogonal_(weight: Tensor) -> None:
    """Orthogonal, with the variance 2 / (fan_in + fan_out) ([D], Appendix)."""
    with torch.no_grad():
        nn.init.orthogonal_(weight)
        weight.mul_((2.0 / (sum(weight.shape) * weight.var())) ** 0.5)


def _linear(fan_in: int, fan_out: int, bias: bool = True) -> nn.Linear:
    layer = nn.Linear(fan_in, fan_out, bias)
    glorot_orthogonal_(layer.weight)
    if bias:
        nn.init.zeros_(layer.bias)
    return layer


class Residual(nn.Module):
    """x + silu(W' silu(W x + b) + b')."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = _linear(width, width)
        self.second = _linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + functional.silu(self.second(functional.silu(self.first(x))))


class Interaction(nn.Module):
    """One update of the messages ([D++], Figure 1)."""

    def __init__(
        self, hidden: int, int_emb: int, basis_emb: int, num_spherical: int, num_radial: int
    ) -> None:
        super().__init__()
        self.hidden = hidden
        self.enter = nn.Linear(hidden, 2 * hidden)  # for m_ji itself, and for m_kj
        for half in self.enter.weight.data.split(hidden):
            glorot_orthogonal_(half)
        nn.init.zeros_(self.enter.bias)
        self.radial_down = _linear(num_radial, basis_emb, bias=False)
        self.radial_up = _linear(basis_emb, hidden, bias=False)
        self.spherical_down = _linear(num_spherical * num_radial, basis_emb, bias=False)
        self.spherical_up = _linear(basis_emb, int_emb, bias=False)
        self.down = _linear(hidden, int_emb, bias=False)
        self.up = _linear(int_emb, hidden, bias=False)
        self.before = Residual(hidden)
        self.skip = _linear(hidden, hidden)
        self.after = nn.Sequential(Residual(hidden), Residual(hidden))

    def forward(
        self, message: Float[Tensor, "edges hidden"], geometry: Geometry
    ) -> Float[Tensor, "edges hidden"]:
        own, other = functional.silu(self.enter(message)).split(self.hidden, dim=-1)
        radial = geometry.radial @ (self.radial_up.weight @ self.radial_down.weight).T
        other = functional.silu(self.down(other * radial))
        new = own + functional.silu(self.up(self._triplets(other, geometry)))
        new = functional.silu(self.skip(self.before(new))) + message
        return self.after(new)

    def _triplets(
        self, x: Float[Tensor, "edges int_emb"], geometry: Geometry
    ) -> Float[Tensor, "edges int_emb"]:
        """The sum over the incoming edges of j, for every edge j -> i."""
        weight = self.spherical_up(self.spherical_down(geometry.spherical))
        return _sum_by(x.index_select(0, geometry.kj) * weight, geometry.ji, len(x))


class Output(nn.Module):
    """The output blocks of [D++], all at once: messages to atoms to one vector per crystal."""

    def __init__(
        self, blocks: int, hidden: int, out_emb: int, num_radial: int, layers: int, out_dim: int
    ) -> None:
        super().__init__()
        self.radial = nn.Parameter(torch.empty(blocks, num_radial, hidden))
        self.up_weight = nn.Parameter(torch.empty(blocks, hidden, out_emb))
        self.up_bias = nn.Parameter(torch.empty(blocks, 1, out_emb))
        self.weight = nn.Parameter(torch.empty(layers, blocks, out_emb, out_emb))
        self.bias = nn.Parameter(torch.zeros(layers, blocks, 1, out_emb))
        self.last = nn.Parameter(torch.zeros(blocks, out_emb, out_dim))
        for matrix in (*self.radial, *self.up_weight, *self.weight.flatten(0, 1)):
            glorot_orthogonal_(matrix.data)
        nn.init.uniform_(self.up_bias, -1 / math.sqrt(hidden), 1 / math.sqrt(hidden))

    def forward(
        self, messages: list[Tensor], geometry: Geometry, crystals: CrystalBatch
    ) -> Float[Tensor, "crystals out_dim"]:
        blocks, _, hidden = self.radial.shape
        weight = geometry.radial @ self.radial.transpose(0, 1).flatten(1)
        edges = torch.stack(messages, 1) * weight.unflatten(1, (blocks, hidden))
        atoms = _sum_by(edges.index_select(0, geometry.edge), geometry.atom, geometry.num_atoms)
        enter = self.up_weight @ self.weight[0]  # nothing stands between these two maps
        shift = torch.baddbmm(self.bias[0], self.up_bias, self.weight[0])
        atoms = functional.silu(torch.baddbmm(shift, atoms.transpose(0, 1), enter))
        for bias, layer in zip(self.bias[1:], self.weight[1:], strict=True):
            atoms = functional.silu(torch.baddbmm(bias, atoms, layer))
        atoms = atoms.transpose(0, 1).flatten(1).index_select(0, geometry.atom_class)
        total = _sum_by(atoms.to(self.last.dtype), crystals.crystal_of_atom, crystals.num_crystals)
        return total / crystals.num_atoms[:, None] @ self.last.flatten(0, 1)


class DimeNetPlusPlus(nn.Module):
    """The encoder: crystals with a graph of bonds to one vector each, the mean over atoms.

    Invariant to the order of atoms, to rotation, translation and the choice of the cell. The last
    layer starts at zero, as in the published code, and so does the output.

    Args:
        hidden: width of the messages.
        blocks: interaction blocks.
        int_emb: width of the triplet interaction.
        basis_emb: width between the two maps of a basis.
        out_emb: width of the output blocks.
        num_spherical, num_radial: angular and radial basis functions.
        cutoff: c in Å; longer edges carry nothing.
        out_dim: width of the result.
        envelope_exponent: p - 1 in the envelope.
        output_layers: hidden layers of each output block, at least one.
        no_return_to: which triplets k -> j -> i are left out: "image", those with k = i in the
            same periodic image ([D]); "atom", those with k = i in any image, the rule of the
            published code, under which the result depends on the choice of the cell.
    """

    def __init__(
        self,
        hidden: int = 128,
        blocks: int = 4,
        int_emb: int = 64,
        basis_emb: int = 8,
        out_emb: int = 256,
        num_spherical: int = 7,
        num_radial: int = 6,
        cutoff: float = 7.0,
        out_dim: int = 256,
        envelope_exponent: int = 5,
        output_layers: int = 3,
        no_return_to: Literal["image", "atom"] = "image",
    ) -> None:
        super().__init__()
        self.num_spherical, self.num_radial = num_spherical, num_radial
        self.cutoff, self.no_return_to = cutoff, no_return_to
        self.basis = RadialBasis(num_radial, envelope_exponent)
        self.element = nn.Embedding(ELEMENTS, hidden)
        nn.init.uniform_(self.element.weight, -math.sqrt(3), math.sqrt(3))
        self.embed_radial = nn.Linear(num_radial, hidden)
        self.embed = nn.Linear(3 * hidden, hidden)  # of target, source, distance
        sizes = (hidden, int_emb, basis_emb, num_spherical, num_radial)
        self.interactions = nn.ModuleList(Interaction(*sizes) for _ in range(blocks))
        self.output = Output(blocks + 1, hidden, out_emb, num_radial, output_layers, out_dim)

    def forward(
        self, crystals: CrystalBatch, graph: MultiGraph
    ) -> Float[Tensor, "crystals out_dim"]:
        """Encode a batch.

        Args:
            crystals: atomic numbers up to 95.
            graph: edges among them.

        Raises:
            StructureError: an element beyond the table of embeddings.
        """
        heaviest = int(crystals.atomic_numbers.max())
        if heaviest > ELEMENTS:
            raise StructureError(
                f"atomic number {heaviest} is beyond the encoder's table of {ELEMENTS} elements"
            )
        with torch.autocast(crystals.frac_coords.device.type, enabled=False):
            geometry, ends = self._geometry(crystals, graph)
        messages = [self._embed(crystals.atomic_numbers, ends, geometry.radial)]
        for interaction in self.interactions:
            messages.append(interaction(messages[-1], geometry))
        return self.output(messages, geometry, crystals)

    def _geometry(
        self, crystals: CrystalBatch, graph: MultiGraph
    ) -> tuple[Geometry, Int[Tensor, "edges 2"]]:
        """Bases in the precision of the coordinates, and the target and source of each edge."""
        numbers = crystals.atomic_numbers
        vector = graph.vectors(crystals)
        length = vector.square().sum(-1).clamp_min((SHORTEST_EDGE * self.cutoff) ** 2).sqrt()
        direction = vector / length[:, None]
        ji, kj = triplets(graph, len(numbers), self.no_return_to)
        cosine = (direction[ji] * direction[kj]).sum(-1)
        if torch.is_grad_enabled() and vector.requires_grad:  # each edge has its own gradient
            edges = Classes.singletons(len(length), length.device)
            atoms = Classes.singletons(len(numbers), length.device)
        else:
            edges, atoms = symmetry_classes(
                graph, numbers, length, ji, kj, cosine, len(self.interactions)
            )
        x = length[edges.first] / self.cutoff
        kept = torch.zeros_like(graph.source, dtype=torch.bool).index_fill_(0, edges.first, True)
        kept = kept[ji]
        ji, kj, cosine = edges.of[ji[kept]], edges.of[kj[kept]], cosine[kept]
        chosen = torch.zeros_like(numbers, dtype=torch.bool).index_fill_(0, atoms.first, True)
        chosen = chosen[graph.target]
        return Geometry(
            self.basis(x),
            self._spherical(x, cosine, kj),
            ji,
            kj,
            edges.of[chosen],
            atoms.of[graph.target[chosen]],
            len(atoms.first),
            atoms.of,
        ), torch.stack([graph.target, graph.source], 1)[edges.first]

    def _spherical(
        self, x: Float[Tensor, " edges"], cosine: Float[Tensor, " triplets"], kj: Tensor
    ) -> Float[Tensor, "triplets num_functions"]:
        """[D] Eq. 6 with its envelope: the product of a function of d_kj and one of the angle."""
        radial = radial_bessel(x, self.num_spherical, self.num_radial)
        radial = radial * envelope_over_x(x, self.basis.exponent)[:, None]
        radial = radial.unflatten(1, (self.num_spherical, self.num_radial))
        angular = legendre(cosine, self.num_spherical, dim=-1)
        return (radial.index_select(0, kj) * angular[..., None]).flatten(1)

    def _embed(
        self, numbers: Int[Tensor, " atoms"], ends: Int[Tensor, "edges 2"], radial: Tensor
    ) -> Float[Tensor, "edges hidden"]:
        """The first messages ([D] Eq. 10), with the elements' share of the product done once."""
        target, source, distance = self.embed.weight.split(self.element.embedding_dim, dim=1)
        row = numbers[ends] - 1
        bond = functional.silu(self.embed_radial(radial))
        message = functional.linear(bond, distance, self.embed.bias)
        for which, weight in enumerate((target, source)):
            share = functional.linear(self.element.weight, weight)
            message = message + functional.embedding(row[:, which], share)
        return functional.silu(message)
