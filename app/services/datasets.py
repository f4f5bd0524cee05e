"""What can be said of a dataset as a whole, and a few of its crystals to look at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from app.services.chemistry import formula
from cdvae_core.crystal import SYMBOLS, Crystal
from cdvae_core.data.cache import CachedSplit, find_split, open_split
from cdvae_core.data.registry import (
    DATASETS,
    SPLITS,
    dataset_spec,
    embedded_folder,
    user_datasets,
)


@dataclass(frozen=True)
class DatasetFacts:
    """One dataset in numbers.

    Attributes:
        sizes: crystals by split; splits that are not built are left out.
        atoms: fewest and most atoms in a cell.
        elements: how many different elements occur.
        prop, unit: the property a model is trained on, None if none.
        spread: its 5 % quantile, median and 95 % quantile, None without a property.
        notes: what is incomplete or special.
        skipped: structures that could not be used.
    """

    name: str
    title: str
    source: str
    sizes: dict[str, int]
    atoms: tuple[int, int]
    elements: int
    prop: str | None
    unit: str
    spread: tuple[float, float, float] | None
    notes: tuple[str, ...]
    skipped: int


def ready_datasets() -> list[str]:
    """Datasets of which at least the test split can be opened now."""
    return [name for name in (*DATASETS, *user_datasets()) if find_split(name, "test")]


def dataset_facts(name: str) -> DatasetFacts:
    """Facts over all built splits.

    Raises:
        DatasetError: unknown, or no split of it is built.
    """
    spec = dataset_spec(name)
    built = [s for s in SPLITS if find_split(name, s)] or ["test"]  # opening says what to run
    splits = {s: open_split(name, s) for s in built}
    numbers = np.concatenate([s.arrays["atomic_numbers"] for s in splits.values()])
    counts = np.concatenate([s.num_atoms for s in splits.values()])
    prop = spec.default_property
    known = [s.properties[prop] for s in splits.values() if prop and prop in s.properties]
    notes = dict.fromkeys(note for s in splits.values() for note in s.info.notes)
    return DatasetFacts(
        name, spec.title, spec.source, {s: len(v) for s, v in splits.items()},
        (int(counts.min()), int(counts.max())), len(np.unique(numbers)), prop,
        spec.properties.get(prop or "", ""), _spread(known), tuple(notes),
        sum(len(s.info.skipped) for s in splits.values()),
    )  # fmt: skip


def data_card(name: str) -> str:
    """How an embedded dataset was made, as Markdown; empty for any other."""
    if not dataset_spec(name).embedded:
        return ""
    file = embedded_folder() / f"{name}.md"
    return file.read_text(encoding="utf-8") if file.is_file() else ""


def _spread(values: Sequence[np.ndarray]) -> tuple[float, float, float] | None:
    joined = np.concatenate(values) if values else np.zeros(0)
    joined = joined[np.isfinite(joined)]
    if not len(joined):
        return None
    low, middle, high = (float(q) for q in np.quantile(joined, (0.05, 0.5, 0.95)))
    return low, middle, high


def elements_of(split: CachedSplit) -> list[str]:
    """Symbols that occur, by atomic number."""
    return [SYMBOLS[z] for z in np.unique(split.arrays["atomic_numbers"]).tolist()]


def formulas_of(split: CachedSplit) -> list[str]:
    """The formula of each crystal."""
    ends = np.cumsum(split.num_atoms)[:-1]
    return [formula(n) for n in np.split(np.asarray(split.arrays["atomic_numbers"]), ends)]


def gallery(split: CachedSplit, count: int = 3, seed: int = 0) -> list[tuple[str, Crystal]]:
    """A few crystals with their ids, the same each time, unlike in their elements if possible."""
    order = np.random.default_rng(seed).permutation(len(split))[:200].tolist()
    unlike: list[int] = []
    seen: set[int] = set()
    for i in order:
        rare = set(split.crystal(i).atomic_numbers.tolist()) - {7, 8, 9}
        if not rare & seen:
            unlike.append(i)
            seen |= rare
    alike = [i for i in order if i not in unlike]  # all carbons are
    return [(split.ids[i], split.crystal(i)) for i in [*unlike, *alike][:count]]
