"""Crystals, cells, models and splits that the tests of the core share."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import torch
from hypothesis import strategies as st

from cdvae_core.config import DecoderConfig, EncoderConfig, ModelConfig, NoiseConfig
from cdvae_core.crystal import Crystal, CrystalBatch
from cdvae_core.data.cache import CachedSplit, SplitInfo, concatenate, pack
from cdvae_core.graph import MultiGraph, knn_graph
from cdvae_core.model import CDVAE
from cdvae_core.noise import perturb_coordinates
from cdvae_core.scalers import Scalers

HEX = [[3.2, 0, 0], [-1.6, 3.2 * 3**0.5 / 2, 0], [0, 0, 5.2]]
FCC = np.array([[0, 1, 1], [1, 0, 1], [1, 1, 0]]) / 2
FOUR = [[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]]
PEROVSKITE = [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]


def crystal(numbers: object, frac_coords: object, lattice: object) -> Crystal:
    """A crystal from lists."""
    return Crystal(np.array(numbers), np.array(frac_coords), np.array(lattice))


def prototypes() -> dict[str, Crystal]:
    """Crystals of high symmetry, where many neighbours are tied."""
    eye = np.eye(3)
    rocksalt = np.concatenate([FOUR, np.array(FOUR) + 0.5])
    diamond = np.concatenate([FOUR, np.array(FOUR) + 0.25])
    return {
        "fcc": crystal([29], [[0, 0, 0]], 3.6 * FCC),
        "fcc cubic": crystal([29] * 4, FOUR, 3.6 * eye),
        "bcc": crystal([26] * 2, [[0, 0, 0], [0.5] * 3], 2.87 * eye),
        "simple cubic": crystal([84], [[0.3, 0.1, 0]], 3.35 * eye),
        "diamond": crystal([6] * 2, [[0, 0, 0], [0.25] * 3], 3.57 * FCC),
        "diamond cubic": crystal([6] * 8, diamond, 3.57 * eye),
        "rocksalt": crystal([11] * 4 + [17] * 4, rocksalt, 5.64 * eye),
        "perovskite": crystal([38, 22, 8, 8, 8], PEROVSKITE, 3.9 * eye),
        "hcp": crystal([12] * 2, [[1 / 3, 2 / 3, 0.25], [2 / 3, 1 / 3, 0.75]], HEX),
        "sparse": crystal([18], [[0, 0, 0]], 9.0 * eye),
    }


def real_crystals(shared: Path, dataset: str, count: int, split: str = "test") -> list[Crystal]:
    """Crystals of a benchmark, spread evenly over a split."""
    import pyarrow.parquet

    from cdvae_core.structures import parse_cif

    table = pyarrow.parquet.read_table(
        shared / "data" / dataset / f"{split}.parquet", columns=["cif"]
    )
    texts = table.column("cif").to_pylist()
    return [parse_cif(texts[i]) for i in np.linspace(0, len(texts) - 1, count).astype(int)]


# Cells ---


def unimodular(rng: np.random.Generator, shears: int, largest: int = 2) -> np.ndarray:
    """A random change of basis: integers of determinant 1."""
    change = np.eye(3, dtype=int)
    for _ in range(shears):
        i, j = rng.permutation(3)[:2]
        step = np.eye(3, dtype=int)
        step[i, j] = rng.integers(-largest, largest + 1)
        change = step @ change
    return change


@st.composite
def cells(draw: st.DrawFn, shears: int = 2, shortest: float = 1.5) -> np.ndarray:
    """`[3, 3]` lattices in Å: cubes, needles, plates and slivers, in bases that may be skewed."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    lengths = shortest * np.exp(rng.uniform(0, draw(st.sampled_from([0.0, 0.7, 2.0])), 3))
    skew = draw(st.sampled_from([0.0, 0.5, 1.0]))
    rows = np.eye(3) + skew * rng.uniform(-1, 1, (3, 3))
    if abs(np.linalg.det(rows)) < 0.05:
        rows = np.eye(3)
    lattice = lengths[:, None] * rows
    return unimodular(rng, draw(st.integers(0, shears))) @ lattice


@st.composite
def crystals(draw: st.DrawFn, most: int = 20, shears: int = 2, shortest: float = 1.5) -> Crystal:
    """Random crystals of 1 to `most` atoms, on general or on special positions."""
    lattice = draw(cells(shears, shortest))
    count = draw(st.integers(1, most))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    frac = rng.uniform(0, 1, (count, 3))
    if draw(st.booleans()):
        frac = np.unique(np.round(frac * 4) % 4, axis=0) / 4
    return Crystal(rng.integers(1, 95, len(frac)), frac, lattice)


def brute_images(reach: int) -> np.ndarray:
    return np.array(list(itertools.product(range(-reach, reach + 1), repeat=3)))


# The same crystals, said in another way ---


def batch(crystals: Iterable[Crystal], dtype: torch.dtype = torch.float64) -> CrystalBatch:
    return CrystalBatch.from_crystals(list(crystals), dtype)


def shaken(given: CrystalBatch, sigma: float, seed: int = 0) -> CrystalBatch:
    """With Gaussian noise of sigma Å on every atom."""
    level = torch.full_like(given.lattice[:, 0, 0], sigma)
    frac = perturb_coordinates(given, level, torch.Generator().manual_seed(seed))
    return given.replace(frac_coords=frac)


def permuted(given: CrystalBatch, seed: int = 0) -> tuple[CrystalBatch, torch.Tensor]:
    """Atoms in another order within each crystal, and where each came from."""
    generator = torch.Generator().manual_seed(seed)
    key = given.crystal_of_atom + torch.rand(len(given.atomic_numbers), generator=generator) * 0.99
    order = key.argsort()
    return given.replace(
        atomic_numbers=given.atomic_numbers[order], frac_coords=given.frac_coords[order]
    ), order


