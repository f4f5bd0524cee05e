"""Resumable work on a list of tasks: small shards of results, each written atomically.

A shard is a JSON list with one entry per task: `{"index": i, "record": {...}}`, or
`{"index": i, "reason": "...", "detail": "..."}` for a task that was rejected. A killed run loses
only the shards in flight; the next one goes on with those that are missing. What a task gives
depends on its index alone, so neither the number of workers nor their order changes anything.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from pathlib import Path

from cdvae_core.files import write_atomically

SHARD_SIZE = 10

Entry = dict[str, object]
Compute = Callable[[int], Entry]


def shard_path(folder: Path, shard: int) -> Path:
    """Where shard number `shard` (tasks `shard * SHARD_SIZE` and on) lies."""
    return folder / f"shard-{shard:05d}.json"


def write_shard(compute: Compute, folder: Path, shard: int, total: int) -> None:
    """Do the tasks of one shard and write it, complete or not at all."""
    first = shard * SHARD_SIZE
    entries = [compute(index) for index in range(first, min(first + SHARD_SIZE, total))]
    write_atomically(shard_path(folder, shard), json.dumps(entries).encode())


def read_shards(folder: Path, start: int = 0) -> Iterator[list[Entry]]:
    """The shards from number `start` on, in order, up to the first that is missing."""
    shard = start
    while (path := shard_path(folder, shard)).exists():
        yield json.loads(path.read_text(encoding="utf-8"))
        shard += 1


def complete(
    compute: Compute,
    folder: Path,
    total: int,
    executor: Executor,
    in_flight: int,
    start: int = 0,
) -> Iterator[int]:
    """Write the missing shards in order, `in_flight` at a time; stop asking to stop working.

    Args:
        compute: gives the entry of one task; picklable where the executor needs that.
        folder: where the shards lie.
        total: number of tasks.
        executor: runs the shards.
        in_flight: shards handed out at a time.
        start: the first shard that is wanted.

    Yields:
        Number of shards finished in this run, whenever it grows.
    """
    count = -(-total // SHARD_SIZE)
    missing = (shard for shard in range(start, count) if not shard_path(folder, shard).exists())
    pending: set[Future[None]] = set()
    finished = 0
    try:
        while True:
            while len(pending) < in_flight and (shard := next(missing, None)) is not None:
                pending.add(executor.submit(write_shard, compute, folder, shard, total))
            if not pending:
                return
            done, pending = wait(pending, return_when=FIRST_COMPLETED)
            for future in done:
                future.result()
            finished += len(done)
            yield finished
    finally:
        for future in pending:
            future.cancel()
