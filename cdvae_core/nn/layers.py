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

GAIN = 1 / 0.6  # what an activation is multiplied by to keep the variance
HALF = 1 / math.sqrt(2)  # what a sum of two is multiplied by


class Linear(nn.Linear):
    """A linear map without bias: what is zero stays zero, which the envelopes rely on.

    `layer(x, factor)` maps factor * x. The factor goes into the weight, which is much smaller than
    the messages: constants between two maps cost nothing.
    """

    def __init__(self, fan_in: int, fan_out: int) -> None:
        super().__init__(fan_in, fan_out, bias=False)
        with torch.no_grad():
            nn.init.orthogonal_(self.weight)
            self.weight.mul_((1 / fan_in / self.weight.var()) ** 0.5)

    def forward(self, x: Tensor, factor: float | Tensor = 1.0) -> Tensor:
        plain = isinstance(factor, float) and factor == 1.0
        return functional.linear(x, self.weight if plain else self.weight * factor)


def activate(x: Tensor) -> Tensor:
    """silu(x), still to be multiplied by `GAIN`. In a pass without gradients x is overwritten."""
    return functional.silu(x, inplace=not torch.is_grad_enabled())


class Residual(nn.Module):
    """(x + two activated linear maps of x) / sqrt 2, of x = factor * `x`.

    The result comes in the same way, as a tensor and the number that it is to be multiplied by.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = Linear(width, width)
        self.second = Linear(width, width)

    def forward(self, x: Tensor, factor: float) -> tuple[Tensor, float]:
        change = activate(self.second(activate(self.first(x, factor)), GAIN))
        return torch.add(x, change, alpha=GAIN / factor), factor * HALF


class Residuals(nn.ModuleList):
    """Several, one after the other."""

    def __init__(self, width: int, count: int) -> None:
        super().__init__(Residual(width) for _ in range(count))

    def forward(self, x: Tensor, factor: float) -> tuple[Tensor, float]:
        for layer in self:
            x, factor = layer(x, factor)
        return x, factor


class Scale(nn.Module):
    """A constant factor that gives its input a root mean square of one.

    GemNet fits such factors before training; `GemNet.fit_scales` does it in one forward pass, in
    which every factor is set before the layers behind it run. Where a linear map stands before it,
    the factor goes into that map, and what comes out is given to `folded`.
    """

    factor: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("factor", torch.ones(()))
        self.fitting = False

    def forward(self, x: Tensor, times: float = 1.0) -> Tensor:
        """times * x, scaled."""
        if self.fitting:
            self._fit(x * times)
        return x * (self.factor * times)

    def folded(self, x: Tensor) -> Tensor:
        """x as it is: it has been multiplied by the factor already."""
        if not self.fitting:
            return x
        x = x / self.factor
        self._fit(x)
        return x * self.factor

    def _fit(self, x: Tensor) -> None:
        self.factor.copy_(x.detach().float().square().mean().clamp_min(1e-12).rsqrt())


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
