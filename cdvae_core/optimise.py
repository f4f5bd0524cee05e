"""Property optimisation in the latent space (Section 4.3, Appendix G.3).

From the latents of known crystals, or from the prior, Adam moves z so that the predicted property
F(z) improves; on the way some latents are kept, to be decoded and judged by an independent network.
F knows only where the encoder puts crystals. Far from there it is a guess, and gradient ascent
finds the places where the guess is too good: `prior_weight` holds z back, at a price in F.

Two other ways do not leave the data. With a flow prior, `ascend` moves the noise that the flow
makes z of: wherever it goes, z is a latent such as the flow draws. And `guided` draws from the flow
on condition of the property, as the paper's conditional baseline does.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from cdvae_core.errors import ConfigError
from cdvae_core.model import CDVAE
from cdvae_core.prior import Condition, FlowPrior, draw_whole
from cdvae_core.scalers import Scalers

STEPS = 5000
STEP_SIZE = 1e-3
FLOW_STEPS = 200
FLOW_STEP_SIZE = 2e-2
KEPT = 10
GUIDANCE = 2.0
_FAR = 2.0  # standard deviations from the mean: what "the least" asks the flow for


@runtime_checkable
class Predictor(Protocol):
    """A model that has a property of each latent: CDVAE, and the FTCP it is compared with."""

    @property
    def scalers(self) -> Scalers: ...

    def predict_property(
        self, z: Float[Tensor, "crystals latent"]
    ) -> Float[Tensor, " crystals"]: ...


@dataclass(frozen=True)
class Goal:
    """What the property should become.

    Attributes:
        direction: -1 for the least, 1 for the most, 0 for the target.
        target: in the property's unit, where the direction is 0.
        prior_weight: of |z|^2 / 2, minus the log-probability of z under N(0, 1), against the
            property in units of its standard deviation.
    """

    direction: int
    target: float = 0.0
    prior_weight: float = 0.0

    def __str__(self) -> str:
        return {-1: "minimise", 1: "maximise", 0: f"reach {self.target:g}"}[self.direction]

    def cost(
        self, model: Predictor, z: Float[Tensor, "crystals latent"], predicted: Tensor
    ) -> Float[Tensor, " crystals"]:
        """What is to fall, for each crystal by itself."""
        value = model.scalers.standard_prop(predicted)
        if self.direction:
            cost = -self.direction * value
        else:
            aim = model.scalers.standard_prop(torch.full_like(predicted, self.target))
            cost = (value - aim).square()
        return cost + self.prior_weight * z.square().sum(-1) / 2


@dataclass(frozen=True, eq=False)
class Ascent:
    """The latents after some steps.

    Attributes:
        step: counted from 1.
        kept: whether these latents are to be decoded.
        z: `[crystals, latent]`.
        predicted: `[crystals]`, F of the latents before this step, in the property's unit.
    """

    step: int
    kept: bool
    z: Float[Tensor, "crystals latent"]
    predicted: Float[Tensor, " crystals"]


def ascend(
    model: Predictor,
    z: Float[Tensor, "crystals latent"],
    goal: Goal,
    *,
    flow: FlowPrior | None = None,
    steps: int = STEPS,
    step_size: float = STEP_SIZE,
    kept: int = KEPT,
) -> Iterator[Ascent]:
    """Move latents towards a goal; each start by itself, whatever else is in the batch.

    Args:
        model: in evaluation mode; its weights are not touched.
        z: where to start.
        goal: what the property should become.
        flow: moves the noise of this flow instead of z; `FLOW_STEPS` of `FLOW_STEP_SIZE` go as far
            as the published steps, each of which costs forty evaluations of the flow.
        steps: of Adam.
        step_size: of Adam, its learning rate.
        kept: how many latents to keep of each start, evenly spaced, the last step's among them.

    Yields:
        Every step; whoever has seen enough stops asking.

    Raises:
        ConfigError: the model has no property, or there are fewer steps than latents to keep.
    """
    if getattr(model, "fc_property", None) is None:
        raise ConfigError("this checkpoint was trained without a property: it has nothing to go by")
    if not 1 <= kept <= steps:
        raise ConfigError(
            f"{kept} latents cannot be kept of {steps} steps: keep fewer, or take more"
        )
    return _steps(model, z, goal, flow, steps, step_size, kept)


def _steps(
    model: Predictor,
    z: Tensor,
    goal: Goal,
    flow: FlowPrior | None,
    steps: int,
    step_size: float,
    kept: int,
) -> Iterator[Ascent]:
    moving = (z if flow is None else flow.noise(z)).detach().clone().requires_grad_()
    adam = torch.optim.Adam([moving], lr=step_size)
    at = {round(steps * (i + 1) / kept) for i in range(kept)}
    latents = _latents(flow, moving)
    for step in range(1, steps + 1):
        with torch.enable_grad():
            predicted = model.predict_property(latents)
            (gradient,) = torch.autograd.grad(goal.cost(model, latents, predicted).sum(), moving)
        moving.grad = gradient
        adam.step()
        if flow is not None:
            _keep_likely(moving)
        latents = _latents(flow, moving)
        yield Ascent(step, step in at, latents.detach().clone(), predicted.detach())


@torch.no_grad()
def _keep_likely(noise: Tensor) -> None:
    """No farther from the origin than noise is: farther out the flow has seen nothing."""
    usual = noise.shape[1] ** 0.5
    noise *= (usual / noise.norm(dim=1, keepdim=True)).clamp_max(1.0)


def _latents(flow: FlowPrior | None, moving: Tensor) -> Tensor:
    with torch.enable_grad():
        return moving if flow is None else flow.latents(moving)


def guided(
    model: CDVAE, prior: FlowPrior, goal: Goal, count: int, generator: torch.Generator
) -> Float[Tensor, "count latent"]:
    """Draws from a flow prior on condition of the goal's property.

    The least and the most are asked for as two standard deviations below and above the mean of the
    training data: that far the flow has still seen examples.
    """
    far = float(prior.prop_mean) + goal.direction * _FAR * float(prior.prop_std)
    value = far if goal.direction else goal.target
    wanted = Condition(prop=(value, value))
    return draw_whole(model, prior, count, generator, wanted, GUIDANCE)
