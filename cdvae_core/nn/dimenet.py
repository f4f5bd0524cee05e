"""DimeNet++ on periodic multigraphs: the encoder PGNN_ENC (Appendix F.3 of the paper).

DimeNet (Gasteiger, Groß and Günnemann 2020; [D]) passes messages m_ji along directed edges
j -> i; each interaction block updates m_ji from the messages m_kj into j, weighted by the distance
d_kj and by the angle between the two edges. DimeNet++ (Gasteiger et al. 2020; [D++]) makes the
interaction a product in a small space. On a crystal an edge comes from a periodic image of j, and
a message is not sent straight back where it came from: k is not i in the same image.

Rewritings that leave the result as it is:
- With B = W2 W1, the triplet sum of [D++] is, per channel c, sum over k and l of
  Y_l(angle) U_kjlc, with U_kjlc = x_kjc sum_n R_ln(d_kj) B_lnc. Y depends on the geometry alone
  and is computed once for all blocks; what is left is one small matrix product per atom j, from
  its incoming to its outgoing edges.
- The layers of the output blocks run side by side, and their last linear map comes after the mean
  over atoms.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

from cdvae_core.crystal import CrystalBatch
from cdvae_core.errors import StructureError
from cdvae_core.graph import MultiGraph
from cdvae_core.nn.bessel import SHORTEST_EDGE, RadialBasis, envelope_over_x, radial_bessel
from cdvae_core.nn.layers import legendre

ELEMENTS = 95  # rows of the published table of embeddings; here H is the first
_IMAGE_BASE = 2048  # images along one axis stay far below half of this


class _Rearrange(torch.autograd.Function):
    """Rows between edges and slots. Each edge has one slot, so the gradient is a gather too.

    A slot without an edge receives some other edge's row, and its gradient goes nowhere: whoever
    reads the slots must weigh the empty ones with zero.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor, forth: Tensor, back: Tensor) -> Tensor:
        ctx.save_for_backward(back)
        return rows.index_select(0, forth)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        return gradient.index_select(0, ctx.saved_tensors[0]), None, None


@dataclass(frozen=True, eq=False)
class Slots:
    """Edges grouped by one of their atoms, in a dense layout.

    Attributes:
        edge: `[atoms * width]`, the edge in each slot, 0 where it is empty.
        filled: `[atoms, width]`, which slots hold an edge.
        slot: `[edges]`, the slot of each edge.
    """

    edge: Int[Tensor, " slots"]
    filled: Bool[Tensor, "atoms width"]
    slot: Int[Tensor, " edges"]

    @classmethod
    def group(cls, atom: Int[Tensor, " edges"], num_atoms: int) -> Slots:
        """Group edges by `atom`, which need not be sorted."""
        order = torch.argsort(atom, stable=True)
        degree = torch.bincount(atom, minlength=num_atoms)
        width = int(degree.max()) if num_atoms else 0
        first = degree.cumsum(0) - degree
        rank = torch.arange(len(atom), device=atom.device) - first[atom[order]]
        sorted_slot = atom[order] * width + rank
        edge = torch.zeros(num_atoms * width, dtype=torch.long, device=atom.device)
        edge[sorted_slot] = order
        slot = torch.empty_like(order)
        slot[order] = sorted_slot
        filled = torch.arange(width, device=atom.device) < degree[:, None]
        return cls(edge, filled, slot)

    def spread(self, rows: Tensor) -> Tensor:
        """`[edges, ...]` to `[atoms, width, ...]`; empty slots hold some other edge's row."""
        slots = _Rearrange.apply(rows, self.edge, self.slot)
        return slots.unflatten(0, self.filled.shape)

    def collect(self, slots: Tensor) -> Tensor:
        """`[atoms, width, ...]` to `[edges, ...]`."""
        return _Rearrange.apply(slots.flatten(0, 1), self.slot, self.edge)


