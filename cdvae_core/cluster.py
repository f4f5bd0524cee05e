"""Work on a Dask cluster, through joblib."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from cdvae_core.errors import ConfigError


def connect(scheduler: str, patience: float = 10.0) -> Any:
    """A client of a Dask scheduler.

    Args:
        patience: seconds to wait for it, and for its first worker.

    Raises:
        ConfigError: dask is not installed, nobody answers there, or it has no workers.
    """
    try:
        from dask.distributed import Client
    except ImportError as error:
        raise ConfigError('--scheduler needs dask: pip install "cdvae[cluster]"') from error
    problem = f"no Dask scheduler answers at {scheduler}"
    try:
        client = Client(scheduler, timeout=patience)
    except (OSError, ValueError, TimeoutError) as error:
        problem = f"{problem}: {error}"
    else:
        try:
            client.wait_for_workers(1, timeout=patience)
            return client
        except TimeoutError:
            client.close()
            problem = f"the Dask scheduler at {scheduler} has no workers"
    gc.collect()  # a client half made blocks the start of the next one if it is collected meanwhile
    raise ConfigError(problem)


@contextmanager
def workers_of(scheduler: str) -> Iterator[None]:
    """Let joblib hand its tasks to the workers of a scheduler.

    Raises:
        ConfigError: see `connect`.
    """
    from joblib import parallel_config

    with connect(scheduler), parallel_config(backend="dask"):
        yield
