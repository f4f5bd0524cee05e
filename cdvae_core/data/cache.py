"""The preprocessed cache: one safetensors file per split, read without pymatgen.

A file holds Niggli cells, atoms and CrystalNN edges of all crystals of a split, laid end to end,
with a count per crystal. Its metadata hold the dataset's name, the notes about what is missing, the
structures that were skipped, and the fingerprint: the SHA-256 over names, notes, ids and arrays.
The fingerprint is computed again when a file is opened, so a damaged file is found out.

Edges count atoms within their crystal and are sorted by target; see `MultiGraph` for their meaning.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from torch import Tensor

from cdvae_core.crystal import Crystal, CrystalBatch
from cdvae_core.data.registry import SPLITS, cache_root, dataset_spec, embedded_folder
from cdvae_core.errors import DatasetError
from cdvae_core.graph import MultiGraph

FORMAT = "cdvae-split-1"
_PROPERTY = "property."
_ARRAYS = {
    "id_bytes": np.uint8,
    "id_length": np.int32,
    "num_atoms": np.int32,
    "num_edges": np.int32,
    "lattice": np.float64,
    "atomic_numbers": np.uint8,
    "frac_coords": np.float64,
    "source": np.int16,
    "target": np.int16,
    "image": np.int8,
}


@dataclass(frozen=True)
class Skipped:
    """A structure that could not be used.

    Attributes:
        id: as in the source.
        reason: one sentence.
    """

    id: str
    reason: str


@dataclass(frozen=True)
class SplitInfo:
    """What is known of a split besides its arrays.

    Attributes:
        dataset, split: names.
        source: SHA-256 of what it was made from.
        notes: what is incomplete or special; part of the fingerprint.
        skipped: structures left out.
        fingerprint: SHA-256 of names, notes, ids and arrays, hexadecimal.
    """

    dataset: str
    split: str
    source: str = ""
    notes: tuple[str, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    fingerprint: str = ""


@dataclass(frozen=True, eq=False)
class LabelledBatch:
    """What a training step needs.

    Attributes:
        crystals: float32.
        graph: their CrystalNN multigraph.
        prop: `[crystals]`, in the property's unit, NaN where unknown.
        index: `[crystals]`, place in the split.
    """

    crystals: CrystalBatch
    graph: MultiGraph
    prop: Float[Tensor, " crystals"]
    index: Int[Tensor, " crystals"]

    def to(self, device: torch.device | str) -> LabelledBatch:
        return LabelledBatch(
            self.crystals.to(device=device),
            self.graph.to(device),
            self.prop.to(device),
            self.index.to(device),
        )


@dataclass(frozen=True, eq=False)
class CachedSplit:
    """A preprocessed split in memory.

    Attributes:
        info: names, notes, skipped structures and fingerprint.
        arrays: the file's arrays (module docstring).
        properties: one `[crystals]` array for each property, NaN where unknown.
    """

    info: SplitInfo
    arrays: Mapping[str, np.ndarray]
    properties: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.num_atoms)

    @property
    def num_atoms(self) -> np.ndarray:
        """`[crystals]`."""
        return self.arrays["num_atoms"]

    @property
    def fingerprint(self) -> str:
        """See `SplitInfo`."""
        return self.info.fingerprint

    @cached_property
    def ids(self) -> list[str]:
        """The crystals' names in their source, in order."""
        ends = np.cumsum(self.arrays["id_length"]).tolist()
        text = self.arrays["id_bytes"].tobytes()
        return [text[start:end].decode() for start, end in zip([0, *ends[:-1]], ends, strict=True)]

    @cached_property
    def _first_atom(self) -> np.ndarray:
        return _starts(self.num_atoms)

    @cached_property
    def _first_edge(self) -> np.ndarray:
        return _starts(self.arrays["num_edges"])

    def crystal(self, i: int) -> Crystal:
        """Crystal `i` of the split in double precision."""
        first = self._first_atom[i]
        atoms = slice(first, first + self.num_atoms[i])
        return Crystal(
            self.arrays["atomic_numbers"][atoms],
            self.arrays["frac_coords"][atoms],
            self.arrays["lattice"][i],
        )

    def batch(
        self, indices: Sequence[int] | np.ndarray | Tensor, property_name: str | None = None
    ) -> LabelledBatch:
        """Some crystals of the split, in the given order.

        Args:
            indices: `[crystals]`, places in the split.
            property_name: which property; without one `prop` is NaN.

        Raises:
            DatasetError: no such property, no index, or an index out of range.
        """
        index = np.asarray(indices, dtype=np.int64)
        self._check(index, property_name)
        a = self.arrays
        num_atoms = self.num_atoms[index].astype(np.int64)
        num_edges = a["num_edges"][index].astype(np.int64)
        atoms = _ranges(self._first_atom[index], num_atoms)
        edges = _ranges(self._first_edge[index], num_edges)
        offset = np.repeat(_starts(num_atoms), num_edges)
        prop = np.full(len(index), np.nan)
        if property_name is not None:
            prop = self.properties[property_name][index]
        crystals = CrystalBatch(
            torch.from_numpy(a["atomic_numbers"][atoms].astype(np.int64)),
            torch.from_numpy(a["frac_coords"][atoms].astype(np.float32)),
            torch.from_numpy(a["lattice"][index].astype(np.float32)),
            torch.from_numpy(num_atoms),
        )
        graph = MultiGraph(
            torch.from_numpy(a["source"][edges] + offset),
            torch.from_numpy(a["target"][edges] + offset),
            torch.from_numpy(a["image"][edges].astype(np.int64)),
        )
        prop = torch.from_numpy(prop.astype(np.float32))
        return LabelledBatch(crystals, graph, prop, torch.from_numpy(index))

    def _check(self, index: np.ndarray, property_name: str | None) -> None:
        name = f"{self.info.dataset} {self.info.split}"
        if property_name is not None and property_name not in self.properties:
            known = ", ".join(self.properties) or "none"
            raise DatasetError(f"{name} has no property {property_name!r}: it has {known}")
        if index.ndim != 1 or len(index) == 0:
            raise DatasetError(f"a batch of {name} needs a list of at least one index")
        if index.min() < 0 or index.max() >= len(self):
            raise DatasetError(
                f"index {index.min() if index.min() < 0 else index.max()} is outside of {name}, "
                f"which has {len(self)} crystals"
            )