@dataclass(frozen=True, eq=False)
class Geometry:
    """What the interaction blocks need to know of a graph.

    Attributes:
        radial: `[edges, num_radial]`, the basis of distances.
        spherical: `[edges, num_spherical, num_radial]`, the radial part of the basis of triplets.
        angular: `[atoms, outgoing, incoming * num_spherical]`, Y_l of the angle at atom j between
            its outgoing edge j -> i and its incoming edge k -> j; zero where there is no triplet.
        incoming, outgoing: the edges by target and by source.
    """

    radial: Float[Tensor, "edges num_radial"]
    spherical: Float[Tensor, "edges num_spherical num_radial"]
    angular: Float[Tensor, "atoms outgoing lk"]
    incoming: Slots
    outgoing: Slots


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
        basis = self.spherical_up.weight @ self.spherical_down.weight
        by_order = basis.T.unflatten(0, geometry.spherical.shape[1:])
        weight = torch.einsum("eln,lnc->elc", geometry.spherical, by_order)
        incoming = geometry.incoming.spread(weight * x[:, None]).flatten(1, 2)
        return geometry.outgoing.collect(geometry.angular @ incoming)


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
        self, messages: list[Tensor], geometry: Geometry, num_atoms: Int[Tensor, " crystals"]
    ) -> Float[Tensor, "crystals out_dim"]:
        weight = torch.matmul(geometry.radial, self.radial)  # [blocks, edges, hidden]
        slots = geometry.incoming.spread((torch.stack(messages) * weight).transpose(0, 1))
        filled = geometry.incoming.filled[:, :, None, None]
        atoms = (slots * filled).sum(1).transpose(0, 1)
        atoms = torch.baddbmm(self.up_bias, atoms, self.up_weight)
        for bias, layer in zip(self.bias, self.weight, strict=True):
            atoms = functional.silu(torch.baddbmm(bias, atoms, layer))
        mean = torch.segment_reduce(
            atoms.transpose(0, 1).flatten(1).to(self.last.dtype), "mean", lengths=num_atoms, axis=0
        )
        return mean @ self.last.flatten(0, 1)


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
        output_layers: hidden layers of each output block.
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
        geometry = self.geometry(crystals, graph)
        messages = [self._embed(crystals, graph, geometry.radial)]
        for interaction in self.interactions:
            messages.append(interaction(messages[-1], geometry))
        return self.output(messages, geometry, crystals.num_atoms)

    def geometry(self, crystals: CrystalBatch, graph: MultiGraph) -> Geometry:
        """Distances, angles and bases, in the precision of the coordinates (also in autocast)."""
        with torch.autocast(crystals.frac_coords.device.type, enabled=False):
            vector = graph.vectors(crystals)
            shortest = SHORTEST_EDGE * self.cutoff
            length = vector.square().sum(-1).clamp_min(shortest**2).sqrt()
            x = length / self.cutoff
            functions = radial_bessel(x, self.num_spherical, self.num_radial)
            spherical = functions * envelope_over_x(x, self.basis.exponent)[:, None]
            incoming = Slots.group(graph.target, len(crystals.atomic_numbers))
            outgoing = Slots.group(graph.source, len(crystals.atomic_numbers))
            direction = vector / length[:, None]
            cosine = outgoing.spread(direction) @ incoming.spread(direction).transpose(1, 2)
            angular = legendre(cosine, self.num_spherical, dim=-1)
            angular = angular * self._triplets(graph, incoming, outgoing)[..., None]
            return Geometry(
                self.basis(x),
                spherical.unflatten(1, (self.num_spherical, self.num_radial)),
                angular.flatten(2),
                incoming,
                outgoing,
            )

    def _triplets(
        self, graph: MultiGraph, incoming: Slots, outgoing: Slots
    ) -> Bool[Tensor, "atoms outgoing incoming"]:
        """Which pairs of an outgoing and an incoming edge of an atom j are a triplet."""
        origin, destination = graph.source, graph.target
        if self.no_return_to == "image":  # seen from j, k sits in image n_kj and i in -n_ji
            base = torch.tensor([_IMAGE_BASE**2, _IMAGE_BASE, 1], device=graph.source.device)
            code = (graph.image.long() * base).sum(-1)
            origin = origin * _IMAGE_BASE**3 + code
            destination = destination * _IMAGE_BASE**3 - code
        different = outgoing.spread(destination)[:, :, None] != incoming.spread(origin)[:, None]
        return different & outgoing.filled[:, :, None] & incoming.filled[:, None]

    def _embed(
        self, crystals: CrystalBatch, graph: MultiGraph, radial: Tensor
    ) -> Float[Tensor, "edges hidden"]:
        """The first messages ([D] Eq. 10), with the atoms' share of the product done per atom."""
        target, source, distance = self.embed.weight.split(self.element.embedding_dim, dim=1)
        atoms = self.element(crystals.atomic_numbers - 1)
        share = functional.linear(atoms, torch.cat([target, source]), None)
        of_target, of_source = share.split(len(target), dim=1)
        edges = functional.linear(
            functional.silu(self.embed_radial(radial)), distance, self.embed.bias
        )
        return functional.silu(edges + of_target[graph.target] + of_source[graph.source])
