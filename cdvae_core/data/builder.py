"""Build a dataset: read it, split it, preprocess it into the cache.

The embedded sets are made from nothing by their own recipe; benchmarks and the user's own crystals
are read from their files.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from cdvae_core.data.custom import Entry, assign_splits, read_entries, read_table
from cdvae_core.data.fetch import fetched, read_raw
from cdvae_core.data.format import SplitInfo, split_path
from cdvae_core.data.preprocess import prepare_split
from cdvae_core.data.registry import (
    DATASETS,
    SPLITS,
    DatasetSpec,
    cache_root,
    user_datasets,
    user_spec_content,
)
from cdvae_core.errors import DatasetError
from cdvae_core.files import write_atomically
from cdvae_core.structures import MAX_ATOMS


def build(
    name: str,
    *,
    limit: int | None = None,
    workers: int = 1,
    out: Path | None = None,
    root: Path | None = None,
    seed: int = 0,
    progress: bool = True,
) -> Iterator[SplitInfo]:
    """Build a dataset, yielding each split as it is done: train, test, val.

    Args:
        name: a dataset, or the path of a file or folder of the user's own.
        limit: at most so many crystals in a split; of an embedded set, so many in all.
        workers: processes.
        out: folder for the result, the cache if None. `open_split` looks only into the cache, and
            into the package for the embedded sets.
        root: the cache directory.
        seed: for the recipe of an embedded set.
        progress: show bars on stderr.

    Raises:
        DatasetError: nothing there, not fetched, or nothing in it is usable.
    """
    if limit is not None and limit < 1:
        raise DatasetError(f"limit is {limit}: ask for at least 1 crystal")
    own = None
    notes: dict[str, list[str]] = {}
    folder = out or cache_root(root) / "prepared"
    if name in DATASETS and DATASETS[name].embedded:
        folder = out or cache_root(root) / "made"
        splits = _make_embedded(name, limit, workers, folder, seed)
    elif name in DATASETS:
        splits, notes = _read_benchmark(DATASETS[name], limit, root)
    else:
        own, splits = _read_own(name, root)
        splits, notes = _limited(splits, limit)
        name = own.name
    for split in ("train", "test", "val"):
        if not splits[split]:
            split_path(folder, name, split).unlink(missing_ok=True)
            continue
        info = prepare_split(
            splits[split], folder, name, split,
            notes=notes.get(split, ()), workers=workers, progress=progress,
        )  # fmt: skip
        if own is not None:
            write_atomically(folder / f"{name}.json", user_spec_content(own))
        yield info


def _limited(
    splits: dict[str, list[Entry]], limit: int | None
) -> tuple[dict[str, list[Entry]], dict[str, list[str]]]:
    """The first `limit` entries of each split, and a note where some are left out."""
    notes = {
        split: [f"only the first {limit:,} of {len(entries):,} rows of {split}"]
        for split, entries in splits.items()
        if limit is not None and len(entries) > limit
    }
    return {split: entries[:limit] for split, entries in splits.items()}, notes


def _make_embedded(
    name: str, limit: int | None, workers: int, folder: Path, seed: int
) -> dict[str, list[Entry]]:
    from cdvae_core.data.embedded.build import build as make

    path = make(name, folder, seed=seed, limit=limit, workers=workers)
    return assign_splits(read_table(path, DATASETS[name].properties))


def _read_benchmark(
    spec: DatasetSpec, limit: int | None, root: Path | None
) -> tuple[dict[str, list[Entry]], dict[str, list[str]]]:
    source = fetched(spec, root)
    if source is None:
        raise DatasetError(f"{spec.name} is not there: run `cdvae data fetch {spec.name}` first")
    splits, notes = _limited({split: read_raw(spec, source, split) for split in SPLITS}, limit)
    return splits, {s: [*source.notes.get(s, []), *notes.get(s, [])] for s in SPLITS}


def _read_own(given: str, root: Path | None) -> tuple[DatasetSpec, dict[str, list[Entry]]]:
    """A dataset of the user's own, given by its path, or by its name to build it again."""
    own = user_datasets(root)
    path = Path(own[given].source) if given in own else Path(given)
    if not path.exists():
        known = ", ".join([*DATASETS, *own])
        raise DatasetError(f"{given!r} is neither a dataset ({known}) nor a file or folder")
    path = path.resolve()
    name = path.name if path.is_dir() else path.stem
    if name in DATASETS:
        raise DatasetError(f"{name!r} is the name of a known dataset: rename {path}")
    if name in own and Path(own[name].source) != path:
        raise DatasetError(
            f"there is a dataset {name!r} already, from {own[name].source}: rename {path}"
        )
    entries = read_entries(path)
    properties = list(entries[0].properties)
    spec = DatasetSpec(
        name,
        f"{len(entries):,} crystals of {path.name}",
        dict.fromkeys(properties, ""),
        properties[0] if properties else None,
        MAX_ATOMS,
        str(path),
    )
    return spec, assign_splits(entries)
