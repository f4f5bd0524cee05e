"""The file of a preprocessed split: safetensors, mapped into memory, read without pymatgen.

A file holds Niggli cells, atoms and CrystalNN edges of all crystals of a split, laid end to end,
with a count per crystal. Its metadata hold the dataset's name, the notes about what is missing, the
structures that were skipped, and the fingerprint: the SHA-256 over names, notes, ids and arrays.
The fingerprint is computed again when a file is opened, so a damaged file is found out.

No split has to fit in memory. It is joined from the files of its parts and written piece by piece
(which the safetensors library cannot do, so the header is written here), and what is read of it are
the pages that a batch needs.

Edges count atoms within their crystal and are sorted by target; see `MultiGraph` for their meaning.
"""

from __future__ import annotations

import hashlib
import json
import math
import mmap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from cdvae_core.crystal import Crystal
from cdvae_core.errors import DatasetError
from cdvae_core.files import atomic_file

FORMAT = "cdvae-split-1"
PROPERTY = "property."
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
_CODES = {"|u1": "U8", "|i1": "I8", "<i2": "I16", "<i4": "I32", "<f8": "F64"}
_KINDS = {code: np.dtype(kind) for kind, code in _CODES.items()}
_PIECE = 2**24  # bytes that are read at once


@dataclass(frozen=True)
class _Place:
    """An array in a file: its type, its shape, and where its bytes are."""

    kind: np.dtype
    shape: tuple[int, ...]
    start: int = 0

    @property
    def size(self) -> int:
        return self.kind.itemsize * math.prod(self.shape)


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


def empty_arrays(properties: Sequence[str]) -> dict[str, np.ndarray]:
    """The arrays of a split without crystals."""
    width = {"lattice": (0, 3, 3), "frac_coords": (0, 3), "image": (0, 3)}
    arrays = {name: np.zeros(width.get(name, (0,)), kind) for name, kind in _ARRAYS.items()}
    return arrays | {PROPERTY + name: np.zeros(0) for name in properties}


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
    return arrays | {PROPERTY + key: np.array([float(v)]) for key, v in properties.items()}


def concatenate(parts: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Several splits' arrays, one after the other; all have the same names."""
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def fingerprint(arrays: Mapping[str, np.ndarray], info: SplitInfo) -> str:
    """The SHA-256 of a split's names, notes, ids and arrays, hexadecimal."""
    return _digest(_places(arrays), lambda name: [_bytes(arrays[name])], info)


def _places(arrays: Mapping[str, np.ndarray]) -> dict[str, _Place]:
    return {name: _Place(value.dtype, value.shape) for name, value in arrays.items()}


def _bytes(array: np.ndarray) -> memoryview:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def _digest(
    places: Mapping[str, _Place],
    pieces: Callable[[str], Iterable[bytes | memoryview]],
    info: SplitInfo,
) -> str:
    digest = hashlib.sha256(json.dumps([info.dataset, info.split, list(info.notes)]).encode())
    for name in sorted(places):
        digest.update(f"{name} {places[name].kind.str} {places[name].shape}".encode())
        for piece in pieces(name):
            digest.update(piece)
    return digest.hexdigest()


def write_split(path: Path, arrays: Mapping[str, np.ndarray], info: SplitInfo) -> SplitInfo:
    """Write a split atomically; the returned info has the fingerprint."""
    return _write(path, _places(arrays), lambda name: [_bytes(arrays[name])], info)


def join_splits(parts: Sequence[Path], path: Path, info: SplitInfo) -> SplitInfo:
    """Write the split that all parts, one after the other, are; the info has the fingerprint.

    The parts are read piece by piece, so that neither they nor the split need fit in memory.

    Raises:
        DatasetError: a part is damaged.
    """
    found = [_read_header(part)[1] for part in parts]
    places = {}
    for name, first in found[0].items():
        count = sum(part[name].shape[0] for part in found)
        places[name] = replace(first, shape=(count, *first.shape[1:]))

    def pieces(name: str) -> Iterator[bytes]:
        for part, header in zip(parts, found, strict=True):
            yield from _read_pieces(part, header[name])

    return _write(path, places, pieces, info)


def _write(
    path: Path,
    places: Mapping[str, _Place],
    pieces: Callable[[str], Iterable[bytes | memoryview]],
    info: SplitInfo,
) -> SplitInfo:
    info = replace(info, fingerprint=_digest(places, pieces, info))
    order = sorted(
        places, key=lambda name: (-places[name].kind.itemsize, places[name].kind.kind, name)
    )
    with atomic_file(path) as file:
        file.write(_header(places, order, info))
        for name in order:
            for piece in pieces(name):
                file.write(piece)
    return info


def _header(places: Mapping[str, _Place], order: Sequence[str], info: SplitInfo) -> bytes:
    """The wide types come first, so that all arrays are aligned."""
    metadata = {
        "format": FORMAT,
        "dataset": info.dataset,
        "split": info.split,
        "source": info.source,
        "notes": json.dumps(info.notes),
        "skipped": json.dumps([[s.id, s.reason] for s in info.skipped]),
        "fingerprint": info.fingerprint,
    }
    header: dict[str, object] = {"__metadata__": dict(sorted(metadata.items()))}
    start = 0
    for name in order:
        place = places[name]
        header[name] = {
            "dtype": _CODES[place.kind.str],
            "shape": place.shape,
            "data_offsets": [start, start + place.size],
        }
        start += place.size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _read_header(path: Path) -> tuple[SplitInfo, dict[str, _Place]]:
    """The metadata, and where the arrays are; the library has checked that the file is whole."""
    info = read_info(path)
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    del header["__metadata__"]
    return info, {
        name: _Place(_KINDS[a["dtype"]], tuple(a["shape"]), 8 + length + a["data_offsets"][0])
        for name, a in header.items()
    }


def count_crystals(path: Path) -> int:
    """How many a split has, from its header.

    Raises:
        DatasetError: not a file of this format.
    """
    return _read_header(path)[1]["num_atoms"].shape[0]


def _read_pieces(path: Path, place: _Place) -> Iterator[bytes]:
    left = place.size
    with path.open("rb") as file:
        file.seek(place.start)
        while left:
            piece = file.read(min(left, _PIECE))
            left -= len(piece)
            yield piece


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


def check_split(path: Path) -> SplitInfo:
    """The metadata, once the arrays have been found to agree with the fingerprint.

    Raises:
        DatasetError: not a file of this format, truncated or changed.
    """
    return _checked(path)[0]


def _checked(path: Path) -> tuple[SplitInfo, dict[str, _Place]]:
    info, places = _read_header(path)
    if _digest(places, lambda name: _read_pieces(path, places[name]), info) != info.fingerprint:
        raise _damaged(path, "its content does not agree with its fingerprint")
    return info, places


def map_split(path: Path) -> tuple[SplitInfo, dict[str, np.ndarray], mmap.mmap]:
    """The metadata, all arrays (read-only, mapped), and the map that they lie in.

    Raises:
        DatasetError: not a file of this format, truncated or changed.
    """
    info, places = _checked(path)
    with path.open("rb") as file:
        content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    arrays = {
        name: np.frombuffer(content, at.kind, math.prod(at.shape), at.start).reshape(at.shape)
        for name, at in places.items()
    }
    return info, arrays, content


def _damaged(path: Path, why: str) -> DatasetError:
    return DatasetError(
        f"{path} is no preprocessed split or is damaged ({why}): "
        "delete it and run `cdvae data build` again"
    )


def split_path(folder: Path, dataset: str, split: str) -> Path:
    """The file of one split."""
    return folder / f"{dataset}-{split}.safetensors"
