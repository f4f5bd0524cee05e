"""The preprocessed cache: splits, and the batches that training reads from them.

Nothing here needs pymatgen. The files are described in `cdvae_core.data.format`.
"""

from __future__ import annotations

import mmap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from cdvae_core.crystal import Crystal, CrystalBatch
from cdvae_core.data.format import (
    PROPERTY,
    Skipped,
    SplitInfo,
    concatenate,
    map_split,
    pack,
    split_path,
)
from cdvae_core.data.registry import SPLITS, cache_root, dataset_spec, embedded_folder
from cdvae_core.errors import DatasetError
from cdvae_core.graph import MultiGraph

__all__ = [
    "CachedSplit",
    "LabelledBatch",
    "Skipped",
    "SplitInfo",
    "concatenate",
    "find_split",
    "open_split",
    "pack",
    "read_split",
]


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
    """A preprocessed split.

    Attributes:
        info: names, notes, skipped structures and fingerprint.
        arrays: the file's arrays, see `cdvae_core.data.format`.
        properties: one `[crystals]` array for each property, NaN where unknown.
        content: the map of the file that the arrays lie in; None if they are in memory.
    """

    info: SplitInfo
    arrays: Mapping[str, np.ndarray]
    properties: Mapping[str, np.ndarray] = field(default_factory=dict)
    content: mmap.mmap | None = None

    def __len__(self) -> int:
        return len(self.num_atoms)

    def __deepcopy__(self, memo: object) -> CachedSplit:
        return self  # nothing in it changes; weight averaging copies the module that holds it

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

    def some(self, n: int | None, generator: torch.Generator) -> list[int]:
        """Places of `n` crystals drawn at random, ascending; all if None, or if there are fewer."""
        return torch.randperm(len(self), generator=generator)[:n].sort().values.tolist()

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
        known = torch.from_numpy(prop.astype(np.float32))
        return LabelledBatch(crystals, graph, known, torch.from_numpy(index))

    def release(self) -> None:
        """Give back the memory of what was read from the file; it is read again when needed."""
        if self.content is not None and hasattr(mmap, "MADV_DONTNEED"):
            self.content.madvise(mmap.MADV_DONTNEED)

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


def read_split(path: Path) -> CachedSplit:
    """Open a split once it has been checked against its fingerprint.

    Raises:
        DatasetError: not a file of this format, truncated or changed.
    """
    info, arrays, content = map_split(path)
    properties = {
        name.removeprefix(PROPERTY): value
        for name, value in arrays.items()
        if name.startswith(PROPERTY)
    }
    return CachedSplit(info, arrays, properties, content)


def find_split(dataset: str, split: str, root: Path | None = None) -> Path | None:
    """The file of a preprocessed split, or None where there is none yet.

    An embedded set is read from the package, any other from the cache directory.
    """
    spec = dataset_spec(dataset, root)
    folder = embedded_folder() if spec.embedded else cache_root(root) / "prepared"
    path = split_path(folder, spec.name, split)
    return path if path.exists() else None


def open_split(dataset: str, split: str, root: Path | str | None = None) -> CachedSplit:
    """Open a preprocessed split.

    Args:
        dataset: a name of the registry, or the name or path of the user's own that was built.
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
