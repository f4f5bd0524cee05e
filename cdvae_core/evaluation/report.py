"""What an evaluation leaves: `report.json`, `per_structure.parquet` and `report.html`."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from io import BytesIO
from pathlib import Path
from typing import Any

from cdvae_core import __version__
from cdvae_core.errors import DatasetError
from cdvae_core.evaluation.glossary import MEANINGS, counted, shown
from cdvae_core.evaluation.inputs import Crystals
from cdvae_core.evaluation.scoring import Judge, Scored
from cdvae_core.files import write_atomically

FLOOR_NAME = "noise floor"
Figures = dict[str, float | None]
_LIBRARIES = ("pymatgen", "matminer", "smact", "spglib", "scipy", "numpy", "torch")


@dataclass
class Report:
    """All of an evaluation but its table.

    Attributes:
        task: reconstruction, generation, optimisation or stability.
        name: of the input.
        metrics: figures by name.
        noise_floor: the same figures for training crystals in the input's place.
        counts, floor_counts: how many crystals these are over.
        meta: reference, seed, versions, time.
        notes: what is to be known to read the figures.
    """

    task: str
    name: str
    metrics: dict[str, float | None]
    noise_floor: dict[str, float | None]
    counts: dict[str, int]
    floor_counts: dict[str, int]
    meta: dict[str, Any]
    notes: list[str] = field(default_factory=list)

    def text(self) -> str:
        """A table for the terminal."""
        lines = [f"{self.task} of {self.name} against {self.meta['reference']}"]
        lines += [f"{'':34}{'':>11}{'noise floor':>13}"]
        for name, value in self.metrics.items():
            title = MEANINGS[name].title if name in MEANINGS else name
            floor = shown(name, self.noise_floor.get(name))
            lines.append(f"{title:34}{shown(name, value):>11}{floor:>13}")
        lines.append(f"Over {counted(self.counts)}.")
        if self.floor_counts:
            lines.append(
                f"Noise floor: training crystals in their place, {counted(self.floor_counts)}."
            )
        lines += self.notes
        return "\n".join(lines)


Columns = Sequence[tuple[str, Report]]


def noise_floors(columns: Columns) -> list[tuple[str, Figures]]:
    """The noise floors of reports side by side, by title.

    Floors differ with the reference and with the number of crystals: each comes once, and where
    there is more than one, with the reference and, if need be, what it is over.
    """
    found: dict[tuple[str | None, str], Figures] = {}
    for _, report in columns:
        if report.noise_floor:
            of = (report.meta.get("reference"), counted(report.floor_counts))
            found.setdefault(of, report.noise_floor)
    if len(found) == 1:
        return [(FLOOR_NAME, figures) for figures in found.values()]
    references = [reference for reference, _ in found]
    named = []
    for (reference, over), figures in found.items():
        title = f"{FLOOR_NAME}, {reference}"
        title += f", over {over}" if references.count(reference) > 1 else ""
        named.append((title, figures))
    return named


def make(
    task: str,
    given: Crystals,
    reference: Crystals | None,
    judge: Judge,
    scored: Scored,
    floor: Scored | None,
    notes: Sequence[str],
    since: float,
) -> Report:
    """A report of what was scored."""
    meta = {
        "n": len(given),
        "reference": reference.name if reference else None,
        "reference_fingerprint": reference.fingerprint if reference else None,
        "cutoffs": judge.cutoffs,
        "network": judge.network,
        "seed": judge.seed,
        "seconds": round(time.monotonic() - since, 1),
        "versions": {"cdvae": __version__} | {name: _version(name) for name in _LIBRARIES},
    }
    data_notes = [
        f"{side.name}: {note}" for side in (given, reference) if side for note in side.notes
    ]
    return Report(
        task,
        given.name,
        _plain(scored.metrics),
        _plain(floor.metrics) if floor else {},
        scored.counts,
        floor.counts if floor else {},
        meta,
        [*notes, *data_notes, *scored.notes],
    )


def write(report: Report, scored: Scored, floor: Scored | None, out: Path) -> None:
    """The three files, each whole or not there."""
    from cdvae_core.evaluation.html import page

    write_atomically(out / "per_structure.parquet", _parquet(scored.table))
    write_atomically(out / "report.html", page(report, scored, floor).encode())
    write_atomically(out / "report.json", json.dumps(vars(report), indent=1).encode())


def read(path: Path) -> Report:
    """A `report.json`, or the one in a folder.

    Raises:
        DatasetError: it is missing or no such file.
    """
    file = path / "report.json" if path.is_dir() else path
    try:
        return Report(**json.loads(file.read_text(encoding="utf-8")))
    except OSError as error:
        raise DatasetError(f"{file} cannot be opened: {error.strerror}") from error
    except (ValueError, TypeError) as error:
        raise DatasetError(f"{file} is no report of `cdvae evaluate`: {error}") from error


def _plain(metrics: dict[str, float]) -> dict[str, float | None]:
    """JSON knows no NaN."""
    return {name: value if math.isfinite(value) else None for name, value in metrics.items()}


def _version(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:
        return "unknown"


def _parquet(table: list[dict[str, Any]]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = dict.fromkeys(name for row in table for name in row)  # the first row may lack some
    columns = {name: [row.get(name) for row in table] for name in names}
    content = BytesIO()
    pq.write_table(pa.table(columns), content, compression="zstd")
    return content.getvalue()
