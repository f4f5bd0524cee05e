"""Muon and AdamW as one optimiser."""

from __future__ import annotations

import torch
from examples import small_model
from torch import nn

from cdvae_core.optimiser import MuonAdamW, matrices


def test_every_parameter_is_updated_by_one_of_the_two() -> None:
    model = small_model(0)
    chosen, rest = matrices(model)
    assert {id(p) for p in chosen}.isdisjoint(id(p) for p in rest)
    assert len(chosen) + len(rest) == len(list(model.parameters()))
    assert all(p.ndim == 2 for p in chosen)
    assert id(model.decoder.element.weight) in {id(p) for p in rest}
    before = [p.detach().clone() for p in model.parameters()]
    for p in model.parameters():
        p.grad = torch.randn_like(p)
    MuonAdamW(model, 1e-2).step()
    assert not any(torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True))


def test_a_matrix_moves_equally_far_in_every_direction() -> None:
    """Whatever the gradient's singular values, those of the first update are nearly equal."""
    layer = nn.Linear(32, 32)
    before = layer.weight.detach().clone()
    u, _, v = torch.linalg.svd(torch.randn(32, 32))
    layer.weight.grad = u @ torch.diag(torch.logspace(-1.0, 0, 32)) @ v
    MuonAdamW(layer, 1e-2).step()
    moved = torch.linalg.svdvals(before - layer.weight.detach())
    assert moved.max() / moved.min() < 3


def test_a_step_has_the_size_that_adamw_would_take() -> None:
    """The root mean square of an update is about 0.2 of the learning rate, at any width."""
    for width in (16, 128):
        layer = nn.Linear(width, width)
        before = layer.weight.detach().clone()
        layer.weight.grad = torch.randn(width, width)
        MuonAdamW(layer, 1e-2).step()
        size = (before - layer.weight.detach()).square().mean().sqrt()
        assert 0.1e-2 < size < 0.3e-2


def test_state_survives_and_schedulers_keep_their_hold() -> None:
    torch.manual_seed(0)
    gradients = [torch.randn(8, 8) for _ in range(4)]

    def run(optimiser: MuonAdamW, layer: nn.Linear, steps: range) -> None:
        for step in steps:
            layer.weight.grad = gradients[step].clone()
            layer.bias.grad = gradients[step][0].clone()
            optimiser.step()

    one, other = nn.Linear(8, 8), nn.Linear(8, 8)
    other.load_state_dict(one.state_dict())
    first = MuonAdamW(one, 1e-2)
    run(first, one, range(4))
    part = MuonAdamW(other, 1e-2)
    run(part, other, range(2))
    resumed = MuonAdamW(other, 1e-2)
    resumed.load_state_dict(part.state_dict())
    run(resumed, other, range(2, 4))
    assert torch.equal(one.weight, other.weight) and torch.equal(one.bias, other.bias)
    for group in resumed.param_groups:  # what a scheduler does
        group["lr"] = 0.0
    before = other.weight.detach().clone()
    run(resumed, other, range(1))
    assert torch.equal(other.weight, before)
