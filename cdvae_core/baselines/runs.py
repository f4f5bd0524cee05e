"""What a system makes, into folders that `cdvae evaluate` reads, as CDVAE's own runs are.

Crystals are written as they come; one that could not be made is named with its reason.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import torch

from cdvae_core.baselines.checkpoint import system_of
from cdvae_core.baselines.protocol import Baseline, Made, Optimises, Reconstructs
from cdvae_core.crystal import Crystal
from cdvae_core.data.cache import CachedSplit
from cdvae_core.decode import Decoded, Folder, settings
from cdvae_core.errors import ConfigError
from cdvae_core.optimise import Goal

_WRITTEN_AT_ONCE = 32


def sample(
    model: Baseline, checkpoint: Path, out: Path, count: int, seed: int
) -> Iterator[Decoded]:
    """Generate crystals.

    Raises:
        ConfigError, OutputError: see `decode.Folder`.
    """
    folder = Folder(out, _settings(model, checkpoint, seed, task="sample"))
    names = [f"sample-{i:05d}" for i in range(count)]
    return _kept(folder, names, model.sample(count, _generator(model, seed)))


def reconstruct(
    model: Baseline,
    checkpoint: Path,
    out: Path,
    dataset: str,
    split: CachedSplit,
    places: Sequence[int],
    seed: int,
) -> tuple[Folder, Iterator[Decoded]]:
    """Encode crystals of a split and decode them again.

    Raises:
        ConfigError: the system has no encoder; the folder is not empty.
    """
    if not isinstance(model, Reconstructs):
        raise ConfigError(f"{system_of(model)} has no encoder: it cannot reconstruct")
    ids, name = [split.ids[i] for i in places], split.info.split
    about = {"task": "reconstruct", "dataset": dataset, "split": name, "k": 1, "ids": ids}
    folder = Folder(out, _settings(model, checkpoint, seed, **about))
    folder.reference([split.crystal(i) for i in places], ids)
    made = model.reconstruct(split, places, _generator(model, seed))
    return folder, _kept(folder, [f"{name}-{i:05d}-0" for i in places], made)


def optimise(
    model: Baseline,
    checkpoint: Path,
    out: Path,
    dataset: str,
    split: CachedSplit,
    places: Sequence[int],
    goal: Goal,
    kept: int,
    seed: int,
) -> Iterator[Decoded]:
    """Crystals with a better property: `kept` for each start, all starts one after the other.

    Raises:
        ConfigError: the system cannot, or has learnt no property; the folder is not empty.
    """
    if not isinstance(model, Optimises):
        raise ConfigError(f"{system_of(model)} cannot look for a better property")
    if model.config.prop is None:
        raise ConfigError("this checkpoint was trained without a property: it has nothing to go by")
    about = {
        "task": "optimise", "goal": str(goal), "property": model.config.prop, "dataset": dataset,
        "split": split.info.split, "starts": len(places), "ids": [split.ids[i] for i in places],
    }  # fmt: skip
    folder = Folder(out, _settings(model, checkpoint, seed, **about))
    made = model.optimise(split, places, goal, kept, _generator(model, seed))
    names = [f"draw-{k:02d}-start-{i:05d}" for k in range(kept) for i in range(len(places))]
    return _kept(folder, names, (one for all_starts in made for one in all_starts))


def _kept(folder: Folder, names: Sequence[str], made: Iterable[Made]) -> Iterator[Decoded]:
    """Each crystal once it is in the folder."""
    pairs = zip(names, made, strict=True)
    while several := list(islice(pairs, _WRITTEN_AT_ONCE)):
        done = [
            Decoded(name, one) if isinstance(one, Crystal) else Decoded(name, None, str(one))
            for name, one in several
        ]
        folder.add(done)
        yield from done


def _settings(model: Baseline, checkpoint: Path, seed: int, **more: object) -> dict[str, object]:
    return settings(checkpoint, seed, system=system_of(model), **more)


def _generator(model: Baseline, seed: int) -> torch.Generator:
    return torch.Generator(model.device).manual_seed(seed)
