"""Crystals to be scored, whoever made them: one list of entries from every kind of input.

A crystal that cannot be read stays in the list with its reason: it counts against the model.
"""

from __future__ import annotations

import json
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cdvae_core.crystal import Crystal
from cdvae_core.data.cache import open_split
from cdvae_core.data.custom import read_entries
from cdvae_core.data.registry import SPLITS
from cdvae_core.errors import CheckpointError, DatasetError, StructureError
from cdvae_core.metrics import restricted_pickle
from cdvae_core.structures import load

_ARRAYS = ("frac_coords", "atom_types", "lengths", "angles", "num_atoms")


@dataclass(frozen=True)
class Broken:
    """What is no crystal.

    Attributes:
        reason: one sentence.
        atomic_numbers: its atoms, if at least they are known.
    """

    reason: str
    atomic_numbers: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Crystals:
    """Crystals to be scored, or to score against.

    Attributes:
        name: of the file, or DATASET:SPLIT.
        ids: one for each crystal.
        items: the crystals, `Broken` where there is none.
        tries: decodings of each reference crystal, one after the other.
        reference: what each `tries` items try to be, where the input says so.
        fingerprint: of the dataset split that this is, if it is one.
        dataset: that this is a split of, or that its reference was drawn from.
        notes: what is to be known of the data.
        starts: of an optimisation: so many crystals belong to each saved step.
        goal: of an optimisation, in words; `minimise` is what success rates are of.
    """

    name: str
    ids: Sequence[str]
    items: Sequence[Crystal | Broken]
    tries: int = 1
    reference: Crystals | None = None
    fingerprint: str | None = None
    dataset: str | None = None
    notes: Sequence[str] = ()
    starts: int | None = None
    goal: str | None = None

    def __len__(self) -> int:
        return len(self.items)

    @property
    def true(self) -> list[Crystal] | None:
        """What each item tries to be, where that is known of all of them."""
        if self.reference is None:
            return None
        true = [item for item in self.reference.items if isinstance(item, Crystal)]
        if len(true) * self.tries != len(self.items):
            return None
        return [item for item in true for _ in range(self.tries)]

    def subset(self, places: Sequence[int]) -> Crystals:
        """Some of them, as a set of their own."""
        return Crystals(
            self.name,
            [self.ids[i] for i in places],
            [self.items[i] for i in places],
            fingerprint=self.fingerprint,
            dataset=self.dataset,
            notes=self.notes,
        )


def read(given: str) -> Crystals:
    """Crystals from DATASET:SPLIT, a folder or zip of CIFs, extxyz, CSV, ASE db, or `eval_*.pt`.

    Raises:
        DatasetError: no such dataset or file, a damaged one, or nothing in it.
    """
    dataset, colon, split = given.rpartition(":")
    if colon and split in SPLITS and not Path(given).exists():
        return _of_split(dataset, split)
    path = Path(given)
    if path.suffix.lower() == ".pt":
        return _published(path)
    if (path / "manifest.json").is_file():
        return _own_output(path)
    if path.suffix.lower() == ".zip":
        return _zipped(path)
    ids, items = _entries(path)
    return Crystals(path.resolve().name, ids, items)  # `.` has no name of its own


def _of_split(dataset: str, split: str) -> Crystals:
    source = open_split(dataset, split)
    return Crystals(
        f"{dataset}:{split}",
        source.ids,
        [source.crystal(i) for i in range(len(source))],
        fingerprint=source.fingerprint,
        dataset=dataset,
        notes=source.info.notes,
    )


def _entries(path: Path) -> tuple[list[str], list[Crystal | Broken]]:
    ids: list[str] = []
    items: list[Crystal | Broken] = []
    for entry in read_entries(path):
        ids.append(entry.id)
        try:
            items.append(load(entry.content))
        except StructureError as error:
            items.append(Broken(str(error)))
    return ids, items


