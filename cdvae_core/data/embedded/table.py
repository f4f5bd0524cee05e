"""From relaxed records to the shipped Parquet file: duplicates out, split, columns.

Columns: id, split, formula, numbers, lengths (Å), angles (degrees), frac_coords (`atoms * 3`),
formation_energy_per_atom (eV/atom) and what the recipe adds (`kind` or `prototype`). The file's
metadata hold the build's report under the key `cdvae`, as JSON.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Lattice, Structure

from cdvae_core.errors import DatasetError
from cdvae_core.files import write_atomically

BLOCK = ("train", "train", "train", "val", "test")
METADATA_KEY = b"cdvae"


def to_structure(record: dict) -> Structure:
    """The pymatgen structure of a record, or of a row of the Parquet file."""
    lattice = Lattice.from_parameters(*record["lengths"], *record["angles"])
    coords = np.asarray(record["frac_coords"], dtype=float).reshape(-1, 3)
    return Structure(lattice, np.asarray(record["numbers"], dtype=int).tolist(), coords)


class Selection:
    """The first `size` distinct crystals among the entries it is given, in their order.

    Two crystals of one reduced formula are the same where pymatgen's StructureMatcher, with its
    default tolerances, fits one to the other: such a pair must not end up in two splits.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.records: list[dict] = []
        self.failures: dict[str, int] = defaultdict(int)
        self.duplicates = 0
        self._by_formula: dict[str, list[Structure]] = defaultdict(list)
        self._matcher = StructureMatcher()

    @property
    def full(self) -> bool:
        """Whether all `size` crystals are there."""
        return len(self.records) == self.size

    @property
    def tried(self) -> int:
        """How many candidates were looked at: the first so many, since they come in order."""
        return len(self.records) + self.duplicates + sum(self.failures.values())

    def restore(self, records: list[dict], report: dict) -> None:
        """Start as a smaller build ended: with its records and its report (see `read_table`)."""
        self.records, self.duplicates = records, report["duplicates"]
        self.failures.update(report["failures"])
        for record in records:
            structure = to_structure(record)
            self._by_formula[structure.composition.reduced_formula].append(structure)

    def add(self, entries: Iterable[dict]) -> None:
        """Take entries of the shards (see `shards`), those not tried yet, until full."""
        for entry in entries:
            if self.full:
                return
            if entry["index"] < self.tried:
                continue
            if "reason" in entry:
                self.failures[entry["reason"]] += 1
            else:
                self._add_record(entry["index"], entry["record"])

    def _add_record(self, index: int, record: dict) -> None:
        structure = to_structure(record)
        twins = self._by_formula[structure.composition.reduced_formula]
        if any(self._matcher.fit(structure, twin) for twin in twins):
            self.duplicates += 1
            return
        twins.append(structure)
        self.records.append({"candidate": index} | record)

    def report(self) -> dict[str, object]:
        """Counts: tried, kept, duplicates, and failures by reason."""
        failures = dict(sorted(self.failures.items(), key=lambda item: -item[1]))
        return {
            "tried": self.tried,
            "kept": len(self.records),
            "duplicates": self.duplicates,
            "failures": failures,
        }


def split_names(count: int, seed: int) -> list[str]:
    """train, val or test for each of `count` crystals: three, one and one of every five.

    Each five are shuffled by the seed and their place alone, so that more crystals never move one
    to another split.
    """
    names: list[str] = []
    for block in range(-(-count // len(BLOCK))):
        names += [str(name) for name in np.random.default_rng([seed, block]).permutation(BLOCK)]
    return names[:count]


def read_table(path: Path) -> tuple[list[dict], dict]:
    """The records and the report of a written table, as a `Selection` made them.

    Raises:
        DatasetError: the file is damaged, or was not written here.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
        report = json.loads((table.schema.metadata or {})[METADATA_KEY])
    except (pa.ArrowException, OSError, KeyError, json.JSONDecodeError) as error:
        raise DatasetError(f"{path} is damaged or was not made here: move it away") from error
    rows = table.to_pylist()
    for row in rows:
        row["candidate"] = int(row.pop("id").rsplit("-", 1)[1])
        del row["split"]
    return rows, report


def write_table(records: list[dict], path: Path, report: dict[str, Any]) -> Path:
    """Write the records as Parquet (zstd), atomically, with the report in its metadata.

    Args:
        records: of a `Selection`.
        path: of the file; its folder is made.
        report: what the file's metadata say; must hold `name` and `seed`.

    Returns:
        `path`.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    splits = split_names(len(records), int(report["seed"]))
    rows = [
        {"id": f"{report['name']}-{record['candidate']:05d}", "split": split}
        | {key: value for key, value in record.items() if key != "candidate"}
        | {"frac_coords": [x % 1.0 % 1.0 for x in record["frac_coords"]]}  # -1e-17 % 1.0 is 1.0
        for record, split in zip(records, splits, strict=True)
    ]
    note = json.dumps(report).encode()
    table = pa.Table.from_pylist(rows).replace_schema_metadata({METADATA_KEY: note})
    content = BytesIO()
    pq.write_table(table, content, compression="zstd", compression_level=19)
    write_atomically(path, content.getvalue())
    return path
