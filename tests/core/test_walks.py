"""Walks against what geometry says of lines, circles and diffusion."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cdvae_core.errors import ConfigError
from cdvae_core.walks import circle, line, random_walk, through

seeds = st.integers(0, 10_000)


def pair(seed: int, width: int = 16) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, width, generator=generator, dtype=torch.float64)


@given(seeds, st.integers(2, 30))
def test_both_begin_and_end_where_they_should(seed: int, count: int) -> None:
    a, b = pair(seed)
    for way in (line, circle):
        points = way(a, b, count)
        assert points.shape == (count, 16)
        torch.testing.assert_close(points[0], a)
        torch.testing.assert_close(points[-1], b)


@given(seeds)
def test_a_line_has_even_steps(seed: int) -> None:
    a, b = pair(seed)
    steps = line(a, b, 11).diff(dim=0)
    torch.testing.assert_close(steps, ((b - a) / 10).expand(10, -1))


@given(seeds)
def test_a_circle_has_even_angles_and_lengths(seed: int) -> None:
    a, b = pair(seed)
    points = circle(a, b, 11)
    lengths = points.norm(dim=1)
    torch.testing.assert_close(lengths.diff(), ((b.norm() - a.norm()) / 10).expand(10))
    unit = points / lengths[:, None]
    angles = (unit[1:] * unit[:-1]).sum(-1).clamp(-1, 1).acos()
    torch.testing.assert_close(angles, angles.mean().expand(10), rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(angles.sum(), (unit[0] @ unit[-1]).acos(), rtol=1e-6, atol=1e-7)


def test_a_circle_stays_in_the_shell_where_a_line_cuts_through() -> None:
    a, b = pair(0, 256)
    assert line(a, b, 3)[1].norm() < 0.8 * a.norm()
    assert circle(a, b, 3)[1].norm() > 0.95 * min(a.norm(), b.norm())


def test_directions_that_agree_or_are_opposite() -> None:
    a = pair(3)[0]
    for b in (2 * a, -a, torch.zeros_like(a)):
        assert circle(a, b, 5).isfinite().all()
        torch.testing.assert_close(circle(a, b, 5)[-1], b)


def test_a_way_through_several_stops_visits_each_once() -> None:
    stops = torch.cat([pair(1), pair(2)])
    for spherical in (False, True):
        points = through(stops, 3, spherical)
        assert len(points) == 3 * 4 + 1
        torch.testing.assert_close(points[::4], stops)
    with pytest.raises(ConfigError, match="two stops"):
        through(stops[:1], 3)


def test_a_random_walk_spreads_as_diffusion_does() -> None:
    generator = torch.Generator().manual_seed(0)
    start = torch.zeros(64)
    free = torch.stack([random_walk(start, 101, 0.5, generator) for _ in range(200)])
    assert (free[:, 0] == 0).all()
    square = free[:, [25, 100]].square().sum(-1).mean(0)
    torch.testing.assert_close(square, 0.25 * torch.tensor([25.0, 100.0]), rtol=0.1, atol=0)
    held = torch.stack([random_walk(start, 101, 0.5, generator, 0.5) for _ in range(200)])
    torch.testing.assert_close(held[:, 100].square().sum(-1).mean(), torch.tensor(0.25 / 0.75),
                               rtol=0.1, atol=0)  # fmt: skip
