"""Maps that repeat, caches that heal, neighbours against brute force, and the way back."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from cdvae_core import latent
from cdvae_core.errors import ConfigError


def blobs(points: int = 60, width: int = 12, seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    centres = generator.normal(size=(3, width)) * 8
    return (centres[np.arange(points) % 3] + generator.normal(size=(points, width))).astype("f4")


def test_map_repeats_and_comes_from_the_cache(tmp_path: Path) -> None:
    points = blobs()
    first = latent.project(points, root=tmp_path / "a")
    again = latent.project(points, root=tmp_path / "b")
    assert first.shape == (60, 2)
    assert np.array_equal(first, again)
    [file] = (tmp_path / "a" / "maps").iterdir()
    file.write_bytes(file.read_bytes()[:200])  # a damaged file is made again, not trusted
    assert np.array_equal(latent.project(points, root=tmp_path / "a"), first)
    assert file.stat().st_size > 200


def test_map_keeps_groups_together(tmp_path: Path) -> None:
    points = blobs()
    places = latent.project(points, root=tmp_path)
    index, _ = latent.nearest(places, places, 6)
    assert (index % 3 == np.arange(60)[:, None] % 3).mean() > 0.95


def test_two_maps_at_once_do_not_bring_the_process_down(tmp_path: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        made = pool.map(lambda s: latent.project(blobs(seed=s), root=tmp_path), (1, 2))
        assert [m.shape for m in made] == [(60, 2), (60, 2)]


@pytest.mark.parametrize("points", [1, 2, 5])
def test_few_points_get_a_plain_map(points: int, tmp_path: Path) -> None:
    made = latent.project(blobs(points), root=tmp_path)
    assert made.shape == (points, 2)
    assert np.isfinite(made).all()


def test_a_broken_latent_is_an_error(tmp_path: Path) -> None:
    points = blobs()
    points[3, 4] = np.nan
    with pytest.raises(ConfigError, match="not finite"):
        latent.project(points, root=tmp_path)


def test_nearest_is_what_brute_force_says() -> None:
    generator = np.random.default_rng(1)
    points, query = generator.normal(size=(80, 5)), generator.normal(size=(7, 5))
    index, distance = latent.nearest(query, points, 4)
    every = np.linalg.norm(query[:, None] - points, axis=-1)
    assert np.array_equal(index, np.argsort(every, 1)[:, :4])
    assert distance == pytest.approx(np.sort(every, 1)[:, :4])
    assert latent.nearest(points[:3], points, 1)[0][:, 0].tolist() == [0, 1, 2]
    assert latent.nearest(query, points[:2], 9)[0].shape == (7, 2)


def test_carrying_over_is_exact_on_points_and_between_them_in_between() -> None:
    here = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [9.0, 9.0]])
    there = np.array([[1.0], [3.0], [1.0], [100.0]])
    assert latent.carry_over(here, here, there, k=3) == pytest.approx(there)
    assert latent.carry_over(np.array([[0.5, 0.0]]), here, there, k=2) == pytest.approx(
        np.array([[2.0]])
    )
