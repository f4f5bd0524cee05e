"""Building blocks of the decoder, after GemNet (Gasteiger et al. 2021, Appendix B).

Every layer here keeps the variance of its input at initialisation: linear maps are orthogonal and
scaled by the fan-in, activations are divided by the standard deviation that they leave, and sums
of unknown variance pass a `Scale` that is fitted once on real crystals.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

_SILU_GAIN = 1 / 0.6
HALF = 1 / math.sqrt(2)


def linear(fan_in: int, fan_out: int) -> nn.Linear:
    """A linear map without bias: what is zero stays zero, which the envelopes rely on."""
    layer = nn.Linear(fan_in, fan_out, bias=False)
    with torch.no_grad():
        nn.init.orthogonal_(layer.weight)
        layer.weight.mul_((1 / fan_in / layer.weight.var()) ** 0.5)
    return layer


def activate(x: Tensor) -> Tensor:
    return functional.silu(x) * _SILU_GAIN


class Residual(nn.Module):
    """(x + two activated linear maps of x) / sqrt 2."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = linear(width, width)
        self.second = linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        change = functional.silu(self.second(activate(self.first(x))))
        return torch.add(x, change, alpha=_SILU_GAIN) * HALF


class Scale(nn.Module):
    """A constant factor that gives its input a root mean square of one.

    GemNet fits such factors before training; `GemNet.fit_scales` does it in one forward pass, in
    which every factor is set before the layers behind it run.
    """

    factor: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("factor", torch.ones(()))
        self.fitting = False

    def forward(self, x: Tensor) -> Tensor:
        if self.fitting:
            self.factor.copy_(x.detach().float().square().mean().clamp_min(1e-12).rsqrt())
        return x * self.factor


class GaussianBasis(nn.Module):
    """Gaussians with centres at equal distances over [0, cutoff] and one standard deviation.

    GemNet makes them as wide as they are apart, 0.055 Å for the published 128 over 7 Å. So narrow,
    they amplify the rounding of coordinates and learn slowly (docs/decisions.md).

    Maps distances `[...]` in Å to `[..., size]`.
    """

    centre: Tensor

    def __init__(self, size: int, cutoff: float, width: float) -> None:
        super().__init__()
        self.register_buffer("centre", torch.linspace(0, cutoff, size), persistent=False)
        self.exponent = -0.5 / width**2

    def forward(self, distance: Tensor) -> Tensor:
        return ((distance[..., None] - self.centre).square() * self.exponent).exp()


def legendre(cosine: Tensor, degrees: int, dim: int) -> Tensor:
    """Normalised Legendre polynomials P_0 ... P_(degrees-1), stacked along `dim`.

    They are the zonal spherical harmonics Y_l0, the angular basis of GemNet's triplets.
    """
    values = [torch.ones_like(cosine), cosine]
    for degree in range(2, degrees):
        values.append(((2 * degree - 1) * cosine * values[-1] - (degree - 1) * values[-2]) / degree)
    norms = [math.sqrt((2 * degree + 1) / (4 * math.pi)) for degree in range(degrees)]
    return torch.stack([v * n for v, n in zip(values[:degrees], norms, strict=True)], dim)
