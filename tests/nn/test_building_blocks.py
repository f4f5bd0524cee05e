"""Constants that go into weights change nothing but the time."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from cdvae_core.nn.layers import GAIN, HALF, Linear, Residual, Residuals, Scale, activate


def given(rows: int = 50, width: int = 12) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(rows, width, generator=generator, dtype=torch.float64)


def as_written(layer: Residual, x: Tensor) -> Tensor:
    """GemNet's residual block, constant by constant."""
    change = functional.silu(layer.first(x)) * GAIN
    change = functional.silu(layer.second(change)) * GAIN
    return (x + change) * HALF


@pytest.mark.parametrize("factor", [1.0, 0.3, 1.7])
def test_residual_blocks_and_their_gradients(factor: float) -> None:
    torch.manual_seed(0)
    blocks = Residuals(12, 3).double()
    x = given().requires_grad_()
    found, times = blocks(x, factor)
    expected = x * factor
    for block in blocks:
        expected = as_written(block, expected)
    torch.testing.assert_close(found * times, expected, rtol=1e-12, atol=1e-12)
    inputs = [x, *blocks.parameters()]
    weights = torch.linspace(-1, 1, expected.numel(), dtype=torch.float64).view_as(expected)
    ours = torch.autograd.grad((found * times * weights).sum(), inputs)
    theirs = torch.autograd.grad((expected * weights).sum(), inputs)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


def test_without_gradients_the_result_is_the_same() -> None:
    torch.manual_seed(0)
    block = Residual(12).double()
    x = given()
    with torch.no_grad():
        quick, times = block(x.clone(), 0.7)
    slow, _ = block(x, 0.7)
    torch.testing.assert_close(quick * times, slow * times)


def test_a_linear_map_takes_its_factor_into_the_weight() -> None:
    torch.manual_seed(0)
    layer = Linear(12, 7).double()
    torch.testing.assert_close(layer(given(), 0.4), layer(0.4 * given()))
    torch.testing.assert_close(layer(given(), torch.tensor(0.4).double()), layer(0.4 * given()))


def test_an_activation_keeps_the_variance() -> None:
    x = torch.randn(200_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    result = (activate(x.requires_grad_()) * GAIN).detach()
    assert result.square().mean() == pytest.approx(1, abs=0.05)


def test_a_fitted_scale_leaves_a_root_mean_square_of_one() -> None:
    scale = Scale().double()
    x = 7 * given()
    scale.fitting = True
    assert scale(x).square().mean() == pytest.approx(1)
    scale.fitting = False
    torch.testing.assert_close(scale(x, 2.0), 2 * scale(x))


def test_a_scale_folded_into_the_map_before_it() -> None:
    torch.manual_seed(0)
    layer, folded, plain = Linear(12, 7).double(), Scale().double(), Scale().double()
    x = 5 * given()
    folded.fitting = plain.fitting = True
    first = folded.folded(layer(x, folded.factor))
    torch.testing.assert_close(first, plain(layer(x)))
    folded.fitting = plain.fitting = False
    torch.testing.assert_close(folded.folded(layer(x, folded.factor)), plain(layer(x)))
