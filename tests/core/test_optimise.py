"""Gradient ascent in the latent space: where it must go, and what it must leave alone."""

from __future__ import annotations

import pytest
import torch
from examples import small_model
from torch import Tensor

from cdvae_core.errors import ConfigError
from cdvae_core.model import CDVAE
from cdvae_core.optimise import Ascent, Goal, ascend
from cdvae_core.prior import Labelled, fit


@pytest.fixture
def model() -> CDVAE:
    return small_model(prop="energy").eval()


def starts(model: CDVAE, count: int = 6) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, model.config.latent_dim, generator=generator)


def ways(model: CDVAE, goal: Goal, steps: int = 300, **more: float) -> list[Ascent]:
    return list(ascend(model, starts(model), goal, steps=steps, step_size=0.02, kept=3, **more))


@pytest.mark.parametrize("direction", [-1, 1])
def test_every_start_improves(model: CDVAE, direction: int) -> None:
    found = ways(model, Goal(direction))
    gain = direction * (found[-1].predicted - found[0].predicted)
    assert (gain > 0).all()


def test_a_target_is_reached(model: CDVAE) -> None:
    before = model.predict_property(starts(model)).detach()
    aim = float(before.mean())
    found = ways(model, Goal(0, aim), steps=600)
    assert (found[-1].predicted - aim).abs().max() < 0.05 * (before - aim).abs().max()


def test_latents_are_kept_evenly_and_the_last_is_among_them(model: CDVAE) -> None:
    found = ways(model, Goal(-1), steps=30)
    assert [one.step for one in found] == list(range(1, 31))
    assert [one.step for one in found if one.kept] == [10, 20, 30]


def test_a_start_does_not_depend_on_the_others(model: CDVAE) -> None:
    together = ways(model, Goal(1))[-1].z
    for i, z in enumerate(starts(model)):
        *_, alone = ascend(model, z[None], Goal(1), steps=300, step_size=0.02, kept=3)
        torch.testing.assert_close(alone.z[0], together[i], rtol=1e-4, atol=1e-4)


def test_the_first_step_has_the_length_of_adams(model: CDVAE) -> None:
    """Adam's first step is its step size in every direction, by the gradient's sign."""
    z = starts(model)
    first = next(ascend(model, z, Goal(1), step_size=1e-3))
    z.requires_grad_()
    (slope,) = torch.autograd.grad(model.predict_property(z).sum(), z)
    steep = slope.abs() > 1e-4
    assert steep.float().mean() > 0.5
    moved = (first.z - z.detach())[steep]
    torch.testing.assert_close(moved, 1e-3 * slope.sign()[steep], rtol=1e-2, atol=1e-6)


def test_the_prior_holds_latents_back(model: CDVAE) -> None:
    free, held = (ways(model, Goal(1, prior_weight=w))[-1] for w in (0.0, 1.0))
    assert held.z.norm(dim=1).mean() < 0.7 * free.z.norm(dim=1).mean()
    assert held.predicted.mean() < free.predicted.mean()


def test_the_model_and_the_given_latents_stay_as_they_are(model: CDVAE) -> None:
    before = {name: value.clone() for name, value in model.state_dict().items()}
    z = starts(model)
    kept = z.clone()
    with torch.no_grad():  # whoever calls may have switched gradients off
        *_, last = ascend(model, z, Goal(-1), steps=5, kept=1)
    assert torch.equal(z, kept)
    assert not last.z.requires_grad
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
    assert all(p.grad is None for p in model.parameters())


def test_in_the_flow_an_ascent_does_not_leave_the_data() -> None:
    """Two clusters of latents: free ascent runs off, in the flow it ends at one of them."""
    model = small_model(0)
    centres = torch.randn(2, 16, generator=torch.Generator().manual_seed(3))
    generator = torch.Generator().manual_seed(4)
    which = torch.arange(600) % 2
    z = centres[which] + 0.05 * torch.randn(600, 16, generator=generator)
    unknown = torch.full((600,), torch.nan)
    data = Labelled(z, unknown, torch.full((600,), 5), torch.ones(600, 100, dtype=torch.bool))
    *_, (_, _, flow) = fit(data, data, 5, steps=600, hidden=64)
    begun = z[:20]
    assert (flow.latents(flow.noise(begun)) - begun).norm(dim=1).max() < 0.1
    free = list(ascend(model, begun, Goal(-1), steps=150, step_size=0.02, kept=1))[-1]
    held = list(ascend(model, begun, Goal(-1), flow=flow, steps=150, step_size=0.02, kept=1))[-1]
    far = [torch.cdist(found.z, z).min(1).values for found in (free, held)]
    assert far[1].max() < far[0].min() / 3
    with torch.no_grad():
        first, last = (model.predict_property(found) for found in (begun, held.z))
    assert last.mean() < first.mean()


def test_impossible_requests(model: CDVAE) -> None:
    with pytest.raises(ConfigError, match="6 latents cannot be kept of 5 steps"):
        ascend(model, starts(model), Goal(-1), steps=5, kept=6)
    bare = small_model(prop=None)
    with pytest.raises(ConfigError, match="trained without a property"):
        ascend(bare, starts(bare), Goal(-1))
