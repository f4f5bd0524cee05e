"""From structures to the cache: Niggli cell and CrystalNN multigraph (F.1, Appendix B).

The work is cut into small shards. Each is written atomically by the process that made it, so a
build that was killed goes on where it stopped and only what was in hand is done again.
"""

from __future__ import annotations

import logging
import shutil
import signal
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from pymatgen.analysis.local_env import CrystalNN
from tqdm import tqdm

from cdvae_core.crystal import Crystal
from cdvae_core.data.custom import Entry, source_digest
from cdvae_core.data.format import (
    Skipped,
    SplitInfo,
    check_split,
    concatenate,
    count_crystals,
    empty_arrays,
    join_splits,
    pack,
    read_info,
    split_path,
    write_split,
)
from cdvae_core.data.workers import end_with_parent, one_thread
from cdvae_core.errors import DatasetError, StructureError
from cdvae_core.structures import from_structure, load, niggli, to_structure

logger = logging.getLogger(__name__)

SHARD_SIZE = 64
_VERSION = "1"  # of the preprocessing; files of another version are made anew

Edges = tuple[np.ndarray, np.ndarray, np.ndarray]


@lru_cache(maxsize=1)
def _crystal_nn() -> CrystalNN:
    """The neighbour finder with the published settings: no cutoffs, no electronegativities."""
    return CrystalNN(distance_cutoffs=None, x_diff_weight=-1, porous_adjustment=False)


