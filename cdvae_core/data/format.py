"""The file of a preprocessed split: safetensors, read without pymatgen.

A file holds Niggli cells, atoms and CrystalNN edges of all crystals of a split, laid end to end,
with a count per crystal. Its metadata hold the dataset's name, the notes about what is missing, the
structures that were skipped, and the fingerprint: the SHA-256 over names, notes, ids and arrays.
The fingerprint is computed again when a file is opened, so a damaged file is found out.

Edges count atoms within their crystal and are sorted by target; see `MultiGraph` for their meaning.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from cdvae_core.crystal import Crystal
from cdvae_core.errors import DatasetError
from cdvae_core.files import write_atomically

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
    write_atomically(path, _in_order(content))
    return SplitInfo(
        info.dataset, info.split, info.source, info.notes, info.skipped, metadata["fingerprint"]
    )


def _in_order(content: bytes) -> bytes:
    """The file with its metadata sorted: the library writes them in another order each time."""
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + content[start:]


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


def read_arrays(path: Path) -> tuple[SplitInfo, dict[str, np.ndarray]]:
    """The metadata and all arrays, checked against the fingerprint.

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
    return info, arrays


def _damaged(path: Path, why: str) -> DatasetError:
    return DatasetError(
        f"{path} is no preprocessed split or is damaged ({why}): "
        "delete it and run `cdvae data build` again"
    )


def split_path(folder: Path, dataset: str, split: str) -> Path:
    """The file of one split."""
    return folder / f"{dataset}-{split}.safetensors"
