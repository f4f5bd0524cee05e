"""The space of latents: keep those of a split, project them to a map, look up neighbours, go back.

The map is a UMAP (McInnes et al. 2018) of mu. It is a picture and not a metric: a latent for a
place on the map, or a place for a new latent, is the weighted mean of its nearest neighbours,
because UMAP's own inverse takes 20 s a point and misses by a quarter of the typical distance.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from pathlib import Path
from threading import Lock

import numpy as np
from jaxtyping import Float, Int
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from cdvae_core.checkpoint import read_config
from cdvae_core.data.cache import CachedSplit
from cdvae_core.data.registry import cache_root
from cdvae_core.errors import ConfigError
from cdvae_core.files import write_atomically

log = logging.getLogger(__name__)

SHIPPED = "map"  # folder inside a checkpoint's, laid out as the cache
FEWEST_FOR_UMAP = 12  # below that a map is a plain PCA
_umap_lock = Lock()  # numba's workqueue layer aborts the process if two threads run UMAP at once


def read_latents(
    model_folder: Path, split: CachedSplit, root: Path | None = None
) -> Float[np.ndarray, "crystals latent"] | None:
    """mu of a split by a checkpoint, if it was kept in the cache or ships with the checkpoint."""
    name = _latents_name(model_folder, split)
    for place in (cache_root(root), model_folder / SHIPPED):
        latents = _read(place / "latents" / name)
        if latents is not None and len(latents) == len(split):
            return latents
    return None


def write_latents(
    model_folder: Path,
    split: CachedSplit,
    latents: Float[np.ndarray, "crystals latent"],
    root: Path | None = None,
) -> None:
    """Keep mu of a split by a checkpoint in the cache directory, atomically."""
    file = cache_root(root) / "latents" / _latents_name(model_folder, split)
    write_atomically(file, save({"values": np.ascontiguousarray(latents)}))


def ship(model_folder: Path, split: CachedSplit) -> None:
    """Put latents and map of a split into the checkpoint's folder, in place of what was there.

    Whoever opens the checkpoint then sees its map at once. Files of other weights are never used:
    their names are made of the content.
    """
    from cdvae_core.checkpoint import load
    from cdvae_core.encode import encode_split

    place = model_folder / SHIPPED
    for old in place.glob("*/*.safetensors"):
        old.unlink()
    latents = encode_split(load(model_folder), split, range(len(split))).numpy()
    write_latents(model_folder, split, latents, place)
    project(latents, root=place)


def _latents_name(model_folder: Path, split: CachedSplit) -> str:
    digest = hashlib.sha256(split.fingerprint.encode())
    digest.update(json.dumps(read_config(model_folder)["model"], sort_keys=True).encode())
    digest.update((model_folder / "model.safetensors").read_bytes())
    return f"{digest.hexdigest()[:32]}.safetensors"


def project(
    latents: Float[np.ndarray, "points latent"],
    *,
    components: int = 2,
    neighbours: int = 15,
    min_dist: float = 0.15,
    seed: int = 0,
    root: Path | None = None,
    shipped: Path | None = None,
) -> Float[np.ndarray, "points components"]:
    """The UMAP of latents, from the cache directory if it was made before.

    The same latents and seed give the same map. One UMAP runs at a time in a process.

    Args:
        components: 2 or 3.
        neighbours: how local the map is; fewer where there are few points.
        min_dist: how tightly points may pack.
        root: the cache directory; `CDVAE_DATA` or the platform's if None.
        shipped: a checkpoint's folder, which may hold the map already.

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
    name = f"{digest.hexdigest()[:32]}.safetensors"
    for place in filter(None, (cache_root(root), shipped and shipped / SHIPPED)):
        known = _read(place / "maps" / name)
        if known is not None and known.shape == (len(latents), components):
            return known
    if len(latents) < FEWEST_FOR_UMAP:
        return _pca(latents, components)
    made = _umap(latents, components, min(neighbours, len(latents) - 1), min_dist, seed)
    write_atomically(cache_root(root) / "maps" / name, save({"values": made}))
    return made


def _umap(
    latents: np.ndarray, components: int, neighbours: int, min_dist: float, seed: int
) -> np.ndarray:
    # with a seed UMAP uses one thread; numba's others would spin and take time from all else
    os.environ.setdefault("NUMBA_NUM_THREADS", "1")
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
