"""Work on a Dask cluster, through joblib."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from cdvae_core.errors import ConfigError


def connect(scheduler: str) -> Any:
    """A client of a Dask scheduler.

    Raises:
        ConfigError: dask is not installed, or nobody answers there.
    """
    try:
        from dask.distributed import Client
    except ImportError as error:
        raise ConfigError('--scheduler needs dask: pip install "cdvae[cluster]"') from error
    try:
        return Client(scheduler, timeout=10)
    except (OSError, ValueError, TimeoutError) as error:
        raise ConfigError(f"no Dask scheduler answers at {scheduler}: {error}") from error


@contextmanager
def workers_of(scheduler: str) -> Iterator[None]:
    """Let joblib hand its tasks to the workers of a scheduler.

    Raises:
        ConfigError: see `connect`.
    """
    from joblib import parallel_config

    with connect(scheduler), parallel_config(backend="dask"):
        yield
