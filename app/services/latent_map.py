"""The map of a dataset's latents: where each crystal lies, and what it can be coloured by."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from app.services.chemistry import AMU_PER_A3, plain
from app.services.datasets import formulas_of
from cdvae_core.crystal import SYMBOLS, Crystal
from cdvae_core.data.cache import CachedSplit
from cdvae_core.errors import DatasetError

if TYPE_CHECKING:
    from app.services.jobs import Job
    from cdvae_core.model import CDVAE


GRID = 48  # empty places in each direction
BATCH = 64  # crystals encoded between two looks at the job


@dataclass(frozen=True, eq=False)
class LatentMap:
    """Crystals of one or more splits, laid end to end, and their places.

    Attributes:
        splits: by name, in order.
        latents: mu, `[points, latent]`.
        places: `[points, 2]` or `[points, 3]`, UMAP coordinates without unit.
        units: of the properties.
        guesses: `[points]`, the checkpoint's own property of z; None if it predicts none.
    """

    splits: dict[str, CachedSplit]
    latents: np.ndarray
    places: np.ndarray
    units: dict[str, str] = field(default_factory=dict)
    guesses: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.places)

    @cached_property
    def ids(self) -> list[str]:
        return [name for split in self.splits.values() for name in split.ids]

    @cached_property
    def index_of(self) -> dict[str, int]:
        """The point of each id; the first where two splits share one."""
        return {name: i for i, name in reversed(list(enumerate(self.ids)))}

    def locate(self, point: int) -> tuple[CachedSplit, int]:
        """The split of a point and its place in there."""
        for split in self.splits.values():
            if point < len(split):
                return split, point
            point -= len(split)
        raise IndexError(f"the map has no point {point} beyond its last")

    def crystal(self, point: int) -> Crystal:
        split, i = self.locate(point)
        return split.crystal(i)

    @cached_property
    def split_names(self) -> np.ndarray:
        return np.repeat(list(self.splits), [len(s) for s in self.splits.values()])

    @cached_property
    def num_atoms(self) -> np.ndarray:
        return np.concatenate([s.num_atoms for s in self.splits.values()])

    @cached_property
    def fractions(self) -> np.ndarray:
        """`[points, 101]`, the share of each element in a crystal, by atomic number."""
        numbers = np.concatenate([s.arrays["atomic_numbers"] for s in self.splits.values()])
        owner = np.repeat(np.arange(len(self)), self.num_atoms)
        counts = np.zeros((len(self), 101), dtype=np.float32)
        np.add.at(counts, (owner, numbers.astype(np.int64)), 1)
        return counts / self.num_atoms[:, None]

    @cached_property
    def num_elements(self) -> np.ndarray:
        return (self.fractions > 0).sum(1)

    @cached_property
    def elements(self) -> list[str]:
        """Symbols that occur, the most frequent first."""
        crystals = (self.fractions > 0).sum(0)
        order = np.argsort(-crystals, kind="stable")
        return [SYMBOLS[z] for z in order if crystals[z]]

    @cached_property
    def density(self) -> np.ndarray:
        """g/cm3."""
        from ase.data import atomic_masses

        cells = np.concatenate([s.arrays["lattice"] for s in self.splits.values()])
        mass = self.fractions @ atomic_masses[:101] * self.num_atoms
        return mass / np.abs(np.linalg.det(cells)) * AMU_PER_A3

    @cached_property
    def formulas(self) -> list[str]:
        return [name for split in self.splits.values() for name in formulas_of(split)]

    @cached_property
    def empty_places(self) -> np.ndarray:
        """`[places, 2]`, a grid over a flat map without the places that are near a point."""
        from scipy.spatial import cKDTree

        low, high = self.places.min(0), self.places.max(0)
        steps = [np.linspace(a, b, GRID) for a, b in zip(low, high, strict=True)]
        grid = np.stack(np.meshgrid(*steps), -1).reshape(-1, 2)
        away, _ = cKDTree(self.places).query(grid)
        return grid[away > 1.5 * float((high - low).max()) / GRID].astype(np.float32)

    @property
    def properties(self) -> list[str]:
        """Properties that every split has, in the order of `units`, then others."""
        splits = list(self.splits.values())
        shared = [p for p in splits[0].properties if all(p in s.properties for s in splits)]
        order = list(self.units)
        return sorted(shared, key=lambda p: order.index(p) if p in order else len(order))

    def prop(self, name: str) -> np.ndarray:
        """A property of every point, NaN where unknown."""
        return np.concatenate([s.properties[name] for s in self.splits.values()])


def build_map(
    job: Job,
    model: CDVAE,
    folder: Path,
    splits: dict[str, CachedSplit],
    units: dict[str, str],
    components: int = 2,
) -> LatentMap | None:
    """Encode what has not been encoded before, then project; None if the job is to stop.

    Raises:
        DatasetError: a crystal of the splits has more atoms than the checkpoint knows.
        ConfigError: the checkpoint's latents are not finite.
    """
    from cdvae_core.latent import project

    job.report(0.0, "Reading latents")
    total = sum(len(s) for s in splits.values())
    parts: list[np.ndarray] = []
    for split in splits.values():
        most, limit = int(split.num_atoms.max()), model.config.max_atoms
        if most > limit:
            raise DatasetError(
                f"{split.info.dataset} has crystals of {most} atoms, but this checkpoint was made "
                f"for up to {limit}: choose another dataset or checkpoint"
            )
        part = _encode(job, model, folder, split, sum(map(len, parts)), total)
        if part is None:
            return None
        parts.append(part)
    latents = np.concatenate(parts)
    job.report(0.7, "Laying out the map (UMAP)")
    places = project(latents, components=components, shipped=folder)
    made = LatentMap(splits, latents, places, units, _guesses(model, latents))
    job.report(0.97, "Reading compositions")
    _ = made.formulas, made.index_of, made.density  # worked out here, not in the page's way
    return made


def _guesses(model: CDVAE, latents: np.ndarray) -> np.ndarray | None:
    import torch

    if model.fc_property is None:
        return None
    with torch.no_grad():
        return model.predict_property(torch.as_tensor(latents, dtype=model.dtype)).numpy()


def _encode(
    job: Job, model: CDVAE, folder: Path, split: CachedSplit, before: int, total: int
) -> np.ndarray | None:
    from cdvae_core.encode import encode_split
    from cdvae_core.latent import read_latents, write_latents

    known = read_latents(folder, split)
    if known is not None:
        return known
    made: list[np.ndarray] = []
    for first in range(0, len(split), BATCH):
        if job.stopping:
            return None
        chosen = range(first, min(first + BATCH, len(split)))
        made.append(encode_split(model, split, chosen).numpy())
        done = before + chosen.stop
        job.report(0.7 * done / total, f"Encoding crystals, {done:,} of {total:,}")
    latents = np.concatenate(made)
    write_latents(folder, split, latents)
    return latents


def neighbours(of: LatentMap, point: int, count: int = 5) -> Sequence[tuple[int, float]]:
    """The points nearest to one in latent space, itself left out, with their distances."""
    from cdvae_core.latent import nearest

    index, distance = nearest(of.latents[point : point + 1], of.latents, count + 1)
    pairs = zip(index[0].tolist(), distance[0].tolist(), strict=True)
    return [(i, d) for i, d in pairs if i != point][:count]


def find(of: LatentMap, text: str) -> int | None:
    """The first point of that id, or of that formula whatever the order of its elements.

    Capitals count, except where they give no hit: catio3 and CATIO3 are CaTiO3. But CO is not Co.
    """
    if text in of.index_of:
        return of.index_of[text]
    text = plain(text)
    meant = readings(text)
    if sum(c.isalpha() for c in text) > 2:
        meant += readings(text.lower())
    for counts in meant:
        share = np.zeros(101, dtype=np.float32)
        for symbol, count in counts.items():
            share[SYMBOLS.index(symbol)] = count / sum(counts.values())
        hits = np.flatnonzero(np.abs(of.fractions - share).max(1) < 1e-4)
        if len(hits):
            return int(hits[0])
    return None


def readings(text: str) -> list[dict[str, int]]:
    """What a formula may mean: {'Sr': 1, 'Ti': 1, 'O': 3} of SrTiO3, none if it is no formula.

    A text without capitals may mean several things; symbols of two letters are tried first.
    """
    if not re.fullmatch(r"([A-Za-z]{1,2}\d{0,3}){1,7}", text):  # at most 610 readings
        return []
    any_case = text == text.lower()

    def rest(place: int) -> list[dict[str, int]]:
        if place == len(text):
            return [{}]
        found = []
        for length in (2, 1):
            part = text[place : place + length]
            symbol = part.capitalize() if any_case else part
            if len(part) < length or symbol not in SYMBOLS[1:]:
                continue
            digits = re.match(r"\d*", text[place + length :])
            assert digits is not None  # it matches nothing at all
            number = int(digits[0] or 1)
            for other in rest(place + length + len(digits[0])):
                if number:
                    found.append({symbol: number + other.pop(symbol, 0)} | other)
        return found

    return list({tuple(sorted(one.items())): one for one in rest(0)}.values())