def _starts(counts: np.ndarray) -> np.ndarray:
    """Where each run begins if runs of these lengths are laid end to end."""
    return np.cumsum(counts, dtype=np.int64) - counts


def _ranges(starts: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The integers of all ranges [start, start + count), laid end to end."""
    shift = np.repeat(starts - _starts(counts), counts)
    return shift + np.arange(len(shift))


def empty_arrays(properties: Sequence[str]) -> dict[str, np.ndarray]:
    """The arrays of a split without crystals."""
    width = {"lattice": (0, 3, 3), "frac_coords": (0, 3), "image": (0, 3)}
    arrays = {name: np.zeros(width.get(name, (0,)), kind) for name, kind in _ARRAYS.items()}
    return arrays | {_PROPERTY + name: np.zeros(0) for name in properties}


def pack(
    identifier: str,
    crystal: Crystal,
    edges: tuple[np.ndarray, np.ndarray, np.ndarray],
    properties: Mapping[str, float],
) -> dict[str, np.ndarray]:
    """One crystal as arrays of a split.

    Args:
        identifier: its name.
        crystal: what to store.
        edges: source `[edges]`, target `[edges]` and image `[edges, 3]`, sorted by target.
        properties: by name.
    """
    name = np.frombuffer(identifier.encode(), np.uint8)
    source, target, image = edges
    values = {
        "id_bytes": name,
        "id_length": [len(name)],
        "num_atoms": [crystal.num_atoms],
        "num_edges": [len(source)],
        "lattice": crystal.lattice[None],
        "atomic_numbers": crystal.atomic_numbers,
        "frac_coords": crystal.frac_coords,
        "source": source,
        "target": target,
        "image": image,
    }
    arrays = {key: np.asarray(value).astype(_ARRAYS[key]) for key, value in values.items()}
    return arrays | {_PROPERTY + key: np.array([float(v)]) for key, v in properties.items()}


def concatenate(parts: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Several splits' arrays, one after the other; all have the same names."""
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def fingerprint(arrays: Mapping[str, np.ndarray], info: SplitInfo) -> str:
    """The SHA-256 of a split's names, notes, ids and arrays, hexadecimal."""
    digest = hashlib.sha256(json.dumps([info.dataset, info.split, list(info.notes)]).encode())
    for name in sorted(arrays):
        value = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {value.dtype.str} {value.shape}".encode())
        digest.update(value.data)
    return digest.hexdigest()


def write_split(path: Path, arrays: Mapping[str, np.ndarray], info: SplitInfo) -> SplitInfo:
    """Write a split atomically; the returned info has the fingerprint."""
    metadata = {
        "format": FORMAT,
        "dataset": info.dataset,
        "split": info.split,
        "source": info.source,
        "notes": json.dumps(info.notes),
        "skipped": json.dumps([[s.id, s.reason] for s in info.skipped]),
        "fingerprint": fingerprint(arrays, info),
    }
    content = save({name: np.ascontiguousarray(v) for name, v in arrays.items()}, metadata)
    write_atomically(path, content)
    return SplitInfo(
        info.dataset, info.split, info.source, info.notes, info.skipped, metadata["fingerprint"]
    )


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that a reader sees the old content or the whole new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def read_info(path: Path) -> SplitInfo:
    """The metadata alone, without the arrays.

    Raises:
        DatasetError: not a file of this format.
    """
    try:
        with safe_open(path, "numpy") as file:
            metadata = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise _damaged(path, str(error)) from error
    if metadata.get("format") != FORMAT:
        found = metadata.get("format", "no format")
        raise _damaged(path, f"it says {found!r}, not {FORMAT!r}")
    return SplitInfo(
        metadata["dataset"],
        metadata["split"],
        metadata["source"],
        tuple(json.loads(metadata["notes"])),
        tuple(Skipped(*pair) for pair in json.loads(metadata["skipped"])),
        metadata["fingerprint"],
    )


def read_split(path: Path) -> CachedSplit:
    """Read a split and check it against its fingerprint.

    Raises:
        DatasetError: not a file of this format, truncated or changed.
    """
    info = read_info(path)
    try:
        with safe_open(path, "numpy") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise _damaged(path, str(error)) from error
    if fingerprint(arrays, info) != info.fingerprint:
        raise _damaged(path, "its content does not agree with its fingerprint")
    properties = {
        name.removeprefix(_PROPERTY): value
        for name, value in arrays.items()
        if name.startswith(_PROPERTY)
    }
    return CachedSplit(info, arrays, properties)


def _damaged(path: Path, why: str) -> DatasetError:
    return DatasetError(
        f"{path} is no preprocessed split or is damaged ({why}): "
        "delete it and run `cdvae data build` again"
    )


def split_path(folder: Path, dataset: str, split: str) -> Path:
    """The file of one split."""
    return folder / f"{dataset}-{split}.safetensors"


def find_split(dataset: str, split: str, root: Path | None = None) -> Path | None:
    """The file of a preprocessed split, or None where there is none yet.

    An embedded set is read from the package, any other from the cache directory.
    """
    if dataset_spec(dataset, root).embedded:
        path = split_path(embedded_folder(), dataset, split)
    else:
        path = split_path(cache_root(root) / "prepared", dataset, split)
    return path if path.exists() else None


def open_split(dataset: str, split: str, root: Path | str | None = None) -> CachedSplit:
    """Open a preprocessed split.

    Args:
        dataset: a name of the registry, or of a dataset of the user's that was built.
        split: train, val or test.
        root: the cache directory; `CDVAE_DATA` or the platform's if None.

    Raises:
        DatasetError: unknown names, a split that has not been built, or a damaged file.
    """
    root = None if root is None else Path(root)
    if split not in SPLITS:
        raise DatasetError(f"no split {split!r}: choose one of {', '.join(SPLITS)}")
    path = find_split(dataset, split, root)
    if path is None:
        fetch = f"cdvae data fetch {dataset}` and `" if dataset_spec(dataset, root).files else ""
        raise DatasetError(
            f"{dataset} {split} is not in {cache_root(root)}: run `{fetch}cdvae data build "
            f"{dataset}`"
        )
    return read_split(path)
