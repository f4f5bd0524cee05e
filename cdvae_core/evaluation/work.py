"""Many tasks over processes or over a cluster, kept as they are done.

Each answer is kept under the content that it belongs to, so a run that was killed, or one with a
few more crystals, does only what is missing.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from joblib import Parallel, delayed, parallel_config
from tqdm import tqdm

from cdvae_core.cluster import workers_of
from cdvae_core.crystal import Crystal
from cdvae_core.evaluation.child import Worker
from cdvae_core.files import write_atomically

CHUNK = 8  # tasks between two writes
_VERSION = "1"  # of the tasks; answers of another version are not used
_LIBRARIES = ("pymatgen", "matminer", "smact", "spglib")

Answer = dict[str, Any]
_idle: list[Worker] = []  # processes that wait for more: a start takes seconds of imports


@dataclass(frozen=True)
class Crew:
    """Who does the work.

    Attributes:
        jobs: processes on this machine.
        timeout: seconds for one task.
        scheduler: address of a Dask scheduler, to use its workers instead.
        quiet: show no progress.
    """

    jobs: int = 2
    timeout: float = 60.0
    scheduler: str | None = None
    quiet: bool = False


class Store:
    """Answers in a folder, in small files that are whole or not there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.answers: dict[str, Answer] = {}
        for part in sorted(folder.glob("*.json")):
            self.answers |= json.loads(part.read_text(encoding="utf-8"))

    def add(self, answers: dict[str, Answer]) -> None:
        """Keep them; failures until the end of this run only, since more time may mend them."""
        self.answers |= answers
        lasting = {k: answer for k, answer in answers.items() if "value" in answer}
        if lasting:
            path = self.folder / f"{uuid.uuid4().hex}.json"
            write_atomically(path, json.dumps(lasting).encode())


def run(
    task: str, all_arguments: Sequence[tuple], store: Store, crew: Crew, label: str
) -> list[Answer]:
    """The answer to a task for each of many arguments, in their order.

    Args:
        task: name in `tasks.TASKS`.
        all_arguments: crystals, strings, and lists of crystals.
        store: where answers are, and where new ones go.
        label: of the progress bar.

    Returns:
        `{"value": ...}` each, or `{"failure": reason}`.
    """
    keys = [key(task, arguments) for arguments in all_arguments]
    wanted = dict(zip(keys, all_arguments, strict=True))  # equal ones are done once
    missing = [(k, arguments) for k, arguments in wanted.items() if k not in store.answers]
    chunks = [missing[i : i + CHUNK] for i in range(0, len(missing), CHUNK)]
    done = len(keys) - len(missing)
    threads = parallel_config(backend="threading")  # each of which keeps a process busy
    backend = workers_of(crew.scheduler) if crew.scheduler else threads
    with backend, tqdm(total=len(keys), initial=done, desc=label, disable=crew.quiet) as bar:
        if chunks:
            parallel = Parallel(n_jobs=crew.jobs, return_as="generator_unordered")
            for answers in parallel(delayed(_do)(task, chunk, crew.timeout) for chunk in chunks):
                store.add(answers)
                bar.update(len(answers))
    return [store.answers[k] for k in keys]


def _do(task: str, chunk: Sequence[tuple[str, tuple]], timeout: float) -> dict[str, Answer]:
    """On a worker: one chunk, by a process that waits from an earlier one, or a new one."""
    try:
        worker = _idle.pop()
    except IndexError:
        worker = Worker()
    try:
        return {k: worker.do(task, arguments, timeout) for k, arguments in chunk}
    finally:
        _idle.append(worker)


def key(task: str, arguments: tuple) -> str:
    """The identity of a task on its arguments, by their content and the libraries' versions."""
    return hashlib.sha256(
        "\n".join([_made_by(), task, *map(_digest, arguments)]).encode()
    ).hexdigest()


def _digest(given: Any) -> str:
    if isinstance(given, Crystal):
        arrays = (given.atomic_numbers, given.frac_coords, given.lattice)
        return hashlib.sha256(b"|".join(array.tobytes() for array in arrays)).hexdigest()
    if isinstance(given, list | tuple):
        return hashlib.sha256(",".join(map(_digest, given)).encode()).hexdigest()
    return repr(given)


@lru_cache(maxsize=1)
def _made_by() -> str:
    return " ".join([_VERSION, *(f"{name}={version(name)}" for name in _LIBRARIES)])