def rotation(seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    q = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))[0]
    return torch.as_tensor(q * np.sign(np.linalg.det(q))).to(dtype)


def rebased(given: CrystalBatch, seed: int = 0, shears: int = 3) -> CrystalBatch:
    """Every crystal in another basis of its lattice."""
    rng = np.random.default_rng(seed)
    parts = []
    for one in given.to_crystals():
        change = unimodular(rng, shears)
        frac = one.frac_coords @ np.linalg.inv(change)
        parts.append(Crystal(one.atomic_numbers, frac, change @ one.lattice))
    return batch(parts, given.lattice.dtype)


def supercell(given: CrystalBatch, seed: int = 0) -> tuple[CrystalBatch, torch.Tensor]:
    """Two or three cells of each crystal in one, skewed, and the atom each one repeats."""
    rng = np.random.default_rng(seed)
    parts, origin, first = [], [], 0
    for one in given.to_crystals():
        size = int(rng.integers(2, 4))
        rows = np.eye(3, dtype=int)
        axis = int(rng.integers(3))
        rows[axis, axis] = size
        rows[(axis + 1) % 3, axis] = rng.integers(0, size)
        offsets = np.zeros((size, 3))
        offsets[:, axis] = np.arange(size)
        frac = (one.frac_coords[None] + offsets[:, None]).reshape(-1, 3) @ np.linalg.inv(rows)
        parts.append(Crystal(np.tile(one.atomic_numbers, size), frac, rows @ one.lattice))
        origin.append(np.tile(np.arange(one.num_atoms), size) + first)
        first += one.num_atoms
    return batch(parts, given.lattice.dtype), torch.as_tensor(np.concatenate(origin))


# Models ---


def small_config(prop: str | None = "energy", **decoder: object) -> ModelConfig:
    """A model that runs in milliseconds."""
    sizes = {
        "hidden": 24, "blocks": 2, "neighbours": 12, "num_radial": 24, "basis_emb": 8,
        "triplet_emb": 16,
    }  # fmt: skip
    return ModelConfig(
        latent_dim=16,
        head_hidden=16,
        prop=prop,
        encoder=EncoderConfig(hidden=24, blocks=2, int_emb=8, basis_emb=4, out_emb=24),
        decoder=replace(DecoderConfig(), **sizes | decoder),
        noise=NoiseConfig(),
    )


def small_model(seed: int = 0, prop: str | None = "energy", **decoder: object) -> CDVAE:
    """With random weights, the decoder's factors fitted."""
    torch.manual_seed(seed)
    model = CDVAE(small_config(prop, **decoder), LATTICE_SCALERS)
    with torch.no_grad():
        model.encoder.output.last.normal_(std=0.1)
    fit(model)
    return model.eval()


def fit(model: CDVAE) -> None:
    """The decoder's factors on shaken prototypes."""
    config = model.config.decoder
    given = shaken(batch(prototypes().values(), torch.float32), 0.3)
    graph = knn_graph(given, config.neighbours, config.cutoff)
    z = torch.randn(given.num_crystals, model.config.latent_dim)
    latent = model.decoder.embed_latent(z)[given.crystal_of_atom].detach()
    model.decoder.fit_scales(latent, given.atomic_numbers, graph)


LATTICE_SCALERS = Scalers(
    (3.0, 3.0, 3.0, 90.0, 90.0, 90.0), (0.4, 0.4, 0.4, 8.0, 8.0, 8.0), -1.0, 0.5
)


# Splits ---


def perovskites(count: int, seed: int = 0) -> list[Crystal]:
    """ABO3 with sizes that follow from A and B, slightly displaced."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        a, b = rng.integers(20, 50, 2)
        frac = np.array(PEROVSKITE) + 0.01 * rng.normal(size=(5, 3))
        made.append(crystal([a, b, 8, 8, 8], frac, np.eye(3) * (3.4 + 0.01 * a + 0.01 * b)))
    return made


def shell_edges(crystal: Crystal) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Edges to the nearest shell of each atom: source, target, image."""
    images = brute_images(2)
    source, target, image = [], [], []
    for i in range(crystal.num_atoms):
        frac = crystal.frac_coords - crystal.frac_coords[i]
        distance = np.linalg.norm((frac[:, None] + images) @ crystal.lattice, axis=-1)
        distance[i, len(images) // 2] = np.inf
        for j, k in zip(*np.where(distance < 1.15 * distance.min()), strict=True):
            source.append(j)
            target.append(i)
            image.append(images[k])
    return np.array(source), np.array(target), np.array(image)


def multigraph(crystals: list[Crystal]) -> MultiGraph:
    return made_split(crystals).batch(range(len(crystals))).graph


def split_arrays(crystals: list[Crystal]) -> dict[str, np.ndarray]:
    return concatenate(
        [
            pack(f"crystal {i}", c, shell_edges(c), {"energy": c.atomic_numbers[0] / 10})
            for i, c in enumerate(crystals)
        ]
    )


def made_split(crystals: list[Crystal], name: str = "train") -> CachedSplit:
    """A preprocessed split, its edges those of the nearest shell."""
    arrays = split_arrays(crystals)
    return CachedSplit(SplitInfo("made", name), arrays, {"energy": arrays["property.energy"]})


@cache
def perovskite_splits() -> dict[str, CachedSplit]:
    return {
        "train": made_split(perovskites(96, 0), "train"),
        "val": made_split(perovskites(16, 1), "val"),
        "test": made_split(perovskites(8, 2), "test"),
    }
