"""Crystals of the user's own: CSV or Parquet, a folder of CIF and POSCAR, extxyz, an ASE database.

Reading a file gives entries, one for each crystal, with the properties found beside it. A crystal
that cannot be read stays an entry, so that it is reported by its name and not lost.
"""

from __future__ import annotations

import csv
import hashlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cdvae_core.crystal import Crystal
from cdvae_core.data.registry import SPLITS
from cdvae_core.errors import DatasetError, StructureError

Content = str | Path | Crystal | StructureError
_ID_COLUMNS = ("material_id", "id", "name")
_TABLES = (".csv", ".parquet")
_ASE_FRAMES = (".extxyz", ".xyz")


@dataclass(frozen=True)
class Entry:
    """One crystal before it is read.

    Attributes:
        id: its name in the source.
        content: CIF text, a CIF or POSCAR file, a crystal, or why there is none.
        properties: numbers beside it, by name; NaN where empty.
        split: train, val or test if the source says so.
    """

    id: str
    content: Content
    properties: Mapping[str, float] = field(default_factory=dict)
    split: str | None = None


def read_entries(path: Path) -> list[Entry]:
    """All entries of a file or folder.

    Raises:
        DatasetError: no such path, an unknown kind of file, no crystals, or two of one name.
    """
    if not path.exists():
        raise DatasetError(f"there is no {path}")
    kind = path.suffix.lower()
    if path.is_dir():
        entries = _read_folder(path)
    elif path.stat().st_size == 0:
        raise DatasetError(f"{path} is empty")
    elif kind in _TABLES:
        entries = read_table(path)
    elif kind in _ASE_FRAMES:
        entries = _read_frames(path)
    elif kind == ".db":
        entries = _read_database(path)
    elif is_structure_file(path):
        entries = [Entry(path.stem, path)]
    else:
        raise DatasetError(
            f"{path.name} is no CSV, Parquet, CIF, POSCAR, extxyz or ASE db file, nor a folder"
        )
    if not entries:
        raise DatasetError(f"there are no crystals in {path}")
    return _unique(entries, path)


def is_structure_file(path: Path) -> bool:
    """Whether the name is that of a CIF or a POSCAR."""
    name = path.name.upper()
    return path.suffix.lower() in (".cif", ".vasp", ".poscar") or name.startswith(
        ("POSCAR", "CONTCAR")
    )


def _unique(entries: list[Entry], path: Path) -> list[Entry]:
    seen = set()
    for entry in entries:
        if entry.id in seen:
            raise DatasetError(f"{path} has two crystals named {entry.id!r}: names must differ")
        seen.add(entry.id)
    return entries


def _read_folder(folder: Path) -> list[Entry]:
    files = sorted(p for p in folder.rglob("*") if p.is_file() and is_structure_file(p))
    return [Entry(str(path.relative_to(folder)), path) for path in files]


def read_table(path: Path, properties: Iterable[str] | None = None) -> list[Entry]:
    """The rows of a CSV or Parquet file.

    A table has a column `cif` with CIF texts, or the columns `numbers`, `lengths`, `angles` and
    `frac_coords` of the embedded sets.

    Args:
        path: the file.
        properties: names of columns; all that hold only numbers if None.

    Raises:
        DatasetError: the file is damaged or a column is missing.
    """
    rows = _csv_rows(path) if path.suffix.lower() == ".csv" else _parquet_rows(path)
    columns = list(rows[0]) if rows else []
    if "cif" not in columns and not {"numbers", "lengths", "angles", "frac_coords"} <= {*columns}:
        raise DatasetError(f"{path} has no column `cif`: it has {', '.join(columns) or 'nothing'}")
    if properties is None:
        properties = [c for c in columns if c not in _ID_COLUMNS and _numeric(rows, c)]
    missing = [name for name in properties if name not in columns]
    if missing:
        raise DatasetError(f"{path} has no column {missing[0]!r}: it has {', '.join(columns)}")
    id_column = next((name for name in _ID_COLUMNS if name in columns), None)
    return [
        Entry(
            str(row[id_column]) if id_column else str(i),
            _row_content(row),
            {name: _number(row[name]) for name in properties},
            row["split"] if row.get("split") in SPLITS else None,
        )
        for i, row in enumerate(rows)
    ]


def _csv_rows(path: Path) -> list[dict[str, Any]]:
    csv.field_size_limit(1 << 28)
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file, strict=True))
    except (csv.Error, UnicodeDecodeError) as error:
        raise DatasetError(f"{path} is no CSV file: {error}") from error


def _parquet_rows(path: Path) -> list[dict[str, Any]]:
    import pyarrow
    import pyarrow.parquet

    try:
        return pyarrow.parquet.read_table(path).to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise DatasetError(f"{path} is no Parquet file or is damaged: {error}") from error


def _row_content(row: Mapping[str, Any]) -> Content:
    if "cif" in row:
        return row["cif"] or StructureError("the `cif` column is empty")
    try:
        coords = np.asarray(row["frac_coords"], dtype=float).reshape(-1, 3)
        return Crystal.from_parameters(row["lengths"], row["angles"], coords, row["numbers"])
    except StructureError as error:
        return error
    except (TypeError, ValueError) as error:
        return StructureError(f"the row's arrays do not form a crystal: {error}")


