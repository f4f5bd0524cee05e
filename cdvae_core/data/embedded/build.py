"""Build an embedded dataset: candidates, relaxations in shards, selection, split, Parquet.

    cdvae data build perov_like

Everything follows from the seed: the order of the candidates, the displacements of candidate i
(from `[seed, i]`), the selection (the first that succeed, duplicates left out) and the split.
"""

from __future__ import annotations

import logging
import warnings
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import lru_cache, partial
from importlib import metadata
from multiprocessing import get_context
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from tqdm import tqdm

from cdvae_core.data.embedded import mp_like, perov_like, references, shards
from cdvae_core.data.embedded.calculator import load_calculator
from cdvae_core.data.embedded.relax import Rejected
from cdvae_core.data.embedded.table import Selection, read_table, write_table
from cdvae_core.data.registry import cache_root
from cdvae_core.data.workers import end_with_parent, one_thread
from cdvae_core.errors import DatasetError

logger = logging.getLogger(__name__)

RECIPES: dict[str, ModuleType] = {"perov_like": perov_like, "mp_like": mp_like}
VERSION = 1  # of the recipes; another version never reads this one's shards


@lru_cache(maxsize=1)
def _tools(name: str, seed: int) -> tuple[ModuleType, list, Any, dict[str, float]]:
    """What one process needs for its tasks: recipe, candidates, calculator, references."""
    warnings.filterwarnings("ignore", message="logm result may be inaccurate")
    warnings.filterwarnings("ignore", message="Converting a tensor with requires_grad=True")
    recipe = RECIPES[name]
    return recipe, recipe.candidates(seed), load_calculator(), references.load()


def relax_candidate(name: str, seed: int, index: int) -> shards.Entry:
    """Relax candidate `index`: its record, or the reason why it has none.

    Besides what the recipe rejects, CHGNet and the optimiser may fail on a geometry (isolated
    atoms, a singular Hessian): that too is a reason and not the end of the build.
    """
    recipe, candidates, calculator, energies = _tools(name, seed)
    calculator.reset()
    rng = np.random.default_rng([seed, index])
    try:
        record = recipe.relax(candidates[index], rng, calculator, energies)
    except Rejected as rejected:
        return {"index": index, "reason": rejected.args[0], "detail": str(candidates[index])}
    except (ValueError, RuntimeError, ArithmeticError) as failure:
        reason = "isolated atoms" if "isolated" in str(failure) else type(failure).__name__
        detail = f"{candidates[index]}: {str(failure)[:200]}"
        return {"index": index, "reason": reason, "detail": detail}
    return {"index": index, "record": record}


def work_folder(name: str, seed: int, root: Path | None = None) -> Path:
    """Where the shards of one build lie, below the cache directory."""
    return cache_root(root) / "build" / f"{name}-v{VERSION}-seed{seed}"


def begin(name: str, seed: int, size: int, shipped: Path) -> Selection:
    """An empty selection, or what a smaller file of the same recipe and seed holds already.

    Raises:
        DatasetError: the file there would be replaced by a smaller one or by another set.
    """
    selection = Selection(size)
    if shipped.is_file():
        records, report = read_table(shipped)
        if (report["recipe_version"], report["seed"]) != (VERSION, seed):
            raise DatasetError(f"{shipped} is of another recipe or seed: choose another folder")
        if len(records) > size:
            raise DatasetError(f"{shipped} holds {len(records)} crystals: choose another folder")
        selection.restore(records, report)
    return selection


def relax_until(selection: Selection, name: str, seed: int, folder: Path, workers: int) -> None:
    """Relax candidates, shard by shard, until the selection is full."""
    read = first = selection.tried // shards.SHARD_SIZE

    def take_finished() -> None:
        nonlocal read
        for entries in shards.read_shards(folder, start=read):
            selection.add(entries)
            read += 1

    take_finished()
    if selection.full:
        return
    compute = partial(relax_candidate, name, seed)
    total = len(RECIPES[name].candidates(seed))
    with (
        one_thread(),
        ProcessPoolExecutor(
            workers, mp_context=get_context("spawn"), initializer=end_with_parent
        ) as pool,
        tqdm(
            total=selection.size, initial=len(selection.records), desc=name, unit="crystal"
        ) as bar,
    ):
        finished = shards.complete(compute, folder, total, pool, 2 * workers, start=first)
        try:
            for _ in finished:
                take_finished()
                bar.update(len(selection.records) - bar.n)
                if selection.full:
                    break
        except BrokenProcessPool as error:
            raise DatasetError(
                "a process of the build was ended from outside, perhaps for want of memory; "
                "run it again with fewer workers, it goes on where it was"
            ) from error


def build(
    name: str,
    out: Path,
    *,
    seed: int = 0,
    limit: int | None = None,
    workers: int = 2,
    work: Path | None = None,
) -> Path:
    """Build an embedded dataset, going on where an earlier build stopped.

    Args:
        name: `perov_like` or `mp_like`.
        out: folder for `NAME.parquet`, written atomically; a smaller one there of the same recipe
            and seed is gone on from, any other is left alone.
        seed: decides everything that is random.
        limit: crystals to make, the recipe's own number if None.
        workers: processes.
        work: folder for the unfinished work, the cache directory if None.

    Returns:
        The path of the Parquet file.

    Raises:
        DatasetError: unknown name, a limit below 1, CHGNet missing, too few candidates, or
            another file in `out`.
    """
    if name not in RECIPES:
        raise DatasetError(f"no recipe for {name!r}: choose one of {', '.join(RECIPES)}")
    size = RECIPES[name].SIZE if limit is None else limit
    if size < 1:
        raise DatasetError(f"limit is {size}: ask for at least 1 crystal")
    load_calculator()
    folder = work_folder(name, seed, work)
    folder.mkdir(parents=True, exist_ok=True)
    selection = begin(name, seed, size, out / f"{name}.parquet")
    relax_until(selection, name, seed, folder, workers)
    if not selection.full:
        found = len(selection.records)
        raise DatasetError(f"{name} has {found} crystals, not {size}: lower the limit to that")
    tools = {tool: metadata.version(tool) for tool in ("chgnet", "ase", "pymatgen", "torch")}
    report = {"name": name, "recipe_version": VERSION, "seed": seed}
    report |= selection.report() | {"tools": tools}
    logger.info("%s", report)
    return write_table(selection.records, out / f"{name}.parquet", report)
