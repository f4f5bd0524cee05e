"""Training on a dataset larger than one wants in memory: a million synthetic crystals.

    python benchmarks/shards.py                # results/shards.json
    python benchmarks/shards.py -n 100000

The crystals have 1 to 20 atoms and 12 random edges per atom. They are written as parts, joined as
`cdvae data build` joins its own, read once through the loader of training, and trained on by
`cdvae train` for two minutes. Printed are the largest resident memory of each of these processes
(mapped pages included) and crystals per second.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import cdvae, report

from cdvae_core.data.cache import open_split
from cdvae_core.data.format import SplitInfo, join_splits, split_path, write_split
from cdvae_core.data.loader import ShardedOrder, loader
from cdvae_core.data.registry import DatasetSpec, user_spec_content

PART = 2**14
EDGES = 12
BATCH = 64
EXPERIMENT = """dataset: huge
model: {max_atoms: 20, prop: energy, encoder: {hidden: 64, blocks: 2}, \
decoder: {hidden: 64, blocks: 2}}
recipe: {batch_size: 64, micro_batch: 32, epochs: 1}
"""


def made(count: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Arrays of a split of random crystals, of 20 Å3 per atom."""
    num_atoms = rng.integers(1, 21, count)
    atoms = int(num_atoms.sum())
    cells = np.eye(3) * (20 * num_atoms[:, None, None]) ** (1 / 3)
    target = np.repeat(np.arange(atoms), EDGES)
    first = np.repeat(np.cumsum(num_atoms) - num_atoms, num_atoms)
    image = rng.integers(-1, 2, (len(target), 3))
    image[~image.any(1)] = 1  # no edge from an atom to itself
    within = np.arange(atoms) - first
    source = rng.integers(0, np.repeat(np.repeat(num_atoms, num_atoms), EDGES))
    names = [f"{i:08x}" for i in rng.integers(0, 2**32, count)]
    return {
        "id_bytes": np.frombuffer("".join(names).encode(), np.uint8),
        "id_length": np.full(count, 8, np.int32),
        "num_atoms": num_atoms.astype(np.int32),
        "num_edges": (EDGES * num_atoms).astype(np.int32),
        "lattice": cells + rng.normal(0, 0.1, cells.shape),
        "atomic_numbers": rng.integers(1, 80, atoms).astype(np.uint8),
        "frac_coords": rng.random((atoms, 3)),
        "source": source.astype(np.int16),
        "target": within[target].astype(np.int16),
        "image": image.astype(np.int8),
        "property.energy": rng.normal(size=count),
    }


def build(root: Path, count: int) -> int:
    """Write the dataset into a cache folder; the size of the training split in bytes."""
    rng = np.random.default_rng(0)
    folder = root / "prepared"
    for split, crystals in (("train", count), ("val", 1000)):
        parts = []
        for first in range(0, crystals, PART):
            parts.append(root / f"part-{first}")
            write_split(parts[-1], made(min(PART, crystals - first), rng), SplitInfo("huge", split))
        join_splits(parts, split_path(folder, "huge", split), SplitInfo("huge", split))
        for part in parts:
            part.unlink()
    spec = DatasetSpec("huge", f"{count:,} random crystals", {"energy": ""}, "energy", 20, "made")
    (folder / "huge.json").write_bytes(user_spec_content(spec))
    return split_path(folder, "huge", "train").stat().st_size


def read_once(root: Path) -> tuple[float, float]:
    """Seconds to open the split, and to read an epoch."""
    begun = time.perf_counter()
    split = open_split("huge", "train", root)
    opened = time.perf_counter()
    for _ in loader(split, "energy", BATCH, ShardedOrder(len(split), BATCH, 0)):
        pass
    return opened - begun, time.perf_counter() - opened


def _in_a_process(work: Any, *given: Any) -> tuple[Any, float]:
    """What it returns, and the largest resident memory of its process in GB."""
    with get_context("spawn").Pool(1) as pool:
        value = pool.apply(work, given)
        return value, pool.apply(_peak) / 2**20


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def train(root: Path, minutes: int) -> tuple[dict[str, Any], float]:
    """The provenance of a short training, and its largest resident memory in GB."""
    (root / "huge.yaml").write_text(EXPERIMENT)
    run = root / "run"
    cdvae("train", str(root / "huge.yaml"), "--run", str(run), "--max-time", f"00:{minutes:02d}",
          CDVAE_DATA=str(root))  # fmt: skip
    known = json.loads((run / "model" / "config.json").read_text())["provenance"]
    return known, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-n", type=int, default=1_000_000)
    parser.add_argument("--minutes", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        begun = time.perf_counter()
        size, build_memory = _in_a_process(build, root, arguments.n)
        built = time.perf_counter() - begun
        (opened, read), read_memory = _in_a_process(read_once, root)
        known, train_memory = train(root, arguments.minutes)
    rows = [
        _row("write", arguments.n, built, build_memory),
        _row("open and check", arguments.n, opened, read_memory),
        _row("read an epoch", arguments.n, read, read_memory),
        _row("train, small variant", known["steps"] * BATCH, known["training_seconds"],
             train_memory),
    ]  # fmt: skip
    report("shards", rows, crystals=arguments.n, file_gb=size / 2**30)


def _row(what: str, crystals: int, taken: float, memory: float) -> dict[str, Any]:
    return {
        "what": what,
        "crystals": crystals,
        "seconds": taken,
        "crystals/s": crystals / taken,
        "resident GB": memory,
    }


if __name__ == "__main__":
    main()
