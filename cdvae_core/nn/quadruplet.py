"""The quadruplet interaction of GemNet-Q and -dQ: c -> a <- b <- d.

GemNet describes a quadruplet by two distances, two angles and the dihedral angle about a - b. The
dihedral is undefined where three atoms are in line. The angle between the directions of c - a and
d - b, together with the two plane angles, says the same (its cosine is a product of their sines
and the dihedral's cosine, plus a product of their cosines) and is smooth everywhere. Its Legendre
polynomials split into spherical harmonics of the two directions, so the sum over d is one moment
per atom b, and the cost is that of triplets.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cdvae_core.config import DecoderConfig
from cdvae_core.graph import KnnGraph
from cdvae_core.nn.layers import GAIN, Linear, Scale, activate, legendre

_DEGREES = 3  # l = 0, 1, 2 of the d - b direction
_HARMONICS = _DEGREES**2


def harmonics(direction: Tensor) -> Tensor:
    """Real spherical harmonics up to l = 2 of unit vectors `[..., 3]`, as `[..., 9]`.

    Scaled so that for each l the product of two, summed over m, is P_l of the angle between.
    """
    x, y, z = direction.unbind(-1)
    one = torch.ones_like(x)
    r3 = 3**0.5
    second = [r3 * x * y, r3 * y * z, (3 * z * z - 1) / 2, r3 * x * z, r3 / 2 * (x * x - y * y)]
    return torch.stack([one, x, y, z, *second], -1)


class QuadrupletInteraction(nn.Module):
    """What the edges d -> b of a neighbour b tell the edge c -> a."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        width, inner = config.hidden, config.triplet_emb // 2
        self.of_message = Linear(width, width)
        self.of_far_radius = Linear(config.basis_emb, width)
        self.down = Linear(width, inner)
        self.of_near_radius = Linear(config.basis_emb, inner)
        self.mix = Linear(_DEGREES * config.num_spherical * inner, inner)
        self.up = Linear(inner, width)
        self.scale_far, self.scale_near, self.scale_sum = Scale(), Scale(), Scale()
        self.degrees = config.num_spherical

    def forward(self, m: Tensor, radial: Tensor, graph: KnnGraph) -> Tensor:
        """Still to be multiplied by `GAIN`.

        Args: m `[atoms, K, hidden]`; radial, the triplet basis `[atoms, K, basis]`.
        """
        atoms, k, _ = m.shape
        x = activate(self.of_message(m))
        x = x * self.of_far_radius(radial, self.scale_far.factor * GAIN)
        x = activate(self.down(self.scale_far.folded(x)))  # [b, d, inner], zero where d leaves b
        y = harmonics(graph.direction).to(x.dtype)
        moment = torch.einsum("bdy,bdf->byf", y, x)
        # of b's moment, the share of the edge a -> b is no quadruplet
        own = x.flatten(0, 1)[graph.reverse] * (graph.reverse_envelope > 0)[..., None]
        back = harmonics(-graph.direction).to(x.dtype)
        near = self.of_near_radius(radial, self.scale_near.factor * GAIN)  # zero where b leaves a
        seen = moment[graph.neighbour] - back[..., None] * own[:, :, None]
        seen = self.scale_near.folded(seen * near[:, :, None])  # [a, b, y, inner]
        cosine = graph.direction @ graph.direction.transpose(1, 2)
        other = 1 - torch.eye(k, device=cosine.device, dtype=cosine.dtype)
        angle = legendre(cosine, self.degrees, dim=2) * other[:, None]
        swept = torch.bmm(
            angle.to(x.dtype).reshape(atoms, k * self.degrees, k), seen.reshape(atoms, k, -1)
        ).view(atoms, k, self.degrees, _HARMONICS, -1)
        turned = swept * y[:, :, None, :, None]
        by_degree = [part.sum(3) for part in turned.split([1, 3, 5], dim=3)]
        mixed = torch.stack(by_degree, 3).flatten(2)
        mixed = self.scale_sum.folded(self.mix(mixed, self.scale_sum.factor))
        return activate(self.up(mixed))
