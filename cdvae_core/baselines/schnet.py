"""SchNet (Schütt et al. 2018), and what G-SchNet (Gebauer et al. 2019) reads from its features.

A partial structure is the types of its nodes, which are atoms and tokens, and the distances between
them. Nothing else is seen of its geometry, so nothing here depends on how it lies in space, on the
order of its nodes or on the basis of a cell. Structures are small: distances are dense matrices,
padded by nodes of type `ABSENT`, and an infinite distance is no edge.
"""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

from cdvae_core.baseline_configs import GSchNetConfig
from cdvae_core.crystal import MAX_ATOMIC_NUMBER
from cdvae_core.nn.layers import GaussianBasis

# Types besides the atomic numbers: padding, the two tokens, and the type that ends a focus.
ABSENT, ORIGIN, FOCUS, STOP = 0, MAX_ATOMIC_NUMBER + 1, MAX_ATOMIC_NUMBER + 2, MAX_ATOMIC_NUMBER + 3
_HEAD_LAYERS = 5


class ShiftedSoftplus(nn.Module):
    """log(1 + exp(x)) - log 2."""

    def forward(self, x: Tensor) -> Tensor:
        return functional.softplus(x) - math.log(2)


def dense(fan_in: int, fan_out: int, bias: bool = True) -> nn.Linear:
    """A linear map as SchNet begins it."""
    layer = nn.Linear(fan_in, fan_out, bias)
    nn.init.xavier_uniform_(layer.weight)
    if bias:
        nn.init.zeros_(layer.bias)
    return layer


def head(fan_in: int, fan_out: int) -> nn.Sequential:
    """Five layers, their widths evenly between those of the first and the last."""
    widths = np.linspace(fan_in, fan_out, _HEAD_LAYERS + 1).astype(int).tolist()
    layers: list[nn.Module] = []
    for width, following in pairwise(widths):
        layers += [dense(width, following), ShiftedSoftplus()]
    return nn.Sequential(*layers[:-1])


class Interaction(nn.Module):
    """A continuous-filter convolution: each node adds up what it hears from the others."""

    def __init__(self, features: int, gaussians: int) -> None:
        super().__init__()
        self.filter = nn.Sequential(
            dense(gaussians, features), ShiftedSoftplus(), dense(features, features)
        )
        self.before = dense(features, features, bias=False)
        self.after = nn.Sequential(
            dense(features, features), ShiftedSoftplus(), dense(features, features)
        )

    def forward(
        self,
        x: Float[Tensor, "structures nodes features"],
        edge: Bool[Tensor, "structures nodes nodes"],
        basis: Float[Tensor, "edges gaussians"],
        weight: Float[Tensor, "edges 1"],
    ) -> Float[Tensor, "structures nodes features"]:
        found = self.filter(basis) * weight
        filters = found.new_zeros(*edge.shape, found.shape[-1])
        filters[edge] = found
        heard = torch.einsum("sijf,sjf->sif", filters, self.before(x))
        return x + self.after(heard)


class SchNet(nn.Module):
    """Features of every node: an embedding of its type, then interactions."""

    def __init__(self, config: GSchNetConfig) -> None:
        super().__init__()
        self.cutoff = config.cutoff
        spacing = config.cutoff / max(config.gaussians - 1, 1)
        self.basis = GaussianBasis(config.gaussians, config.cutoff, spacing)
        self.embedding = nn.Embedding(STOP + 1, config.features, padding_idx=ABSENT)
        self.interactions = nn.ModuleList(
            Interaction(config.features, config.gaussians) for _ in range(config.interactions)
        )

    def forward(
        self,
        types: Int[Tensor, "structures nodes"],
        distance: Float[Tensor, "structures nodes nodes"],
    ) -> Float[Tensor, "structures nodes features"]:
        """Those of absent nodes mean nothing. Distances are in Å, infinite where no edge is."""
        edge = distance < self.cutoff
        length = distance[edge]
        basis = self.basis(length)
        weight = (1 + (length * (math.pi / self.cutoff)).cos())[:, None] / 2
        x = self.embedding(types)
        for interaction in self.interactions:
            x = interaction(x, edge, basis, weight)
        return x


class NextAtom(nn.Module):
    """What the next atom is, and how far it will be from each node."""

    def __init__(self, config: GSchNetConfig) -> None:
        super().__init__()
        self.schnet = SchNet(config)
        self.type_head = head(config.features, 1)
        self.distance_head = head(config.features, config.bins)

    def log_types(
        self,
        features: Float[Tensor, "structures nodes features"],
        present: Bool[Tensor, "structures nodes"],
        choices: Int[Tensor, " choices"],
    ) -> Float[Tensor, "structures choices"]:
        """The product of what every present node expects, normalised: log-probabilities."""
        matched = features[present][:, None] * self.schnet.embedding(choices)
        expected = self.type_head(matched).squeeze(-1).log_softmax(-1)
        of_node = expected.new_zeros(*present.shape, len(choices))
        of_node[present] = expected
        return of_node.sum(1).log_softmax(-1)

    def log_distances(
        self,
        features: Float[Tensor, "structures nodes features"],
        following: Int[Tensor, " structures"],
    ) -> Float[Tensor, "structures nodes bins"]:
        """For each node, log-probabilities of its distance to a next atom of a given type."""
        matched = features * self.schnet.embedding(following)[:, None]
        return self.distance_head(matched).log_softmax(-1)
