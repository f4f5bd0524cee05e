"""Inputs and figures of the published evaluation code, from a folder beside the checkout."""

from __future__ import annotations

import gzip
import json
import os
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cdvae_core.crystal import Crystal

SHARED = Path(os.environ.get("CDVAE_SHARED", Path(__file__).parents[2] / ".." / "shared"))
CASES = ("perov_gen_clean", "perov_gen_corrupted", "perov_recon_0.1A")


def golden(case: str, name: str) -> Any:
    """`inputs` or `expected` of a case; skips the test where the folder is absent."""
    path = SHARED / "golden" / case / f"{name}.json.gz"
    if not path.exists():
        pytest.skip("the folder of golden figures is absent (set CDVAE_SHARED)")
    with gzip.open(path) as file:
        return json.load(file)


def expected(case: str) -> Any:
    return golden(case, "expected")["pinned"]


def fingerprints(case: str) -> dict[str, np.ndarray]:
    return dict(np.load(SHARED / "golden" / case / "fingerprints_pinned.npz"))


@lru_cache(maxsize=4)
def crystals(case: str, side: str) -> list[Crystal]:
    return [
        Crystal.from_parameters(
            one["lengths"], one["angles"], np.array(one["frac_coords"]), one["atomic_numbers"]
        )
        for one in golden(case, "inputs")[side]
    ]
