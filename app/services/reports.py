"""Evaluations to put side by side: those that ship with checkpoints, and one's own.

A checkpoint's folder may hold `reports/TASK.json` or `reports/TASK_VARIANT.json`, and beside it a
`.parquet` (a row for each crystal) and an `.extxyz` (a few crystals to look at) of the same name.
`CDVAE_REPORTS` names more folders, such as those that `cdvae evaluate` writes.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from app.services.checkpoints import checkpoint_folders
from cdvae_core.crystal import Crystal
from cdvae_core.errors import CdvaeError, DatasetError

if TYPE_CHECKING:
    import pandas as pd

    from cdvae_core.evaluation.report import Report

EXTRA = "CDVAE_REPORTS"  # folders of reports, separated as in PATH
TASKS = ("reconstruction", "generation", "optimisation", "stability")
PICTURES = 12
_NONE = "no report.json of `cdvae evaluate`"


Scale = tuple[str, str]  # reference and cut-offs: what figures must share to be compared


@dataclass(frozen=True, eq=False)
class Found:
    """One report.

    Attributes:
        title: whose it is.
        table, pictures: files beside it, None where there are none.
    """

    title: str
    report: Report
    table: Path | None = None
    pictures: Path | None = None

    @property
    def scale(self) -> Scale:
        return self.report.meta["reference"] or "no reference", self.report.meta["cutoffs"]


def found() -> tuple[list[Found], list[str]]:
    """All reports, and a sentence for each that cannot be read."""
    kept, wrong = [], []
    for title, path in _places():
        try:
            kept.append(_read(title, path))
        except CdvaeError as error:
            wrong.append(str(error))
    return kept, wrong


def uploaded(name: str, content: bytes) -> Found:
    """A report.json that a person brings.

    Raises:
        DatasetError: it is none.
    """
    from cdvae_core.evaluation.report import Report

    try:
        report = Report(**json.loads(content))
    except (ValueError, TypeError, RecursionError) as error:
        raise DatasetError(f"{name} is {_NONE}") from error
    _check(report, name)
    return Found(f"{report.name}, {name}", report)


def _check(report: Report, name: str) -> None:
    """Whether the page Compare can show it: a file may hold anything under the right names.

    Raises:
        DatasetError: it cannot.
    """
    from cdvae_core.evaluation.glossary import counted, shown
    from cdvae_core.metrics.coverage import CUTOFFS

    try:
        if report.task not in TASKS or report.meta["cutoffs"] not in CUTOFFS:
            raise TypeError("another kind of file")
        if not isinstance(report.meta["reference"], str | None):
            raise TypeError("a reference has a name")
        _ = counted(report.counts), counted(report.floor_counts), f"{report.meta['n']:,}"
        _ = [shown(*one) for one in (*report.metrics.items(), *report.noise_floor.items())]
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
        raise DatasetError(f"{name} is {_NONE}") from error


def _places() -> list[tuple[str, Path]]:
    from cdvae_core.evaluation.glossary import with_variant

    shipped = [
        (with_variant(name, path.stem.partition("_")[2]), path)  # such as generation_gaussian
        for name, folder in checkpoint_folders().items()
        for path in sorted((folder / "reports").glob("*.json"))
    ]
    folders = [Path(p) for p in os.environ.get(EXTRA, "").split(os.pathsep) if p]
    own = [(path.parent.name, path) for f in folders for path in sorted(f.rglob("report.json"))]
    return shipped + own


def _read(title: str, path: Path) -> Found:
    from cdvae_core.evaluation.report import read

    report = read(path)
    _check(report, str(path))
    tables = (path.with_suffix(".parquet"), path.with_name("per_structure.parquet"))
    pictures = path.with_suffix(".extxyz")
    return Found(
        title,
        report,
        next((t for t in tables if t.is_file()), None),
        pictures if pictures.is_file() else None,
    )


def rows_of(one: Found) -> pd.DataFrame | None:
    """The table of its crystals."""
    import pandas as pd

    return None if one.table is None else pd.read_parquet(one.table)


def crystals_of(one: Found) -> list[tuple[str, Crystal]]:
    """Its pictures, with names; of a reconstruction original and result by turns."""
    from ase.io import read

    if one.pictures is None:
        return []
    frames = read(one.pictures, index=f":{PICTURES}", format="extxyz")
    return [
        (
            str(frame.info.get("name", "")),
            Crystal(frame.numbers, frame.get_scaled_positions(), frame.cell.array),
        )
        for frame in frames
    ]


def reference_file(scale: Scale) -> Path | None:
    """The split that a reference is, None where it is not built here."""
    from cdvae_core.data.cache import find_split

    dataset, _, split = scale[0].partition(":")
    try:
        return find_split(dataset, split)
    except CdvaeError:  # no dataset of this machine
        return None


def reference_rows(scale: Scale) -> dict[str, np.ndarray]:
    """Density and number of elements of the reference itself, which is built here."""
    from app.services.latent_map import LatentMap
    from cdvae_core.data.cache import open_split

    dataset, _, split = scale[0].partition(":")
    data = open_split(dataset, split)
    of = LatentMap({split: data}, np.empty((len(data), 0)), np.empty((len(data), 2)))
    return {"density": of.density, "num_elements": of.num_elements}


def reconstruction_errors(folder: Path, splits: dict[str, int]) -> np.ndarray | None:
    """The RMSE of each crystal of some splits, laid end to end; NaN where there is none.

    Args:
        folder: of a checkpoint; its report names crystals by split and place.
        splits: how many crystals each has.

    Returns:
        None where the checkpoint ships no reconstructions of these splits.
    """
    import pandas as pd

    path = folder / "reports" / "reconstruction.parquet"
    if not path.is_file():
        return None
    table = pd.read_parquet(path)
    if not {"id", "rmse"} <= set(table.columns):
        return None
    starts = dict(zip(splits, np.cumsum([0, *splits.values()]), strict=False))
    errors = np.full(sum(splits.values()), np.nan)
    hit = False
    for name, rmse in zip(table["id"], table["rmse"], strict=True):
        split, place, _ = str(name).rsplit("-", 2)
        if split in starts and int(place) < splits[split]:
            errors[starts[split] + int(place)] = rmse
            hit = True
    return errors if hit else None
