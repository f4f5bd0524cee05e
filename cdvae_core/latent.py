"""The space of latents: keep those of a split, project them to a map, look up neighbours, go back.

The map is a UMAP (McInnes et al. 2018) of mu. It is a picture and not a metric: a latent for a
place on the map, or a place for a new latent, is the weighted mean of its nearest neighbours,
because UMAP's own inverse takes 20 s a point and misses by a quarter of the typical distance.
"""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from threading import Lock

import numpy as np
from jaxtyping import Float, Int
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from cdvae_core.data.cache import CachedSplit, write_atomically
from cdvae_core.data.registry import cache_root
from cdvae_core.errors import ConfigError

log = logging.getLogger(__name__)

FEWEST_FOR_UMAP = 12  # below that a map is a plain PCA
_umap_lock = Lock()  # numba's workqueue layer aborts the process if two threads run UMAP at once


def latents_file(model_folder: Path, split: CachedSplit, root: Path | None = None) -> Path:
    """Where mu of a split's crystals by a checkpoint is kept, named by the content of both."""
    digest = hashlib.sha256(split.fingerprint.encode())
    for name in ("config.json", "model.safetensors"):
        digest.update((model_folder / name).read_bytes())
    return cache_root(root) / "latents" / f"{digest.hexdigest()[:32]}.safetensors"


def read_latents(file: Path, split: CachedSplit) -> Float[np.ndarray, "crystals latent"] | None:
    """Kept latents, or None where there are none or the file is damaged."""
    latents = _read(file)
    return latents if latents is not None and len(latents) == len(split) else None


def write_latents(file: Path, latents: Float[np.ndarray, "crystals latent"]) -> None:
    """Keep latents, atomically."""
    write_atomically(file, save({"values": np.ascontiguousarray(latents)}))


def project(
    latents: Float[np.ndarray, "points latent"],
    *,
    components: int = 2,
    neighbours: int = 15,
    min_dist: float = 0.15,
    seed: int = 0,
    root: Path | None = None,
) -> Float[np.ndarray, "points components"]:
    """The UMAP of latents, from the cache directory if it was made before.

    The same latents and seed give the same map. One UMAP runs at a time in a process.

    Args:
        components: 2 or 3.
        neighbours: how local the map is; fewer where there are few points.
        min_dist: how tightly points may pack.
        root: the cache directory; `CDVAE_DATA` or the platform's if None.

    Raises:
        ConfigError: no points, or a latent that is not finite.
    """
    latents = np.ascontiguousarray(latents, dtype=np.float32)
    if latents.ndim != 2 or len(latents) == 0:
        raise ConfigError(f"a map needs latents [points, latent], not {list(latents.shape)}")
    if not np.isfinite(latents).all():
        raise ConfigError("a latent is not finite: the checkpoint has not learned anything usable")
    digest = hashlib.sha256(f"umap {components} {neighbours} {min_dist} {seed}".encode())
    digest.update(latents.tobytes())
    file = cache_root(root) / "maps" / f"{digest.hexdigest()[:32]}.safetensors"
    known = _read(file)
    if known is not None and known.shape == (len(latents), components):
        return known
    if len(latents) < FEWEST_FOR_UMAP:
        return _pca(latents, components)
    made = _umap(latents, components, min(neighbours, len(latents) - 1), min_dist, seed)
    write_atomically(file, save({"values": made}))
    return made


def _umap(
    latents: np.ndarray, components: int, neighbours: int, min_dist: float, seed: int
) -> np.ndarray:
    from umap import UMAP

    with _umap_lock:
        mapper = UMAP(n_components=components, n_neighbors=neighbours, min_dist=min_dist,
                      random_state=seed, n_jobs=1)  # fmt: skip
        return np.ascontiguousarray(mapper.fit_transform(latents), dtype=np.float32)


def _pca(latents: np.ndarray, components: int) -> np.ndarray:
    centred = latents - latents.mean(0)
    left, size, _ = np.linalg.svd(centred, full_matrices=False)
    kept = min(components, len(size))
    made = np.zeros((len(latents), components), dtype=np.float32)
    made[:, :kept] = left[:, :kept] * size[:kept]
    return made


def nearest(
    query: Float[np.ndarray, "queries space"],
    points: Float[np.ndarray, "points space"],
    k: int,
) -> tuple[Int[np.ndarray, "queries k"], Float[np.ndarray, "queries k"]]:
    """The k points nearest to each query, nearest first, and their Euclidean distances.

    A query that is itself among the points is its own nearest. Fewer points than k are all given.
    """
    query, points = np.asarray(query, np.float64), np.asarray(points, np.float64)
    square = (query**2).sum(1)[:, None] - 2 * query @ points.T + (points**2).sum(1)
    k = min(k, len(points))
    rough = np.argpartition(square, k - 1, axis=1)[:, :k]
    distance = np.linalg.norm(query[:, None] - points[rough], axis=-1)  # free of cancellation
    order = np.argsort(distance, axis=1, kind="stable")
    return np.take_along_axis(rough, order, 1), np.take_along_axis(distance, order, 1)


def carry_over(
    query: Float[np.ndarray, "queries here"],
    here: Float[np.ndarray, "points here"],
    there: Float[np.ndarray, "points there"],
    k: int = 6,
) -> Float[np.ndarray, "queries there"]:
    """From one space to another by the k nearest known points, weighted by 1 / distance squared.

    From the map to the latents it answers a click on an empty place; from the latents to the map
    it places a crystal that the map was not made of. On a known point it is exact.
    """
    index, distance = nearest(query, here, k)
    weight = 1 / np.maximum(distance, 1e-12) ** 2
    weight /= weight.sum(1, keepdims=True)
    return np.einsum("qk,qkt->qt", weight, there[index])


def _read(file: Path) -> np.ndarray | None:
    try:
        return load_file(file)["values"]
    except FileNotFoundError:
        return None
    except (SafetensorError, OSError, KeyError) as error:
        log.warning("%s is damaged and is made again: %s", file, error)
        return None