def _own_output(folder: Path) -> Crystals:
    """What `cdvae sample` or `cdvae reconstruct` wrote, the reference included."""
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        entries = manifest["crystals"]
        ids = [entry["name"] for entry in entries]
        items = [_own_crystal(folder, entry) for entry in entries]
        tries = int(manifest.get("k", 1))
        starts = int(manifest["starts"]) if "starts" in manifest else None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DatasetError(f"{folder / 'manifest.json'} is damaged: {error}") from error
    if not items:
        raise DatasetError(f"there are no crystals in {folder}")
    reference = folder / "reference.extxyz"
    true = None
    if reference.is_file():
        dataset = manifest.get("dataset")
        name = f"{dataset}:{manifest.get('split')}"
        true = Crystals(name, *_entries(reference), dataset=dataset)
    if true is not None and len(true) * tries > len(items):  # a run that was stopped
        true = true.subset(range(len(items) // tries))
        ids, items = ids[: len(true) * tries], items[: len(true) * tries]
    if not items:
        raise DatasetError(f"{folder} was stopped before the {tries} decodings of any crystal")
    return Crystals(
        folder.name, ids, items, tries, true,
        dataset=manifest.get("dataset"), starts=starts, goal=manifest.get("goal"),
    )  # fmt: skip


def _own_crystal(folder: Path, entry: dict[str, Any]) -> Crystal | Broken:
    if "cif" not in entry:
        return Broken(str(entry.get("problem", "it was not decoded")))
    try:
        return load(folder / entry["cif"])
    except StructureError as error:
        return Broken(str(error))


def _zipped(path: Path) -> Crystals:
    with tempfile.TemporaryDirectory() as scratch:
        try:
            with zipfile.ZipFile(path) as archive:
                archive.extractall(scratch)  # which keeps to the folder
        except (OSError, zipfile.BadZipFile, RuntimeError, NotImplementedError) as error:
            raise DatasetError(f"{path} is no readable zip file: {error}") from error
        ids, items = _entries(Path(scratch))
    return Crystals(path.name, ids, items)


def _published(path: Path) -> Crystals:
    """`eval_*.pt` of the published code: k tries of each crystal, and what they try to be.

    Only tensors and plain containers are built; its settings and its PyG batch become inert.
    """
    try:
        content = restricted_pickle.load(path)
    except CheckpointError as error:
        raise DatasetError(str(error)) from error
    arrays = _arrays_in(content)
    if arrays is None:
        raise DatasetError(f"{path} holds no {', '.join(_ARRAYS)}: it is no published eval_*.pt")
    batch = content.get("input_data_batch") if isinstance(content, dict) else None
    true_arrays = None if batch is None else _arrays_in(batch)
    try:
        tries = [
            list(_split({k: v[i] for k, v in arrays.items()}))
            for i in range(len(arrays["num_atoms"]))
        ]
        true = None if true_arrays is None else list(_split(true_arrays))
    except (IndexError, ValueError, TypeError) as error:
        raise DatasetError(f"{path}: its arrays do not belong together: {error}") from error
    count, k = len(tries[0]), len(tries)
    reference = None
    if true is not None:
        if len(true) != count:
            raise DatasetError(f"{path}: {count} crystals were made from {len(true)}")
        reference = Crystals("input_data_batch", [str(i) for i in range(count)], true)
    return Crystals(
        path.name,
        [f"{i}-{j}" if k > 1 else str(i) for i in range(count) for j in range(k)],
        [tries[j][i] for i in range(count) for j in range(k)],
        k,
        reference,
    )


def _arrays_in(content: Any, depth: int = 6) -> dict[str, np.ndarray] | None:
    """The five arrays, wherever an object of the published code or of PyG keeps them."""
    if isinstance(content, dict):
        if all(hasattr(content.get(name), "numpy") for name in _ARRAYS):
            return {name: content[name].numpy() for name in _ARRAYS}
        inside = list(content.values())
    elif isinstance(content, restricted_pickle.Placeholder):
        inside = [content.state, *content.arguments, *content.named.values()]
    elif isinstance(content, list | tuple):
        inside = list(content)
    else:
        return None
    if depth == 0:
        return None
    found = (_arrays_in(part, depth - 1) for part in inside)
    return next((arrays for arrays in found if arrays is not None), None)


def _split(arrays: dict[str, np.ndarray]) -> Iterator[Crystal | Broken]:
    sizes = arrays["num_atoms"].astype(int)
    if sizes.sum() != len(arrays["frac_coords"]):
        raise ValueError(
            f"{sizes.sum()} atoms are announced, {len(arrays['frac_coords'])} are there"
        )
    ends = sizes.cumsum()
    for start, end, lengths, angles in zip(
        ends - sizes, ends, arrays["lengths"], arrays["angles"], strict=True
    ):
        numbers = arrays["atom_types"][start:end].astype(int)
        try:
            yield Crystal.from_parameters(
                lengths, angles, arrays["frac_coords"][start:end], numbers
            )
        except StructureError as error:
            yield Broken(str(error), tuple(numbers.tolist()))
