"""The basis functions of DimeNet (Gasteiger, Groß and Günnemann, ICLR 2020; cited as [D]).

Symbols: c is the cutoff, x = d / c the scaled length of an edge, j_l a spherical Bessel function,
z_ln its n-th positive zero, P_l a Legendre polynomial. The published implementation, whose
weights this package can read, departs from the paper in its constants: it leaves out sqrt(2 / c)
and 1 / sqrt(c^3), and divides the envelope u(x) by x in both bases.

On 0 <= x <= 1 every j_l(z_ln x) is a smooth function of one variable, so all orders are evaluated
at once as one matrix product with Chebyshev polynomials. Neither the upward recurrence in l nor
the closed forms in sines and cosines is stable at small x; this is, in any precision.
"""

from __future__ import annotations

import math
from functools import cache, partial
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Float
from scipy.optimize import brentq
from scipy.special import spherical_jn
from torch import Tensor, nn

SHORTEST_EDGE = 1e-3  # of the cutoff; u(x) / x has a pole at zero


def spherical_bessel_zeros(orders: int, count: int) -> np.ndarray:
    """`[orders, count]`, the first positive zeros of j_0, j_1, ...

    Between two zeros of j_l lies exactly one of j_(l+1), so each order brackets the next.
    """
    zeros = np.arange(1, count + orders) * np.pi
    rows = [zeros[:count]]
    for order in range(1, orders):
        function = partial(spherical_jn, order)
        zeros = np.array([brentq(function, a, b, xtol=1e-15) for a, b in pairwise(zeros)])
        rows.append(zeros[:count])
    return np.stack(rows)


@cache
def _chebyshev_coefficients(orders: int, count: int) -> np.ndarray:
    """`[terms, orders * count]`: sqrt(2) j_l(z_ln x) / |j_(l+1)(z_ln)| in T_k(2 x - 1)."""
    zeros = spherical_bessel_zeros(orders, count)
    terms = 24 + int(zeros.max())  # past z / 2 the terms fall faster than exponentially
    nodes = np.cos(np.pi * (np.arange(terms) + 0.5) / terms)
    order = np.arange(orders)[:, None]
    norm = math.sqrt(2) / np.abs(spherical_jn(order + 1, zeros))
    argument = zeros * (nodes[:, None, None] + 1) / 2
    values = (norm * spherical_jn(order, argument)).reshape(terms, -1)
    cosines = np.cos(np.arange(terms)[:, None] * np.arccos(nodes))
    cosines[0] /= 2
    return 2 / terms * cosines @ values


@cache
def _coefficients_on(
    orders: int, count: int, dtype: torch.dtype, device: torch.device
) -> Float[Tensor, "terms functions"]:
    return torch.as_tensor(_chebyshev_coefficients(orders, count)).to(device=device, dtype=dtype)


def _chebyshev(t: Float[Tensor, " edges"], terms: int) -> Float[Tensor, "edges terms"]:
    """T_0 ... T_(terms - 1), doubling the known ones by T_(m+k) = 2 T_m T_k - T_(m-k)."""
    known = torch.stack([torch.ones_like(t), t])
    while len(known) < terms:
        m = len(known) - 1
        known = torch.cat([known, 2 * known[m] * known[1:] - known[:m].flip(0)])
    return known[:terms].T


def radial_bessel(
    x: Float[Tensor, " edges"], orders: int, count: int
) -> Float[Tensor, "edges functions"]:
    """The radial parts of [D] Eq. 6: sqrt(2) j_l(z_ln x) / |j_(l+1)(z_ln)|, orthonormal on
    [0, 1] with weight x^2.

    Args:
        x: scaled lengths, from 0 to 1 (longer ones count as 1, where all are zero).
        orders: l = 0 ... orders - 1.
        count: n = 1 ... count for each order.

    Returns:
        `[edges, orders * count]`, the order outermost.
    """
    table = _coefficients_on(orders, count, x.dtype, x.device)
    return _chebyshev(2 * x.clamp(0, 1) - 1, len(table)) @ table


def envelope_over_x(x: Tensor, exponent: int) -> Tensor:
    """u(x) / x with u of [D] Eq. 8 and p = exponent + 1; zero, with two derivatives, from x = 1."""
    p = exponent + 1
    a, b, c = -(p + 1) * (p + 2) / 2, p * (p + 2), -p * (p + 1) / 2
    inside = x.clamp(SHORTEST_EDGE, 1.0)
    return 1 / inside + inside**exponent * (a + inside * (b + inside * c))


class RadialBasis(nn.Module):
    """u(x) / x sin(n pi x) for n = 1 ... count ([D] Eq. 7), with frequencies that are learned.

    Args:
        count: functions.
        exponent: of the envelope.
    """

    def __init__(self, count: int, exponent: int) -> None:
        super().__init__()
        self.exponent = exponent
        self.frequency = nn.Parameter(torch.arange(1, count + 1) * math.pi)

    def forward(self, x: Float[Tensor, " edges"]) -> Float[Tensor, "edges count"]:
        phase = self.frequency.to(x.dtype) * x.clamp(SHORTEST_EDGE, 1.0)[:, None]
        return envelope_over_x(x, self.exponent)[:, None] * phase.sin()
