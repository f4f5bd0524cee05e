"""Walks through the latent space: straight lines, great circles, and random steps.

In many dimensions a normal distribution lies in a thin shell of radius sqrt(latent). A straight
line between two of its points cuts through the empty middle; a great circle stays in the shell.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from cdvae_core.errors import ConfigError

_PARALLEL = 1e-6  # rad: nearer than that a circle is a line


def line(
    start: Float[Tensor, " latent"], end: Float[Tensor, " latent"], count: int
) -> Float[Tensor, "count latent"]:
    """Evenly spaced points of the straight line, both ends among them."""
    t = _fractions(count, start)
    return start + t[:, None] * (end - start)


def circle(
    start: Float[Tensor, " latent"], end: Float[Tensor, " latent"], count: int
) -> Float[Tensor, "count latent"]:
    """Points of the great circle, evenly spaced in angle; the length changes evenly, too.

    Between opposite directions there is no shortest circle, and the origin has no direction: there
    the line is taken.
    """
    a, b = start.norm(), end.norm()
    if not float(a * b):
        return line(start, end, count)
    angle = (start @ end / (a * b)).clamp(-1, 1).acos()
    if min(float(angle), torch.pi - float(angle)) < _PARALLEL:
        return line(start, end, count)
    t = _fractions(count, start)[:, None]
    direction = ((1 - t) * angle).sin() * start / a + (t * angle).sin() * end / b
    return direction / angle.sin() * (a + t * (b - a))


def through(
    stops: Float[Tensor, "stops latent"], between: int, spherical: bool = False
) -> Float[Tensor, "points latent"]:
    """A way through several latents, each once, with so many points between two of them.

    Raises:
        ConfigError: fewer than two stops, or a negative number of points.
    """
    if len(stops) < 2 or between < 0:
        raise ConfigError("a way needs two stops or more, and no negative number of points")
    leg = circle if spherical else line
    legs = [leg(a, b, between + 2)[:-1] for a, b in pairwise(stops)]
    return torch.cat([*legs, stops[-1:]])


def random_walk(
    start: Float[Tensor, " latent"],
    count: int,
    step: float,
    generator: torch.Generator,
    pull: float = 0.0,
) -> Float[Tensor, "count latent"]:
    """A random walk, the start first.

    Args:
        step: expected length of one step.
        pull: towards the start: 0 wanders off as the square root of time, 1 draws each point anew
            around the start.
    """
    width = start.shape[0]
    points = [start]
    for _ in range(count - 1):
        noise = torch.randn(width, generator=generator, dtype=start.dtype, device=start.device)
        back = start + (1 - pull) * (points[-1] - start)
        points.append(back + noise * step / width**0.5)
    return torch.stack(points)


def _fractions(count: int, like: Tensor) -> Tensor:
    return torch.linspace(0, 1, count, dtype=like.dtype, device=like.device)
