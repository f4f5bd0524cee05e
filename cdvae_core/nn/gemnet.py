"""The decoder's network: GemNet-dT on a dense periodic KNN graph (D.3, F.3).

GemNet (Gasteiger et al. 2021) passes messages m between the edges of an atom. Here an edge c -> a
is slot c of atom a in a `KnnGraph`, so edges are `[atoms, K, features]`, the triplets c -> a <- b
are `[atoms, K, K]`, and no operation scatters. What differs from the published decoder:

* every message is weighted by the envelope of its edge (see `graph`), through radial bases without
  bias, so the output is continuous and independent of the order of atoms;
* a message reaches the other end of its edge only where that end hears this atom too, weighted by
  the reverse edge's envelope, where GemNet assumes that every edge has a reverse;
* a linear map of a concatenation [h_a, h_c, m] is computed as three products, two of them per
  atom; the bilinear layer's radial and angular weights are contracted once for all blocks;
* constant factors between linear maps (gains of activations, 1 / sqrt 2 of sums, scale factors) are
  multiplied into the maps' weights;
* the branch of the output blocks that predicts energies is left out: nothing used it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from cdvae_core.config import DecoderConfig
from cdvae_core.crystal import MAX_ATOMIC_NUMBER
from cdvae_core.graph import KnnGraph
from cdvae_core.nn.layers import (
    GAIN,
    HALF,
    GaussianBasis,
    Linear,
    Residual,
    Residuals,
    Scale,
    activate,
    legendre,
)
from cdvae_core.nn.quadruplet import QuadrupletInteraction


@dataclass(frozen=True)
class EdgeBasis:
    """What the geometry says of each edge, each zero where the edge's envelope is.

    Attributes:
        triplet, atom, force: `[atoms, K, basis]`, radial bases of the three uses of an edge.
        angular: `[atoms, K * basis, K]`, the bilinear layer's weights of b in c -> a <- b.
    """

    triplet: Tensor
    atom: Tensor
    force: Tensor
    angular: Tensor


class EdgeBasisLayer(nn.Module):
    """Radial and angular bases, projected to the few dimensions that the blocks use."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.degrees, self.size = config.num_spherical, config.basis_emb
        self.gaussians = GaussianBasis(config.num_radial, config.cutoff, config.radial_width)
        self.project = Linear(config.num_radial, self.size * (3 + self.degrees))

    def forward(self, graph: KnnGraph) -> tuple[Tensor, EdgeBasis]:
        """The radial basis `[atoms, K, num_radial]` and its projections."""
        radial = self.gaussians(graph.distance) * graph.envelope[..., None]
        parts = self.project(radial)
        triplet, atom, force, rest = parts.split([self.size] * 3 + [self.size * self.degrees], -1)
        atoms, k = graph.neighbour.shape
        cosine = graph.direction @ graph.direction.transpose(1, 2)
        other = 1 - torch.eye(k, device=cosine.device, dtype=cosine.dtype)  # b is not c
        zonal = legendre(cosine, self.degrees, dim=2) * other[:, None]
        weights = rest.reshape(atoms * k, self.size, self.degrees)
        angular = torch.bmm(weights, zonal.view(atoms * k, self.degrees, k).to(weights.dtype))
        return radial, EdgeBasis(triplet, atom, force, angular.view(atoms, k * self.size, k))


class EdgeEmbedding(nn.Module):
    """silu(W [h_a, h_c, m]) for every edge c -> a, the atoms' share computed per atom."""

    def __init__(self, atom_width: int, edge_width: int, out_width: int) -> None:
        super().__init__()
        whole = Linear(2 * atom_width + edge_width, out_width).weight.detach()
        self.of_target = Linear(atom_width, out_width)
        self.of_source = Linear(atom_width, out_width)
        self.of_edge = Linear(edge_width, out_width)
        parts = whole.split([atom_width, atom_width, edge_width], dim=1)
        for layer, part in zip((self.of_target, self.of_source, self.of_edge), parts, strict=True):
            layer.weight.data.copy_(part)

    def forward(
        self, h: Tensor, m: Tensor, neighbour: Int[Tensor, "atoms K"], factor: float = 1.0
    ) -> Tensor:
        """Without the gain; of `factor * m`."""
        source = self.of_source(h)[neighbour]
        return activate(self.of_edge(m, factor) + source + self.of_target(h)[:, None])


class TripletInteraction(nn.Module):
    """What the other edges b -> a of the target tell the edge c -> a, by distance and angle."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        width, inner = config.hidden, config.triplet_emb
        self.of_message = Linear(width, width)
        self.of_radius = Linear(config.basis_emb, width)
        self.down = Linear(width, inner)
        self.bilinear = Linear(config.basis_emb * inner, inner)
        self.up_same = Linear(inner, width)
        self.up_reverse = Linear(inner, width)
        self.scale_radius, self.scale_sum = Scale(), Scale()

    def forward(self, m: Tensor, basis: EdgeBasis, graph: KnnGraph) -> Tensor:
        """Still to be multiplied by `GAIN * HALF`."""
        atoms, k, _ = m.shape
        x = activate(self.of_message(m))
        x = x * self.of_radius(basis.triplet, self.scale_radius.factor * GAIN)
        x = activate(self.down(self.scale_radius.folded(x)))
        mixed = torch.bmm(basis.angular.to(x.dtype), x).view(atoms, k, -1)
        mixed = self.scale_sum.folded(self.bilinear(mixed, self.scale_sum.factor * GAIN))
        other_end = self.across(mixed, graph)
        return activate(self.up_same(mixed)) + activate(self.up_reverse(other_end))

    @staticmethod
    def across(mixed: Tensor, graph: KnnGraph) -> Tensor:
        """What the reverse of each edge says, as far as there is one."""
        reverse = mixed.flatten(0, 1)[graph.reverse]
        return reverse * graph.reverse_envelope[..., None].to(reverse.dtype)


class AtomUpdate(nn.Module):
    """Messages summed into their target atom."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.of_radius = Linear(config.basis_emb, config.hidden)
        self.scale = Scale()
        self.dense = Linear(config.hidden, config.hidden)
        self.residuals = Residuals(config.hidden, 3)

    def forward(self, m: Tensor, radial: Tensor, factor: float) -> Tensor:
        """Of `factor * m`."""
        x = self.scale((m * self.of_radius(radial, factor)).sum(1))
        x, factor = self.residuals(activate(self.dense(x)), GAIN)
        return x * factor


