"""What is shared by all sessions and pages: models, splits, maps. The only user of st.cache_*.

Everything here is read, never changed, by those who get it.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import streamlit as st

from app.services import checkpoints, datasets, facts, judging, latent_map, reports
from app.services.checkpoints import CheckpointInfo
from app.services.chemistry import pretty
from app.services.jobs import Job
from cdvae_core.crystal import Crystal
from cdvae_core.data.cache import CachedSplit, find_split, open_split
from cdvae_core.data.registry import dataset_spec

if TYPE_CHECKING:
    from torch import Tensor

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


@st.cache_resource(max_entries=12, show_spinner=False)
def _titles(dataset: str, name: str, stamp: int) -> list[str]:
    loaded = split(dataset, name)
    return [
        f"{pretty(name)}  {i}"
        for name, i in zip(datasets.formulas_of(loaded), loaded.ids, strict=True)
    ]


def titles(dataset: str, name: str) -> list[str]:
    """Formula and id of each crystal of a split."""
    path = find_split(dataset, name)
    return _titles(dataset, name, path.stat().st_mtime_ns if path else 0)


@st.cache_resource(max_entries=200, show_spinner=False)
def _latent(path: Path, stamp: int, dataset: str, name: str, place: int) -> Tensor:
    from cdvae_core.encode import encode_split

    return encode_split(_model(path, stamp), split(dataset, name), [place])[0]


def latent(info: CheckpointInfo, dataset: str, name: str, place: int) -> Tensor:
    """mu of one crystal."""
    return _latent(info.path, info.stamp, dataset, name, place)


@st.cache_resource(max_entries=20, show_spinner="Encoding")
def _latents(path: Path, stamp: int, dataset: str, name: str, count: int) -> Tensor:
    from cdvae_core.encode import encode_split

    return encode_split(_model(path, stamp), split(dataset, name), range(count))


def latents(info: CheckpointInfo, dataset: str, name: str, count: int) -> Tensor:
    """mu of the first crystals of a split."""
    return _latents(info.path, info.stamp, dataset, name, count)


@st.cache_data(max_entries=6, show_spinner=False)
def _thresholds(dataset: str, prop: str, stamp: int) -> tuple[float, ...]:
    from cdvae_core.metrics.optimisation import THRESHOLDS, thresholds_of

    return THRESHOLDS.get(dataset) or thresholds_of(split(dataset, "train").properties[prop])


def thresholds(info: CheckpointInfo) -> tuple[float, ...] | None:
    """The 5, 10 and 15 % percentiles of the property in training, None without the data."""
    if not (info.dataset and info.prop) or not find_split(info.dataset, "train"):
        return None
    return _thresholds(info.dataset, info.prop, info.stamp)


def training(dataset: str | None) -> CachedSplit | None:
    """The training split of a checkpoint's dataset, None where it is not built."""
    return split(dataset, "train") if dataset and find_split(dataset, "train") else None


@st.cache_resource(max_entries=6, show_spinner="Reading the training data")
def _judge(path: Path, stamp: int, dataset: str | None, prop: str | None) -> judging.Judge:
    from cdvae_core.metrics.predictor import Predictor, known

    network = Predictor.load(dataset) if dataset in known() else None
    if network is not None and network.about.prop != prop:
        network = None
    return judging.Judge(network, training(dataset))


def judge(info: CheckpointInfo) -> judging.Judge:
    """Who judges what a checkpoint makes: rules, an independent network, its training data."""
    return _judge(info.path, info.stamp, info.dataset, info.prop)


@st.cache_data(max_entries=6, show_spinner=False)
def _reference(scale: reports.Scale, stamp: int) -> dict[str, np.ndarray]:
    return reports.reference_rows(scale)


def reference(scale: reports.Scale) -> dict[str, np.ndarray]:
    """Distributions of a reference's own crystals, read once until its file changes."""
    path = reports.reference_file(scale)
    return _reference(scale, path.stat().st_mtime_ns) if path else {}


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
def _map_job(path: Path, stamp: int, dataset: str, names: tuple[str, ...], components: int) -> Job:
    loaded = _model(path, stamp)
    splits = {name: split(dataset, name) for name in names}
    units = dict(dataset_spec(dataset).properties)
    work = partial(
        latent_map.build_map, model=loaded, folder=path, splits=splits, units=units,
        components=components,
    )  # fmt: skip
    return Job(work, needs_polls=False)


def map_job(info: CheckpointInfo, dataset: str, names: tuple[str, ...], components: int = 2) -> Job:
    """The map of some splits, one job for all sessions; its result is a `LatentMap`."""
    return _map_job(info.path, info.stamp, dataset, names, components)


def forget_map(
    info: CheckpointInfo, dataset: str, names: tuple[str, ...], components: int = 2
) -> None:
    """Let a failed map be tried again."""
    _map_job.clear(info.path, info.stamp, dataset, names, components)


@st.cache_data(max_entries=6, show_spinner="Finding the symmetries")
def _systems(dataset: str, names: tuple[str, ...], stamp: int) -> np.ndarray:
    from app.services.facts import crystal_system

    splits = [split(dataset, name) for name in names]
    return np.array([crystal_system(s.crystal(i)) for s in splits for i in range(len(s))])


def systems(of: latent_map.LatentMap) -> np.ndarray:
    """The crystal system of every point of a map, by spglib."""
    names = tuple(of.splits)
    dataset = next(iter(of.splits.values())).info.dataset
    path = find_split(dataset, names[0])
    return _systems(dataset, names, path.stat().st_mtime_ns if path else 0)


@st.cache_data(max_entries=12, show_spinner=False)
def _errors(path: Path, stamp: int, sizes: dict[str, int]) -> np.ndarray | None:
    return reports.reconstruction_errors(path, sizes)


def errors(info: CheckpointInfo, of: latent_map.LatentMap) -> np.ndarray | None:
    """The reconstruction error of every point of a map; None where the checkpoint ships none."""
    if next(iter(of.splits.values())).info.dataset != info.dataset:
        return None
    sizes = {name: len(split) for name, split in of.splits.items()}
    return _errors(info.path, info.stamp, sizes)


def test_map(info: CheckpointInfo) -> latent_map.LatentMap | None:
    """The map of a checkpoint's own test set; None while it is being drawn, or without its data."""
    if info.dataset is None or not find_split(info.dataset, "test"):
        return None
    job = map_job(info, info.dataset, ("test",))
    job.wait(0.3)
    return job.result if job.status == "done" else None
