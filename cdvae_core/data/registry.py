"""Which datasets exist, what their columns mean, and where the official files are.

The three benchmarks come from the repository of the paper's authors. The checksums of their files
are git blob ids: the SHA-1 of `blob SIZE`, a zero byte, and the content. The embedded sets ship
with the package. A dataset of the user's own is described by a small JSON file in the cache.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import platformdirs

from cdvae_core.errors import DatasetError

SPLITS = ("train", "val", "test")
OFFICIAL_URL = (
    "https://raw.githubusercontent.com/txie-93/cdvae/f857f598d6f6cca5dc1ea0582d228f12dcc2c2ea/data"
)


@dataclass(frozen=True)
class OfficialFile:
    """One official CSV.

    Attributes:
        blob: git blob id, hexadecimal.
        rows: number of crystals.
    """

    blob: str
    rows: int


@dataclass(frozen=True)
class DatasetSpec:
    """One dataset.

    Attributes:
        name: as in commands and configurations.
        title: one line about what it is.
        properties: unit of each property, by the name of its column.
        default_property: the one that a model is trained on, None if there is none.
        max_atoms: most atoms in a cell.
        source: who made it.
        embedded: whether it ships with the package.
        files: the official CSV of each split; empty if there are none.
    """

    name: str
    title: str
    properties: Mapping[str, str]
    default_property: str | None
    max_atoms: int
    source: str
    embedded: bool = False
    files: Mapping[str, OfficialFile] = field(default_factory=dict)


_SPECS = (
    DatasetSpec(
        "perov_like",
        "perovskites ABX3 relaxed with CHGNet, on Castelli's composition grid",
        {"formation_energy_per_atom": "eV/atom"},
        "formation_energy_per_atom",
        5,
        "this package (CHGNet 0.3.0)",
        embedded=True,
    ),
    DatasetSpec(
        "mp_like",
        "crystals of many structure types relaxed with CHGNet",
        {"formation_energy_per_atom": "eV/atom"},
        "formation_energy_per_atom",
        12,
        "this package (CHGNet 0.3.0, AFLOW prototypes)",
        embedded=True,
    ),
    DatasetSpec(
        "perov_5",
        "18,928 perovskites of 5 atoms, all compositions of 56 elements on one structure type",
        {"heat_ref": "eV/atom", "heat_all": "eV/atom", "dir_gap": "eV", "ind_gap": "eV"},
        "heat_ref",
        5,
        "Castelli et al. 2012",
        files={
            "train": OfficialFile("0769074b5d51d293b765c4371b8f55c468c9c9f2", 11356),
            "val": OfficialFile("4a2c8dde98347dd0e01fa83dcf3982c2abe98f9f", 3787),
            "test": OfficialFile("d3c5d5af4b27a2a139149f2bb73c8a3dba9d8ac1", 3785),
        },
    ),
    DatasetSpec(
        "carbon_24",
        "10,153 carbon crystals of 6 to 24 atoms",
        {"energy_per_atom": "eV/atom"},
        "energy_per_atom",
        24,
        "Pickard 2020",
        files={
            "train": OfficialFile("5e7ae970fbad8ddc46b6963e8cd6e425f11783a6", 6091),
            "val": OfficialFile("b3e29b927883642426ca1d9632d00359b412742b", 2032),
            "test": OfficialFile("9beca843fde489de1fe288b32f9e3ff710d42803", 2030),
        },
    ),
    DatasetSpec(
        "mp_20",
        "45,229 stable and nearly stable crystals of up to 20 atoms from the Materials Project",
        {"formation_energy_per_atom": "eV/atom", "band_gap": "eV", "e_above_hull": "eV/atom"},
        "formation_energy_per_atom",
        20,
        "Materials Project, Jain et al. 2013",
        files={
            "train": OfficialFile("b1c9d498565ac2fd8d075a51ff2ef5e51ba6c21f", 27136),
            "val": OfficialFile("7efe4d7ebeb4f460ceaad35e5326c42111d9c9a1", 9047),
            "test": OfficialFile("5dc643041df53f5ce4970a79930ad262b4f07acd", 9046),
        },
    ),
)
DATASETS: dict[str, DatasetSpec] = {spec.name: spec for spec in _SPECS}


def cache_root(root: Path | str | None = None) -> Path:
    """The cache directory: `root`, else `CDVAE_DATA`, else the platform's user cache."""
    chosen = root or os.environ.get("CDVAE_DATA") or platformdirs.user_cache_dir("cdvae")
    return Path(chosen)


def embedded_folder() -> Path:
    """Where the embedded sets lie in the package."""
    return Path(__file__).parent / "embedded"


def dataset_spec(name: str, root: Path | None = None) -> DatasetSpec:
    """The dataset of that name, or the user's own that was built from that name or path.

    Raises:
        DatasetError: no such dataset.
    """
    if name in DATASETS:
        return DATASETS[name]
    own = user_datasets(root)
    if name in own:
        return own[name]
    for spec in own.values():
        if Path(spec.source) == Path(name).resolve():
            return spec
    known = ", ".join([*DATASETS, *own])
    raise DatasetError(
        f"no dataset {name!r}: choose one of {known}, or build your own with "
        "`cdvae data build FILE_OR_FOLDER`"
    )


def user_datasets(root: Path | None = None) -> dict[str, DatasetSpec]:
    """The user's own datasets that have been built into the cache."""
    found = {}
    for path in sorted((cache_root(root) / "prepared").glob("*.json")):
        try:
            found[path.stem] = DatasetSpec(**json.loads(path.read_text()))
        except (ValueError, TypeError) as error:
            raise DatasetError(f"{path} is damaged ({error}): delete it and build again") from error
    return found


def user_spec_content(spec: DatasetSpec) -> bytes:
    """A user's dataset as the content of its JSON file."""
    return json.dumps(asdict(spec), indent=1, default=dict).encode()
