"""What is shared by all sessions and pages: models, splits, maps. The only user of st.cache_*.

Everything here is read, never changed, by those who get it.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import streamlit as st

from app.services import checkpoints, datasets, facts, latent_map
from app.services.checkpoints import CheckpointInfo
from app.services.jobs import Job
from cdvae_core.crystal import Crystal
from cdvae_core.data.cache import CachedSplit, find_split, open_split
from cdvae_core.data.registry import dataset_spec

if TYPE_CHECKING:
    from cdvae_core.model import CDVAE


@st.cache_resource(max_entries=4, show_spinner="Loading the model")
def _model(path: Path, stamp: int) -> CDVAE:
    from cdvae_core import CDVAE

    return CDVAE.load(path)


def model(info: CheckpointInfo) -> CDVAE:
    """The weights of a checkpoint, read once until its files change."""
    return _model(info.path, info.stamp)


@st.cache_resource(max_entries=12, show_spinner=False)
def _split(dataset: str, split: str, stamp: int) -> CachedSplit:
    return open_split(dataset, split)


def split(dataset: str, name: str) -> CachedSplit:
    """A preprocessed split, read once until its file changes."""
    path = find_split(dataset, name)
    return _split(dataset, name, path.stat().st_mtime_ns if path else 0)


@st.cache_data(max_entries=20, show_spinner=False)
def card(path: Path, stamp: int) -> str:
    return checkpoints.card(path)


@st.cache_data(max_entries=20, show_spinner=False)
def dataset_facts(name: str) -> datasets.DatasetFacts:
    return datasets.dataset_facts(name)


@st.cache_data(max_entries=500, show_spinner=False, hash_funcs={Crystal: lambda c: (
    c.atomic_numbers.tobytes(), c.frac_coords.tobytes(), c.lattice.tobytes())})  # fmt: skip
def crystal_facts(crystal: Crystal) -> facts.CrystalFacts:
    return facts.crystal_facts(crystal)


@st.cache_resource(max_entries=6, show_spinner=False)
def _map_job(path: Path, stamp: int, dataset: str, names: tuple[str, ...]) -> Job:
    loaded = _model(path, stamp)
    splits = {name: split(dataset, name) for name in names}
    units = dict(dataset_spec(dataset).properties)
    work = partial(latent_map.build_map, model=loaded, folder=path, splits=splits, units=units)
    return Job(work, needs_polls=False)


def map_job(info: CheckpointInfo, dataset: str, names: tuple[str, ...]) -> Job:
    """The map of some splits, one job for all sessions; its result is a `LatentMap`."""
    return _map_job(info.path, info.stamp, dataset, names)


def forget_map(info: CheckpointInfo, dataset: str, names: tuple[str, ...]) -> None:
    """Let a failed map be tried again."""
    _map_job.clear(info.path, info.stamp, dataset, names)