def _number(value: Any) -> float:
    """A cell of a table: NaN if empty or no number."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan


def _numeric(rows: list[dict[str, Any]], column: str | None) -> bool:
    """Whether a named column holds numbers and nothing else but gaps, and at least one number."""
    if not column or column.startswith("Unnamed"):
        return False
    values = [row[column] for row in rows if not _is_gap(row[column])]
    return bool(values) and not any(math.isnan(_number(value)) for value in values)


def _is_gap(value: Any) -> bool:
    """Whether a cell of a table is empty, or NaN in one of its spellings."""
    if isinstance(value, str):
        return value.strip().lower() in ("", "nan", "na", "none", "null")
    return value is None or (isinstance(value, float) and math.isnan(value))


def _read_frames(path: Path) -> list[Entry]:
    from ase.io import iread
    from ase.io.extxyz import XYZError

    entries: list[Entry] = []
    try:
        for i, atoms in enumerate(iread(path, format="extxyz")):
            numbers = _scalars(atoms.info) | _scalars(atoms.calc.results if atoms.calc else {})
            names = [str(atoms.info[c]) for c in _ID_COLUMNS if c in atoms.info]
            entries.append(Entry(names[0] if names else str(i), _from_atoms(atoms), numbers))
    except (XYZError, ValueError, KeyError, IndexError, OSError) as error:
        raise DatasetError(f"frame {len(entries)} of {path} cannot be read: {error}") from error
    return _same_properties(entries)


def _read_database(path: Path) -> list[Entry]:
    import sqlite3

    import ase.db

    try:
        with ase.db.connect(path, type="db") as database:
            return _same_properties(
                [
                    Entry(
                        str(row.id),
                        _from_atoms(row.toatoms()),
                        _scalars(row.key_value_pairs)
                        | ({"energy": row.energy} if "energy" in row else {}),
                    )
                    for row in database.select()
                ]
            )
    except (sqlite3.Error, KeyError, ValueError) as error:
        raise DatasetError(f"{path} is no ASE database or is damaged: {error}") from error


def _from_atoms(atoms: Any) -> Content:
    """The crystal of ASE atoms, or why there is none."""
    if not all(atoms.pbc):
        return StructureError("the cell is not periodic along all three axes")
    lattice = np.array(atoms.cell)
    if not np.isfinite(lattice).all() or abs(np.linalg.det(lattice)) < 1e-9:
        return StructureError("the cell has no volume")
    try:
        return Crystal(atoms.numbers, atoms.positions @ np.linalg.inv(lattice), lattice)
    except StructureError as error:
        return error


def _scalars(values: Mapping[str, Any]) -> dict[str, float]:
    kinds = (int, float, np.integer, np.floating)
    return {
        name: float(value)
        for name, value in values.items()
        if isinstance(value, kinds) and not isinstance(value, bool) and name not in _ID_COLUMNS
    }


def _same_properties(entries: list[Entry]) -> list[Entry]:
    """Every entry with every property; NaN where it had none."""
    names = sorted({name for entry in entries for name in entry.properties})
    blank = dict.fromkeys(names, math.nan)
    return [Entry(e.id, e.content, blank | dict(e.properties), e.split) for e in entries]


def assign_splits(entries: list[Entry], seed: int = 0) -> dict[str, list[Entry]]:
    """The entries by split: as the source says, else 80/10/10 by a seeded shuffle."""
    if all(entry.split in SPLITS for entry in entries):
        return {split: [e for e in entries if e.split == split] for split in SPLITS}
    if any(entry.split in SPLITS for entry in entries):
        lacking = next(e.id for e in entries if e.split not in SPLITS)
        raise DatasetError(f"{lacking!r} has no split train, val or test, though others have one")
    order = np.random.default_rng(seed).permutation(len(entries))
    held_out = max(1, len(entries) // 10) if len(entries) >= 3 else 0
    chosen = {"val": order[:held_out], "test": order[held_out : 2 * held_out]}
    chosen["train"] = order[2 * held_out :]
    return {split: [entries[i] for i in sorted(chosen[split].tolist())] for split in SPLITS}


def source_digest(entries: Iterable[Entry], salt: str = "") -> str:
    """SHA-256 of all that the entries say, hexadecimal; files by their content."""
    digest = hashlib.sha256(salt.encode())
    for entry in entries:
        properties = sorted((k, float(v).hex()) for k, v in entry.properties.items())
        digest.update(repr((entry.id, properties)).encode())
        digest.update(_content_bytes(entry.content))
    return digest.hexdigest()


def _content_bytes(content: Content) -> bytes:
    if isinstance(content, Crystal):
        arrays = (content.atomic_numbers, content.frac_coords, content.lattice)
        return b"".join(np.ascontiguousarray(a).tobytes() for a in arrays)
    if isinstance(content, Path):
        return content.read_bytes()
    return str(content).encode()
