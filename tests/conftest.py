"""What all tests share: one thread, shapes checked as types, examples that repeat."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings
from jaxtyping import install_import_hook

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, "1")  # of the commands that tests start
torch.set_num_threads(1)

# From here on every import of the package checks its annotations, tensor shapes included.
install_import_hook("cdvae_core", "typecheck.check")

settings.register_profile(
    "repeatable",
    derandomize=True,
    deadline=None,
    database=None,
    print_blob=False,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.load_profile("repeatable")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference data, which is no part of the repository."""
    beside = Path(__file__).resolve().parents[2] / "shared"
    folder = Path(os.environ.get("CDVAE_SHARED") or beside)
    if not (folder / "data").is_dir():
        pytest.skip(f"no reference data in {folder}; set CDVAE_SHARED to where they are")
    return folder