class InteractionBlock(nn.Module):
    """Edges talk to edges, then to atoms, then hear from atoms."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        width = config.hidden
        self.skip = Linear(width, width)
        self.triplets = TripletInteraction(config)
        self.quadruplets = QuadrupletInteraction(config) if config.quadruplets else None
        self.before_skip = Residual(width)
        self.after_skip = Residuals(width, 2)
        self.atom_update = AtomUpdate(config)
        self.edge_embedding = EdgeEmbedding(width, width, width)
        self.edge_residual = Residual(width)
        self.scale_atoms, self.scale_edges = Scale(), Scale()

    def forward(
        self, h: Tensor, m: Tensor, basis: EdgeBasis, graph: KnnGraph
    ) -> tuple[Tensor, Tensor]:
        x = torch.add(activate(self.skip(m)), self.triplets(m, basis, graph), alpha=HALF)
        factor = GAIN * HALF
        if self.quadruplets is not None:
            x = torch.add(x, self.quadruplets(m, basis.triplet, graph), alpha=GAIN / factor)
            factor *= HALF
        x, factor = self.before_skip(x, factor)
        m, factor = self.after_skip(torch.add(m, x, alpha=factor), HALF)
        h = self.scale_atoms(h + self.atom_update(m, basis.atom, factor))
        x = self.edge_embedding(h, m, graph.neighbour, factor)
        x, factor_x = self.edge_residual(x, GAIN)
        return h, self.scale_edges(torch.add(m, x, alpha=factor_x / factor), factor)


class OutputBlock(nn.Module):
    """One number per edge: how strongly it pushes its target atom along its direction."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        width = config.hidden
        self.of_radius = Linear(config.basis_emb, width)
        self.scale = Scale()
        self.dense = Linear(width, width)
        self.residuals = Residuals(width, 3)
        self.force = Linear(width, 1)

    def forward(self, m: Tensor, radial: Tensor) -> Tensor:
        x = self.scale.folded(m * self.of_radius(radial, self.scale.factor))
        x, factor = self.residuals(activate(self.dense(x)), GAIN)
        return self.force(x, factor)[..., 0]


class GemNet(nn.Module):
    """Scores and types of noisy crystals, given the latent of the clean one.

    SE(3)-equivariant in the score and invariant in the types; permutation, translation and the
    choice of the cell change neither.
    """

    def __init__(self, config: DecoderConfig, latent_dim: int) -> None:
        super().__init__()
        width = config.hidden
        self.element = nn.Embedding(MAX_ATOMIC_NUMBER, width)
        nn.init.uniform_(self.element.weight, -(3**0.5), 3**0.5)
        self.of_element = nn.Linear(width, width)
        self.of_latent = nn.Linear(latent_dim, width, bias=False)
        self.basis = EdgeBasisLayer(config)
        self.edge_embedding = EdgeEmbedding(width, config.num_radial, width)
        self.blocks = nn.ModuleList(InteractionBlock(config) for _ in range(config.blocks))
        self.outputs = nn.ModuleList(OutputBlock(config) for _ in range(config.blocks + 1))
        self.scale_score = Scale()
        self.types = nn.Linear(width, MAX_ATOMIC_NUMBER)

    def forward(
        self,
        latent: Float[Tensor, "atoms latent"],
        atomic_numbers: Int[Tensor, " atoms"],
        graph: KnnGraph,
    ) -> tuple[Float[Tensor, "atoms 3"], Float[Tensor, "atoms 100"]]:
        """Score vectors (without unit: times sigma they are Å) and logits of the elements 1..100.

        Args:
            latent: what `embed_latent` made of z, for each atom's crystal.
            atomic_numbers: noisy types.
            graph: neighbours of the noisy coordinates.
        """
        radial, basis = self.basis(graph)
        h = self.of_element(self.element(atomic_numbers - 1)) + latent
        m = self.edge_embedding(h, radial, graph.neighbour) * GAIN
        push = self.outputs[0](m, basis.force)
        for block, output in zip(self.blocks, self.outputs[1:], strict=True):
            h, m = block(h, m, basis, graph)
            push = push + output(m, basis.force)
        score = (push.to(graph.direction.dtype)[..., None] * graph.direction).sum(1)
        return self.scale_score(score), self.types(h)

    def embed_latent(self, z: Float[Tensor, "crystals latent"]) -> Tensor:
        """z's share of the first atom embedding, `[crystals, hidden]`; constant in a trajectory."""
        return self.of_latent(z)

    def fit_scales(self, *inputs: Tensor | KnnGraph) -> None:
        """Set every `Scale` from one forward pass over `forward`'s inputs."""
        scales = [m for m in self.modules() if isinstance(m, Scale)]
        for scale in scales:
            scale.fitting = True
        with torch.no_grad():
            self(*inputs)
        for scale in scales:
            scale.fitting = False
