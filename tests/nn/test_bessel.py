"""The bases of DimeNet against scipy and against their defining properties."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.special import spherical_jn

from cdvae_core.nn.bessel import (
    RadialBasis,
    envelope_over_x,
    radial_bessel,
    spherical_bessel_zeros,
)

ORDERS, COUNT = 7, 6


def test_zeros_are_the_first_positive_zeros() -> None:
    zeros = spherical_bessel_zeros(ORDERS, COUNT)
    order = np.arange(ORDERS)[:, None]
    assert np.abs(spherical_jn(order, zeros)).max() < 1e-15
    for l, row in enumerate(zeros):  # noqa: E741
        x = np.linspace(1e-3, row[-1] + 1e-6, 20001)
        changes = np.count_nonzero(np.diff(np.sign(spherical_jn(l, x))))
        assert changes == COUNT


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 6e-7), (torch.float64, 5e-14)], ids=str
)
def test_radial_bessel_agrees_with_scipy(dtype: torch.dtype, tolerance: float) -> None:
    x = torch.cat([torch.linspace(0, 1, 997), torch.logspace(-8, -2, 50)]).to(dtype)
    zeros = spherical_bessel_zeros(ORDERS, COUNT)
    order = np.arange(ORDERS)[:, None]
    expected = spherical_jn(order, zeros * x.double().numpy()[:, None, None])
    expected *= math.sqrt(2) / np.abs(spherical_jn(order + 1, zeros))
    result = radial_bessel(x, ORDERS, COUNT).unflatten(1, (ORDERS, COUNT)).double().numpy()
    assert np.abs(result - expected).max() < tolerance * np.abs(expected).max()


def test_radial_bessel_is_orthonormal_and_ends_at_zero() -> None:
    nodes, weights = np.polynomial.legendre.leggauss(80)
    x = torch.as_tensor((nodes + 1) / 2)
    basis = radial_bessel(x, ORDERS, COUNT).unflatten(1, (ORDERS, COUNT))
    overlap = torch.einsum("e,eln,elm->lnm", torch.as_tensor(weights / 2) * x**2, basis, basis)
    assert torch.allclose(overlap, torch.eye(COUNT, dtype=x.dtype).expand(ORDERS, -1, -1))
    beyond = radial_bessel(torch.tensor([1.0, 1.5], dtype=x.dtype), ORDERS, COUNT)
    assert beyond.abs().max() < 1e-10


def test_envelope_meets_zero_with_two_derivatives() -> None:
    x = torch.tensor([1.0], dtype=torch.float64, requires_grad=True)
    value = x * envelope_over_x(x, 5)
    (slope,) = torch.autograd.grad(value, x, create_graph=True)
    (curvature,) = torch.autograd.grad(slope, x)
    assert max(abs(t.item()) for t in (value, slope, curvature)) < 1e-12
    near = torch.tensor([0.01], dtype=torch.float64)
    assert (near * envelope_over_x(near, 5)).item() == pytest.approx(1, abs=1e-9)


def test_radial_basis_is_the_equation() -> None:
    x = torch.tensor([0.2, 0.7, 1.0, 1.3], dtype=torch.float64)
    basis = RadialBasis(6, exponent=5).double()
    inner = x[:2, None]
    u = 1 - 28 * inner**6 + 48 * inner**7 - 21 * inner**8
    expected = u / inner * torch.sin(basis.frequency.detach() * inner)
    assert torch.allclose(basis(x)[:2], expected)
    assert basis(x)[2:].abs().max() < 1e-12
    assert torch.isfinite(basis(torch.zeros(1, dtype=torch.float64))).all()


def test_gradients() -> None:
    x = torch.rand(5, dtype=torch.float64, generator=torch.manual_seed(0)) * 0.9 + 0.05
    x.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: radial_bessel(x, 4, 3), x)
    basis = RadialBasis(3, exponent=5).double()
    assert torch.autograd.gradcheck(basis, x)