def crystal_nn_edges(crystal: Crystal) -> Edges:
    """The directed CrystalNN multigraph: for each bond an edge either way.

    Returns:
        source `[edges]`, target `[edges]` and image `[edges, 3]`, sorted by target; the source
        atom sits at `frac_coords[source] + image`.

    Raises:
        StructureError: CrystalNN fails or finds no neighbours.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            found = _crystal_nn().get_all_nn_info(to_structure(crystal))
        except Exception as error:  # geometry at large: Qhull, zero weights, missing radii
            why = " ".join(str(error).split())[:200] or type(error).__name__
            raise StructureError(f"CrystalNN fails: {why}") from error
    edges = set()
    for target, neighbours in enumerate(found):
        for neighbour in neighbours:
            source, image = neighbour["site_index"], tuple(int(x) for x in neighbour["image"])
            edges.add((target, source, *image))
            edges.add((source, target, *(-x for x in image)))
    if not edges:
        raise StructureError("CrystalNN finds no neighbours")
    table = np.array(sorted(edges))
    if np.abs(table[:, 2:]).max() > np.iinfo(np.int8).max:
        raise StructureError("CrystalNN finds a neighbour more than 127 cells away")
    return table[:, 1], table[:, 0], table[:, 2:]


def prepare(entry: Entry) -> tuple[Crystal, Edges]:
    """The Niggli cell of an entry and its edges.

    Raises:
        StructureError: it cannot be read, reduced, or connected.
    """
    crystal = load(entry.content)
    try:
        reduced = niggli(to_structure(crystal))
    except (ValueError, ArithmeticError, np.linalg.LinAlgError) as error:
        raise StructureError(f"the cell cannot be reduced: {error}") from error
    crystal = from_structure(reduced)
    return crystal, crystal_nn_edges(crystal)


def _prepare_shard(entries: Sequence[Entry], path: Path, info: SplitInfo) -> int:
    """Prepare some entries and write them; the number of entries."""
    parts = [empty_arrays(list(entries[0].properties))]
    skipped = []
    for entry in entries:
        try:
            crystal, edges = prepare(entry)
        except StructureError as error:
            skipped.append(Skipped(entry.id, str(error)))
        else:
            parts.append(pack(entry.id, crystal, edges, entry.properties))
    shard = SplitInfo(info.dataset, info.split, info.source, info.notes, tuple(skipped))
    write_split(path, concatenate(parts), shard)
    return len(entries)


def prepare_split(
    entries: Sequence[Entry],
    folder: Path,
    dataset: str,
    split: str,
    *,
    notes: Sequence[str] = (),
    workers: int = 1,
    progress: bool = True,
) -> SplitInfo:
    """Preprocess a split into `folder`, going on where an earlier run stopped.

    Args:
        entries: all with the same properties.
        folder: where the file of the split goes.
        dataset, split: names.
        notes: what is incomplete; part of the fingerprint.
        workers: processes; 1 works in this one. A script that asks for more needs the usual
            `if __name__ == "__main__"`, since each process imports it.
        progress: show a bar on stderr.

    Returns:
        What was written, with the structures that were skipped and why.

    Raises:
        DatasetError: no entry could be used, or a process died.
    """
    source = source_digest(entries, salt=f"{_VERSION} {dataset} {split} {list(notes)}")
    info = SplitInfo(dataset, split, source, tuple(notes))
    path = split_path(folder, dataset, split)
    if path.exists() and _is_current(path, source):
        return read_info(path)
    parts = folder / f"{dataset}-{split}.parts"
    shards = _shards(entries, parts, source)
    todo = [(chunk, shard) for chunk, shard in shards if not _is_current(shard, source)]
    with tqdm(
        total=len(entries), desc=f"{dataset} {split}", unit="crystal", disable=not progress
    ) as bar:
        bar.update(len(entries) - sum(len(chunk) for chunk, _ in todo))
        for done in _work(todo, info, workers):
            bar.update(done)
    return _merge([shard for _, shard in shards], path, info, parts)


def _shards(
    entries: Sequence[Entry], parts: Path, source: str
) -> list[tuple[Sequence[Entry], Path]]:
    starts = range(0, len(entries), SHARD_SIZE)
    chunks = [entries[start : start + SHARD_SIZE] for start in starts]
    return [(chunk, parts / f"{i:06d}.safetensors") for i, chunk in enumerate(chunks)]


def _is_current(path: Path, source: str) -> bool:
    """Whether the file is whole and made from this source."""
    if not path.exists():
        return False
    try:
        return check_split(path).source == source
    except DatasetError as error:
        logger.warning("%s", error)
        return False


def _work(
    todo: Sequence[tuple[Sequence[Entry], Path]], info: SplitInfo, workers: int
) -> Iterator[int]:
    """Do the shards, yielding the number of entries of each as it is done."""
    if workers <= 1 or len(todo) <= 1:
        for chunk, shard in todo:
            yield _prepare_shard(chunk, shard, info)
        return
    with (
        one_thread(),
        ProcessPoolExecutor(
            min(workers, len(todo)), get_context("spawn"), initializer=_start_worker
        ) as pool,
    ):
        futures = [pool.submit(_prepare_shard, chunk, shard, info) for chunk, shard in todo]
        try:
            for future in as_completed(futures):
                yield future.result()
        except BrokenProcessPool as error:
            raise DatasetError(
                f"a process that prepared {info.dataset} {info.split} died (out of memory?): "
                "run the command again to go on, with fewer --workers"
            ) from error
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _start_worker() -> None:
    """In a worker: finish the shard in hand on Ctrl-C, but do not outlive a killed parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()


def _merge(shards: Sequence[Path], path: Path, info: SplitInfo, parts: Path) -> SplitInfo:
    """Join the shards in order into the file of the split, then delete them."""
    skipped = tuple(s for shard in shards for s in read_info(shard).skipped)
    if not any(count_crystals(shard) for shard in shards):
        why = f": {skipped[0].id}: {skipped[0].reason}" if skipped else ""
        shutil.rmtree(parts, ignore_errors=True)
        raise DatasetError(
            f"none of the {len(skipped)} crystals of {info.dataset} {info.split} is usable{why}"
        )
    whole = SplitInfo(info.dataset, info.split, info.source, info.notes, skipped)
    written = join_splits(shards, path, whole)
    shutil.rmtree(parts)
    return written
